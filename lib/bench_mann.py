"""Benchmark of MANN and FLMN: the sampling of a minibatch and the whole training step, and what bounds it."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from lib.baselines.ntm import NTMConfig
from lib.bench import Bench, Comparison, Scaling, finished, measure
from lib.experiments import flmn as flmn_experiments
from lib.experiments import mann as mann_experiments
from lib.experiments import omniglot
from lib.methods.flmn import FLMNConfig
from lib.methods.mann import MANNConfig
from lib.methods.online import CHUNK, OnlineLearner
from lib.tasks.episodes import Episodes, EpisodeSampler
from lib.tasks.images import MAX_ANGLE, MAX_SHIFT, ORIGINAL_SIZE, SIZE, ImageBank
from lib.tasks.labels import make_labels
from lib.training.loop import make_optimizer, pick_unroll

PAPER = {"mann": mann_experiments.TABLE1["mann"], "flmn": flmn_experiments.TABLE1["flmn-2"]}
NAMES = {"mann": "MANN", "flmn": "FLMN"}
BATCHES = (16, 64)
SCALES = {"steps": (25, 50, 100, 200), "slots": (32, 64, 128, 256, 512), "classes": (5, 25, 50, 100)}
STEP_BY_STEP, PLAIN, FAST = "step by step", "plain, inputs projected at once", "fast, derivative by hand"
COMPILED = f"compiled, {CHUNK} steps at a time"


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

    best = "fast" if "fast" in names else "plain"
    scalings = [
        _scaling(config, size, values, best, names[best], batches[0], repetitions, device)
        for size, values in scales.items()
    ]
    return finished(method, comparisons, scalings, repetitions, device)


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


def _draw_with_pil(drawing: np.ndarray, angle: float, shift: float, turns: int) -> np.ndarray:
    """The slow way: rotate, shift, shrink and turn one image."""
    image = Image.fromarray(drawing * 255).convert("F").rotate(math.degrees(angle), resample=Image.Resampling.BILINEAR)
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, -shift, 0, 1, -shift), Image.Resampling.BILINEAR)
    return np.rot90(np.asarray(moved.resize((SIZE, SIZE), Image.Resampling.BOX)), turns)
