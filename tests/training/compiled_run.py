"""Trains a tiny MANN plain and compiled; prints losses and final weights: `compiled_run.py LENGTH [BACKEND]`.

LENGTH: steps of an episode. BACKEND: of torch.compile, if not its own; `aot_eager` traces and differentiates the same
graphs but generates no code, which is what takes long.
"""

import functools
import json
import sys

import torch

from lib.methods import online
from lib.training import TrainingConfig, train
from tests.training.tiny import TinyTask, tiny_mann

CONFIG = TrainingConfig(
    updates=6, batch_size=2, learning_rate=1e-3, log_every=1, validate_every=6, validation_batches=1, checkpoint_every=1
)


def main(length: int, backend: str | None) -> None:
    torch.set_num_threads(1)
    if backend:
        torch.compile = functools.partial(torch.compile, backend=backend)
    online.CHUNK = 2  # two steps are compiled sooner than ten
    found = {}
    for unroll in ("plain", "compiled"):
        learner = tiny_mann()
        log = train(learner, TinyTask(length=length), CONFIG, unroll=unroll, progress=False).log
        found[unroll] = {
            "losses": [line["loss"] for line in log] + [log[-1]["validation"]["loss"]],
            "weights": [parameter.detach().flatten().tolist() for parameter in learner.parameters()],
        }
    found["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:] or [None])
