"""Timing of learners that take one step after the other: ask for a prediction, tell what came.

What is told is timed after what is asked, of which a learner may keep what it needs.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from lib.bench import Bench, Comparison, Measurement
from lib.report import grouped

PREDICT, OBSERVE, BOTH = "predict", "observe", "predict and observe"
WIDTH = 50  # of embeddings and states (paper: 50 for the LSTM of Rei and MAML, else silent)


class Steps(NamedTuple):
    """A way of doing the same steps; both take the number of the step."""

    ask: Callable[[int], object]
    tell: Callable[[int], object]
    begin: Callable[[], object] = lambda: None
    """Before each repetition."""


def measure_steps(
    ways: dict[str, Steps], steps: int, repetitions: int, device: torch.device
) -> tuple[tuple[Measurement, ...], tuple[Measurement, ...], tuple[Measurement, ...]]:
    """Time asking, telling, and both, in seconds a step. The ways take turns of `steps` steps, after one that is not
    timed: it fetches into the caches what the other ways drove out."""
    clock = clock_of(device)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock()

    def a_turn(way: Steps) -> tuple[float, float, float]:
        way.begin()
        way.ask(0)
        way.tell(0)
        asking = telling = 0.0
        for n in range(steps):
            start = now()
            way.ask(n)
            asked = now()
            way.tell(n)
            asking, telling = asking + asked - start, telling + now() - asked
        return asking / steps, telling / steps, (asking + telling) / steps

    first = {name: a_turn(way) for name, way in ways.items()}
    turns: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            turns[name].append(a_turn(way))
    return tuple(
        tuple(Measurement(name, tuple(turn[what] for turn in turns[name]), first[name][what]) for name in ways)
        for what in range(3)
    )


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time where one thread does it all: other processes must not count. Else the clock on the wall."""
    return time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def by_title(bench: Bench) -> dict[str, Comparison]:
    """A benchmark's comparisons by what `title_of` gave them."""
    return {each.title: each for each in bench.comparisons}


def title_of(part: str, of: str) -> str:
    """The title of a comparison: what is timed, and of what."""
    return f"{part}: {of}"


def digits(number: float) -> str:
    """Two digits or more: 0.034, 3.4, 34, 3 421."""
    return grouped(round(number)) if number >= 10 else f"{number:.2g}"


def machine_of(bench: Bench) -> str:
    """Where a benchmark was measured, for a caption."""
    machine = bench.machine
    threads = f"{machine['threads']} thread" + ("s" if machine["threads"] != 1 else "")
    return f"{machine['name']}, {threads}, torch {machine['torch']}, medians"
