"""Trains two tiny MANNs together in several ways and prints the weights: `stacked_run.py DEVICE WAYS [BACKEND]`.

WAYS: names of `pick_unroll` with commas between. BACKEND: of torch.compile, if not its own, see `compiled_run.py`.
"""

import functools
import json
import sys
from dataclasses import replace

import torch

from lib.methods import online
from lib.training.stacked import train_together
from tests.training.drawn import TWENTY, drawn_learners, drawn_tasks


def main(device: str, ways: str, backend: str | None) -> None:
    torch.set_num_threads(1)
    if backend:
        torch.compile = functools.partial(torch.compile, backend=backend)
    online.CHUNK = 4  # of nine steps: two chunks of one length and one of another
    found = {}
    for way in ways.split(","):
        learners = drawn_learners((0, 1), device=device)
        config = replace(TWENTY, updates=8)
        train_together(learners, drawn_tasks((0, 1), device), config, unroll=way, progress=False)
        found[way] = [w for learner in learners for p in learner.parameters() for w in p.detach().flatten().tolist()]
    found["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:3], *sys.argv[3:] or [None])
