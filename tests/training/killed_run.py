"""Trains a small MANN in child processes that are killed, and goes on until it is done: `killed_run.py FOLDER SEED`.

Children are forked before any tensor is made, so that starting one costs nothing. FOLDER/whole gets an uninterrupted
run, FOLDER/torn one that was killed while it wrote checkpoints, FOLDER/killed one that was killed at random moments.
Prints the kills as JSON: the places in the one, the seconds from the start in the other.
"""

import io
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from lib import atomic
from lib.methods.mann import MANN, MANNConfig
from lib.tasks.classification import ClassificationTask
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.training import TrainingConfig, checkpoint, train
from tests.tasks.drawings import strokes

CONFIG = TrainingConfig(
    updates=60,
    batch_size=2,
    learning_rate=1e-3,
    log_every=2,
    validate_every=20,
    validation_batches=1,
    checkpoint_every=4,
)


def build() -> tuple[MANN, ClassificationTask]:
    torch.manual_seed(0)
    learner = MANN(MANNConfig(classes=3, hidden=8, slots=8, width=4, reads=2))
    images = strokes(8, 4)

    def sampler(classes, stream):
        return EpisodeSampler(ImageBank(images[classes]), EpisodeConfig(classes=3, length=9), seed=0, stream=stream)

    return learner, ClassificationTask(
        sampler(slice(0, 5), "train"), sampler(slice(5, 8), "validation"), sampler(slice(5, 8), "test"), learner.labels
    )


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_half_way_through_a_write(path, write) -> None:
    """Takes the place of `write_atomically`: the temporary file gets half of its content."""
    whole = io.BytesIO()
    write(whole)

    def half(file):
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        file.flush()
        die()

    atomic.write_atomically(path, half)


def arm(where: str) -> None:
    """Let this process be killed at a place in its writing of a checkpoint, the third time it comes there."""
    passed = 0

    def third_time(then, otherwise):
        def call(*arguments):
            nonlocal passed
            passed += 1
            return then(*arguments) if passed == 3 else otherwise(*arguments)

        return call

    def replace_and_die(source, target):
        replace(source, target)
        die()

    replace = os.replace
    if where == "half written":
        checkpoint.write_atomically = third_time(die_half_way_through_a_write, atomic.write_atomically)
    elif where == "written":
        os.fsync = third_time(die, os.fsync)
    elif where == "before replacing":
        os.replace = third_time(die, os.replace)
    elif where == "after replacing":
        os.replace = third_time(replace_and_die, os.replace)


def start(folder: Path, where: str = "") -> int:
    """Fork a child that trains from where `folder` stands; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        torch.set_num_threads(1)
        arm(where)
        train(*build(), CONFIG, folder=folder, identity={"run": "killed"}, progress=False)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


def finish(child: int) -> bool:
    """Wait for a child: True if it was killed, False if it came to its end. Stops everything if it failed."""
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"a run failed with status {os.WEXITSTATUS(status)}")
    return False


def main(folder: Path, seed: int) -> None:
    started = time.monotonic()
    finish(start(folder / "whole"))
    seconds = time.monotonic() - started
    kills = {"torn": [], "killed": []}
    for where in ("half written", "written", "before replacing", "after replacing"):
        if finish(start(folder / "torn", where)):
            kills["torn"].append(where)
    finish(start(folder / "torn"))
    delays = random.Random(seed)
    for _ in range(6):
        child, delay = start(folder / "killed"), delays.uniform(0.0, seconds / 8)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        if not finish(child):
            break
        kills["killed"].append(delay)
    finish(start(folder / "killed"))
    print(json.dumps(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
