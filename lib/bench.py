"""Benchmarks: ways of doing the same thing, measured side by side in one run, and what bounds them.

A measurement can be kept, `data/bench/<method>-<device>.json`; the book shows what is kept, with `load` and `table`.
"""

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lib import ledger
from lib.atomic import write_atomically
from lib.baselines.ntm import NTMConfig
from lib.experiments import flmn as flmn_experiments
from lib.experiments import mann as mann_experiments
from lib.experiments import omniglot
from lib.ledger import LedgerError
from lib.methods.flmn import FLMNConfig
from lib.methods.mann import MANNConfig
from lib.methods.online import CHUNK, OnlineLearner
from lib.report import Row, Table, text_table
from lib.tasks.episodes import Episodes, EpisodeSampler
from lib.tasks.images import MAX_ANGLE, MAX_SHIFT, ORIGINAL_SIZE, SIZE, ImageBank
from lib.tasks.labels import make_labels
from lib.training.loop import make_optimizer, pick_unroll

PAPER = {"mann": mann_experiments.TABLE1["mann"], "flmn": flmn_experiments.TABLE1["flmn-2"]}
NAMES = {"mann": "MANN", "flmn": "FLMN"}
BATCHES = (16, 64)
SCALES = {"steps": (25, 50, 100, 200), "slots": (32, 64, 128, 256, 512), "classes": (5, 25, 50, 100)}
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
STEP_BY_STEP, PLAIN, FAST = "step by step", "plain, inputs projected at once", "fast, derivative by hand"
COMPILED = f"compiled, {CHUNK} steps at a time"
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


@dataclass(frozen=True)
class Work:
    """What one update asks for, counted from its sizes; the sampling and the optimizer are left out."""

    products: int
    """Floating-point operations of the products with weight matrices, forward and backward."""
    memory: int
    """Floating-point operations of the products with the memory: similarities, reads and writes."""
    memory_bytes: int
    """What a step's memory makes a processor read and write at least: it, and in the derivative two of its size."""
    dependent_steps: int
    """Steps that must follow each other: each waits for what the last one read."""


def work(config: MANNConfig | FLMNConfig, batch: int, steps: int, bytes_of_number: int = 4) -> Work:
    """Count an update's work. A product of (a, b) with (b, c) matrices is 2abc operations.

    A derivative costs two products for each one, by the weights and by what they were multiplied with; the inputs need
    none, and nor does the state before the first step.
    """
    stored = config.reads * config.width
    if isinstance(config, FLMNConfig):
        lstm, vectors, memories = True, 3, 2
        with_memory = 3 * 4 * steps - 1  # one similarity, one read, two writes; the first label goes nowhere
    else:
        lstm, vectors, memories = config.controller == "lstm", 2 if config.keys == "separate" else 1, 1
        with_memory = 3 * 3 * steps * config.reads
    gates = config.hidden * (4 if lstm else 1)
    labels = make_labels(config.labels, config.classes)
    from_input = (config.features + labels.width) * gates
    from_state = (stored + (config.hidden if lstm else 0)) * gates
    to_vectors = config.hidden * stored * vectors
    to_gate = config.hidden * config.reads if config.gate == "dynamic" else 0
    to_logits = (config.hidden + stored) * labels.outputs
    per_step = 2 * from_input + 3 * (from_state + to_vectors + to_gate + to_logits)
    size = config.slots * config.width
    return Work(
        products=2 * batch * (steps * per_step - from_state),
        memory=2 * batch * with_memory * size,
        memory_bytes=batch * steps * (2 + 4) * memories * size * bytes_of_number,
        dependent_steps=2 * steps,
    )


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


