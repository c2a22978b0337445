"""Trains a tiny MANN in one of several processes, all started with torchrun's variables: `shared_run.py FOLDER`.

Each process has a folder of its own under FOLDER, as on machines without a common file system. What each saw goes to
FOLDER/<rank>.json, and its weights to FOLDER/<rank>.pt.
"""

import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from lib.training import distributed, train
from tests.training.tiny import SHORT, TinyTask, tiny_mann

SHARED = replace(SHORT, batch_size=4, clip=0.05, validation_batches=3)


class Stop(Exception):
    """What a kill looks like from inside."""


class StopsAt(TinyTask):
    """Ends the run as it draws an update's minibatch."""

    def __init__(self, update: int):
        super().__init__(torch.float64)
        self.update, batch = update, self.train.batch
        object.__setattr__(self.train, "batch", lambda index, size: self.stop(index) or batch(index, size))

    def stop(self, index: int) -> None:
        if index == self.update:
            raise Stop


class BadLastRow(TinyTask):
    """The last episode of the third minibatch is not a number: only the last process sees it."""

    def __init__(self):
        super().__init__(torch.float64)
        batch = self.train.batch

        def spoilt(index, size):
            drawn = batch(index, size)
            if index == 3:
                drawn.xs[-1] = math.nan
            return drawn

        object.__setattr__(self.train, "batch", spoilt)


def shared_train(config=SHARED, task=None, seed=0, **options):
    """The learner and the result; every process begins with other weights than the first one's."""
    learner = tiny_mann(seed + distributed.rank()).double()
    task = task or TinyTask(torch.float64)
    return learner, train(learner, task, config, progress=False, **options)


def error_of(*arguments, **options) -> str:
    try:
        shared_train(*arguments, **options)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with distributed.joined("cpu"):
        rank = distributed.rank()
        own = folder / f"machine{rank}"
        weights, seen, lines = {}, {"rank": rank, "size": distributed.size()}, []
        for unroll in ("plain", "auto"):
            learner, result = shared_train(unroll=unroll, folder=own / unroll, on_log=lines.append)
            weights[unroll], seen[unroll] = learner.state_dict(), result.log
        seen["lines"] = len(lines)

        seen["stopped"] = error_of(SHARED, StopsAt(7), folder=own / "stopped", unroll="plain")
        seen["other run"] = error_of(replace(SHARED, momentum=0.5), folder=own / "stopped")
        if rank == 0:
            half = (own / "stopped" / "checkpoint.safetensors").read_bytes()
            (folder / "alone").mkdir()
            (folder / "alone" / "checkpoint.safetensors").write_bytes(half)
        learner, result = shared_train(folder=own / "stopped", seed=5, unroll="plain")
        weights["resumed"], seen["resumed"] = learner.state_dict(), result.log

        now = time.monotonic()
        _, late = shared_train(until=now - 1 if rank == 1 else now + 1000, folder=own / "late")
        seen["late"] = [late.updates, late.complete]
        seen["uneven"] = error_of(replace(SHARED, batch_size=5))
        seen["spoilt"] = error_of(SHARED, BadLastRow())
        seen["different"] = error_of(identity={"data": rank})
    torch.save(weights, folder / f"{rank}.pt")
    (folder / f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
