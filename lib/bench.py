"""Benchmarks: ratios of two ways of doing the same thing, measured side by side in one run."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from lib import ledger
from lib.experiments import omniglot
from lib.experiments.mann import TABLE1
from lib.methods.online import CHUNK
from lib.tasks.images import MAX_ANGLE, MAX_SHIFT, ORIGINAL_SIZE, SIZE, ImageBank
from lib.training.loop import make_optimizer, pick_unroll

BATCH = 16
BATCHES = (16, 64)


@dataclass(frozen=True)
class Measurement:
    """One way of doing something, timed."""

    name: str
    seconds: tuple[float, ...]
    """Of each repetition."""
    first: float
    """Of the first call, which may compile."""

    @property
    def median(self) -> float:
        """Of the repetitions."""
        return statistics.median(self.seconds)


def measure(ways: dict[str, Callable[[], object]], repetitions: int, device: torch.device) -> list[Measurement]:
    """Time several ways in turns, so that a busy machine slows all of them alike."""

    def timed(way: Callable[[], object]) -> float:
        started = time.perf_counter()
        way()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    first = {name: timed(way) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    return [Measurement(name, tuple(seconds[name]), first[name]) for name in ways]


def describe(title: str, measurements: list[Measurement], unit: str, amount: int) -> str:
    """A small table: each way's rate, its ratio to the first way, and the spread of its repetitions."""
    base = measurements[0].median
    lines = [title]
    for m in measurements:
        low, high = min(m.seconds), max(m.seconds)
        lines.append(
            f"  {m.name:<34} {amount / m.median:9.1f} {unit}/s   ratio {base / m.median:5.2f}   "
            f"{1000 * low:.1f} to {1000 * high:.1f} ms   first call {m.first:.1f} s"
        )
    return "\n".join(lines)


def bench_mann(device: torch.device, repetitions: int, compile: bool) -> str:
    """The sampling of a minibatch and the whole training step of MANN at the paper's sizes, on random drawings."""
    config = TABLE1["mann"]
    drawings = (np.random.default_rng(0).random((100, 20, ORIGINAL_SIZE, ORIGINAL_SIZE)) < 0.1).astype(np.uint8)
    bank = ImageBank(drawings, device)
    sampler = omniglot.EpisodeSampler(bank, config.episodes, seed=0, stream="bench")

    def one_by_one() -> None:
        for i in range(BATCH * config.episodes.length):
            _draw_with_pil(drawings[i % 100, i % 20], MAX_ANGLE * (i % 3 - 1), MAX_SHIFT * (i % 5 - 2) / 2, i % 4)

    sampling = measure(
        {"image by image, with PIL": one_by_one, "as one batch": lambda: sampler.batch(0, BATCH)}, repetitions, device
    )

    def step(how: str, size: int) -> Callable[[], object]:
        learner = omniglot.build_learner(config, 0).to(device)
        optimizer = make_optimizer(learner, config.training)
        _, unroll = pick_unroll(learner, how, config.training.updates)
        task = omniglot.ClassificationTask(sampler, sampler, sampler, learner.labels)

        def update() -> None:
            batch = sampler.batch(0, size)
            loss = task.loss(learner(batch.xs, batch.ys, unroll), batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(learner.parameters(), config.training.clip)
            optimizer.step()

        return update

    names = {"plain": "plain"}
    if omniglot.build_learner(config, 0).to(device).fast_unroll():
        names["fast"] = "fast, derivative by hand"
    if compile:
        names["compiled"] = f"compiled, {CHUNK} steps at a time"
    training = {
        size: measure({name: step(how, size) for how, name in names.items()}, repetitions, device) for size in BATCHES
    }
    machine = ", ".join(f"{key} {value}" for key, value in ledger.describe_machine(device).items())
    return "\n".join(
        [
            machine,
            describe(f"a minibatch of {BATCH} episodes, drawn and augmented", sampling, "episodes", BATCH),
            *(
                describe(f"an update of MANN, batch {size}", found, "episodes", size)
                for size, found in training.items()
            ),
            *_on_gpu(config, sampler, repetitions, compile),
        ]
    )


def _on_gpu(config, sampler, repetitions: int, compile: bool) -> list[str]:
    if sampler.bank.device.type != "cuda":
        return []
    from lib.bench_gpu import bench_on_gpu, ways_on_gpu  # it imports this module

    return [bench_on_gpu(config, sampler, repetitions, ways_on_gpu(compile))]


def _draw_with_pil(drawing: np.ndarray, angle: float, shift: float, turns: int) -> np.ndarray:
    """The slow way: rotate, shift, shrink and turn one image."""
    image = Image.fromarray(drawing * 255).convert("F").rotate(math.degrees(angle), resample=Image.Resampling.BILINEAR)
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, -shift, 0, 1, -shift), Image.Resampling.BILINEAR)
    return np.rot90(np.asarray(moved.resize((SIZE, SIZE), Image.Resampling.BOX)), turns)