def bench_method(
    method: str,
    device: torch.device,
    repetitions: int,
    compile: bool,
    config: omniglot.OmniglotConfig | None = None,
    batches: tuple[int, ...] = BATCHES,
    scales: dict[str, tuple[int, ...]] = SCALES,
) -> Bench:
    """The sampling of a minibatch and the whole training step of a method on random drawings, and how its cost grows.

    method: a key of `PAPER`; what is most like it is measured beside it. config: the paper's, unless given.
    """
    config = config or PAPER[method]
    drawings = random_drawings()
    bank = ImageBank(drawings, device)
    sampler = EpisodeSampler(bank, config.episodes, seed=0, stream="bench")

    def one_by_one() -> None:
        for i in range(batches[0] * config.episodes.length):
            turns = i % 4 if config.episodes.quarter_turns else 0
            _draw_with_pil(drawings[i % 100, i % 20], MAX_ANGLE * (i % 3 - 1), MAX_SHIFT * (i % 5 - 2) / 2, turns)

    sampling = {"image by image, with PIL": one_by_one, "as one batch": lambda: sampler.batch(0, batches[0])}
    title = f"a minibatch of {batches[0]} episodes, drawn and augmented"
    comparisons = [Comparison(title, "episodes", batches[0], measure(sampling, repetitions, device))]

    names = {"step": STEP_BY_STEP, "plain": PLAIN}
    if omniglot.build_learner(config, 0).to(device).fast_unroll():
        names["fast"] = FAST
    if compile:
        names["compiled"] = COMPILED

    def compare(what: str, learner: Any, size: int) -> None:
        draw = partial(sampler.batch, size=size)
        # The compiler takes a minute for each learner, many for an NTM: only the method itself is compiled.
        hows = [how for how in names if how != "compiled" or learner is config.learner]
        ways = {names[how]: updating(replace(config, learner=learner), how, draw, device) for how in hows}
        found = measure(ways, repetitions, device)
        counted = isinstance(learner, MANNConfig | FLMNConfig)
        flops = work(learner, size, config.episodes.length).products if counted else None
        comparisons.append(Comparison(f"an update of {what}, batch {size}", "episodes", size, found, flops))

    own = config.learner
    for size in batches:
        compare(NAMES[method], own, size)
    if method == "mann":
        ntm = NTMConfig(own.features, own.classes, own.hidden, own.slots, own.width, own.reads)
        compare("MANN with NTM access", ntm, batches[0])
    else:
        one_head = MANNConfig(
            features=own.features, classes=own.classes, hidden=own.hidden, slots=2 * own.slots, width=own.width, reads=1
        )
        compare("MANN with one head", one_head, batches[0])

    square = torch.ones(SQUARE, SQUARE, device=device)
    (product,) = measure({"product": lambda: square @ square}, max(repetitions, 10), device)
    best = "fast" if "fast" in names else "plain"
    return Bench(
        method=method,
        machine=ledger.describe_machine(device),
        commit=ledger.code_commit(),
        flops_per_second=2 * SQUARE**3 / product.median,
        comparisons=tuple(comparisons),
        scalings=tuple(
            _scaling(config, size, values, best, names[best], batches[0], repetitions, device)
            for size, values in scales.items()
        ),
    )


def random_drawings() -> np.ndarray:
    """100 classes of 20 drawings, uint8 (100, 20, 105, 105): what is in them does not matter for the time."""
    return (np.random.default_rng(0).random((100, 20, ORIGINAL_SIZE, ORIGINAL_SIZE)) < 0.1).astype(np.uint8)


def updating(
    config: omniglot.OmniglotConfig, how: str, draw: Callable[[int], Episodes], device: torch.device
) -> Callable[[], float]:
    """A new learner's training step, to be called again and again: a minibatch, forward, backward, optimizer.

    how: `step`, one step at a time, or a name that `pick_unroll` knows. draw: gives the minibatch of the n-th update.
    What is returned gives the loss.
    """
    learner = omniglot.build_learner(config, 0).to(device)
    optimizer = make_optimizer(learner, config.training)
    forward = learner.step_by_step if how == "step" else _with_unroll(learner, how, config.training.updates)
    done = 0

    def update() -> float:
        nonlocal done
        done += 1
        batch = draw(done)
        loss = F.cross_entropy(forward(batch.xs, batch.ys).flatten(0, 1), batch.ys.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), config.training.clip)
        optimizer.step()
        return loss.item()

    return update


def _with_unroll(learner: OnlineLearner, how: str, updates: int) -> Callable:
    _, unroll = pick_unroll(learner, how, updates)
    return lambda xs, ys: learner(xs, ys, unroll)


def _scaling(
    config: omniglot.OmniglotConfig,
    size: str,
    values: tuple[int, ...],
    how: str,
    name: str,
    batch: int,
    repetitions: int,
    device: torch.device,
) -> Scaling:
    """An update's time on random numbers, without the sampling, at each value of one size."""
    ways = {}
    for value in values:
        steps, learner = config.episodes.length, config.learner
        if size == "steps":
            steps = value
        elif size == "slots":
            learner = replace(learner, slots=value)
        else:
            learner = replace(learner, classes=value)
        random = torch.Generator().manual_seed(0)
        xs = torch.rand(batch, steps, learner.features, generator=random).to(device)
        ys = torch.randint(learner.classes, (batch, steps), generator=random).to(device)
        drawn = Episodes(xs, ys, ys[:, :1], ys)
        ways[str(value)] = updating(replace(config, learner=learner), how, lambda _, drawn=drawn: drawn, device)
    return Scaling(size, name, values, measure(ways, repetitions, device))


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


def _draw_with_pil(drawing: np.ndarray, angle: float, shift: float, turns: int) -> np.ndarray:
    """The slow way: rotate, shift, shrink and turn one image."""
    image = Image.fromarray(drawing * 255).convert("F").rotate(math.degrees(angle), resample=Image.Resampling.BILINEAR)
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, -shift, 0, 1, -shift), Image.Resampling.BILINEAR)
    return np.rot90(np.asarray(moved.resize((SIZE, SIZE), Image.Resampling.BOX)), turns)
