"""Benchmarks: ways of doing the same thing, measured side by side in one run, and what bounds them.

A measurement can be kept, `data/bench/<method>-<device>.json`; the book shows what is kept, with `load` and `table`.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lib import ledger
from lib.atomic import write_atomically
from lib.ledger import LedgerError
from lib.report import Row, Table, text_table

SCALE_TITLES = {
    "held": "labels in memory",
    "labels": "labels of the network",
    "steps": "steps of an episode",
    "slots": "slots of the memory",
    "classes": "classes of an episode, each a number more in the input",
}
SCALE_AXES = {
    "steps": "images of an episode",
    "slots": "slots of the memory",
    "classes": "classes",
    "held": "labels in memory",
    "labels": "labels",
}
SQUARE = 1024  # rows of the matrices whose product shows what the machine can do
FOLDER = ledger.ROOT / "data" / "bench"
FORMAT = 1


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


@dataclass(frozen=True)
class Comparison:
    """Several ways of doing the same thing, timed in turns; ratios are to the first."""

    title: str
    unit: str
    amount: int
    """Units that one call does."""
    ways: tuple[Measurement, ...]
    flops: float | None = None
    """Of the matrix products of one call, where they are counted."""

    def ratio(self, way: Measurement) -> float:
        """How many times faster than the first way, by the medians."""
        return self.ways[0].median / way.median


@dataclass(frozen=True)
class Scaling:
    """What an update, or another task, takes as one size grows and all others stay."""

    size: str
    """Which: a key of `SCALE_TITLES`."""
    way: str
    values: tuple[int, ...]
    ways: tuple[Measurement, ...]
    """One for each value."""
    task: str = "an update"


@dataclass(frozen=True)
class Bench:
    """One run of a benchmark."""

    method: str
    machine: dict[str, Any]
    commit: str | None
    flops_per_second: float
    """What the machine reaches in the product of two large matrices."""
    comparisons: tuple[Comparison, ...]
    scalings: tuple[Scaling, ...]
    format: int = FORMAT
    found: dict[str, float] = field(default_factory=dict)
    """What was measured besides times, such as how far the results of two ways differ."""


def measure(
    ways: dict[str, Callable[[], object]],
    repetitions: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Measurement, ...]:
    """Time several ways in turns, so that a busy machine slows all of them alike."""

    def timed(way: Callable[[], object]) -> float:
        started = clock()
        way()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - started

    first = {name: timed(way) for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repetitions):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    return tuple(Measurement(name, tuple(seconds[name]), first[name]) for name in ways)


def finished(
    method: str,
    comparisons: Sequence[Comparison],
    scalings: Sequence[Scaling],
    repetitions: int,
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
    **more: Any,
) -> Bench:
    """What was measured, beside what the machine can do, which it is, and the code's commit."""
    square = torch.ones(SQUARE, SQUARE, device=device)
    (product,) = measure({"product": lambda: square @ square}, max(repetitions, 10), device, clock)
    return Bench(
        method=method,
        machine=ledger.describe_machine(device),
        commit=ledger.code_commit(),
        flops_per_second=2 * SQUARE**3 / product.median,
        comparisons=tuple(comparisons),
        scalings=tuple(scalings),
        **more,
    )


def save(bench: Bench, folder: Path = FOLDER) -> Path:
    """Keep a measurement in place of the last one on the same device. Raises LedgerError if it cannot be written."""
    path = folder / f"{bench.method}-{bench.machine['device']}.json"
    try:
        write_atomically(path, lambda file: file.write(json.dumps(asdict(bench)).encode() + b"\n"))
    except OSError as error:
        raise LedgerError(f"the measurement {path} cannot be written: {error.strerror or error}; make room") from error
    return path


def load(method: str, device: str = "cpu", folder: Path = FOLDER) -> Bench:
    """The kept measurement of a method on a kind of device. Raises LedgerError if there is none, or it is damaged."""
    path = folder / f"{method}-{device}.json"

    def measurement(found: dict[str, Any]) -> Measurement:
        return Measurement(found["name"], tuple(found["seconds"]), found["first"])

    def ways(found: dict[str, Any]) -> dict[str, Any]:
        return found | {"ways": tuple(measurement(way) for way in found["ways"])}

    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        comparisons = tuple(Comparison(**ways(found)) for found in content["comparisons"])
        scalings = tuple(Scaling(**ways(found) | {"values": tuple(found["values"])}) for found in content["scalings"])
        return Bench(**content | {"comparisons": comparisons, "scalings": scalings})
    except (OSError, ValueError, KeyError, TypeError) as error:
        again = f"python -m lib bench {method} --device {device} --save"
        raise LedgerError(f"{path} is not a measurement ({error}); make it with: {again}") from error


def table(bench: Bench) -> Table:
    """A measurement as a table: rates, ratios, spread, and the time that the matrix products alone would need."""
    rows = []
    for comparison in bench.comparisons:
        for way in comparison.ways:
            low, high = 1000 * min(way.seconds), 1000 * max(way.seconds)
            least = comparison.flops and comparison.flops / bench.flops_per_second
            cells = (
                f"{comparison.amount / way.median:.1f} {comparison.unit}/s",
                f"{comparison.ratio(way):.2f}",
                f"{_short(1000 * way.median)} ms, {_short(low)} to {_short(high)}",
                f"{way.median / least:.1f}" if least else "–",
                f"{way.first:.1f} s",
            )
            rows.append(Row(way.name, comparison.title, cells))
    machine = ", ".join(f"{key} {value}" for key, value in bench.machine.items())
    caption = (
        f"{machine}, commit {bench.commit or 'unknown'}; products of large matrices reach "
        f"{bench.flops_per_second / 1e9:.0f} GFLOP/s, and the last column but one is the time taken in units of what "
        "the method's matrix products alone would take at that rate; the first call compiles or warms up"
    )
    columns = ("rate", "ratio", "median and spread", "times the products alone", "first call")
    return Table(caption, columns, tuple(rows), ("way", "task"))


def describe(bench: Bench) -> str:
    """All of a measurement as text."""
    lines = [text_table(table(bench))]
    for scaling in bench.scalings:
        times = zip(scaling.values, scaling.ways, strict=True)
        growth = ", ".join(f"{value}: {_short(1000 * way.median)} ms" for value, way in times)
        lines.append(f"{scaling.task} by {SCALE_TITLES[scaling.size]} ({scaling.way}): {growth}")
    return "\n".join(lines)


def _short(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds >= 1 else f"{milliseconds:.2g}"
