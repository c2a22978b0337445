"""Benchmark of training on a GPU: step by step, compiled, as a CUDA graph, several seeds at once."""

from dataclasses import replace

import torch

from lib.bench import Measurement
from lib.bench_mann import NAMES as METHODS
from lib.bench_mann import PAPER, random_drawings
from lib.experiments import omniglot
from lib.tasks.classification import ClassificationTask
from lib.tasks.episodes import EpisodeSampler
from lib.tasks.images import ImageBank
from lib.training import train
from lib.training.stacked import train_together

UPDATES = 50  # in one repetition
PAPER_UPDATES = 100_000
NAMES = {"plain": "step by step", "compiled": "compiled", "graph": "graph", "compiled-graph": "graph of compiled steps"}


def bench_method_on_gpu(method: str, device: torch.device, repetitions: int, compile: bool) -> str:
    """All ways of training a method on a GPU, at the paper's sizes, on random drawings."""
    config = PAPER[method]
    sampler = EpisodeSampler(ImageBank(random_drawings(), device), config.episodes, seed=0, stream="bench")
    return bench_on_gpu(config, sampler, repetitions, ways_on_gpu(compile), name=METHODS[method])


def bench_on_gpu(
    config: omniglot.OmniglotConfig,
    sampler: EpisodeSampler,
    repetitions: int,
    ways: dict[str, tuple[int, ...]],
    updates: int = UPDATES,
    name: str = "MANN",
) -> str:
    """A table: updates of a method with random numbers, episodes, score and all, each way on the sampler's device.

    ways: how the steps are done (see `lib.training.loop.pick_unroll`) to the numbers of seeds trained at once.
    """
    training = replace(
        config.training,
        updates=(repetitions + 1) * updates,
        log_every=updates,
        validate_every=(repetitions + 1) * updates,
        validation_batches=1,
        checkpoint_every=(repetitions + 1) * updates,
    )
    size = training.batch_size
    lines = [f"updates of {name} on {sampler.bank.device}, batch {size}, median of {repetitions} times {updates}"]
    base = None
    for how, numbers_of_seeds in ways.items():
        for seeds in numbers_of_seeds:
            found = _measure(replace(config, training=training), sampler, how, seeds)
            seconds = found.median / updates
            base = base or seconds
            lines.append(
                f"  {found.name:<34} {seeds * size / seconds:9.1f} episodes/s   ratio {seeds * base / seconds:6.2f}   "
                f"{1000 * seconds:7.2f} ms an update   {seconds * PAPER_UPDATES / 60:7.1f} minutes for "
                f"{PAPER_UPDATES} updates   first {updates}: {found.first:.1f} s"
            )
    return "\n".join(lines)


def ways_on_gpu(compile: bool) -> dict[str, tuple[int, ...]]:
    """What is compared where there is CUDA."""
    compiled = {"compiled": (1,), "compiled-graph": (1, 8)} if compile else {}
    return {"plain": (1,), "graph": (1, 8), **compiled}


def _measure(config: omniglot.OmniglotConfig, sampler: EpisodeSampler, how: str, seeds: int) -> Measurement:
    samplers = [EpisodeSampler(sampler.bank, sampler.config, seed=seed, stream="bench") for seed in range(seeds)]
    learners = [omniglot.build_learner(config, seed).to(sampler.bank.device) for seed in range(seeds)]
    tasks = [ClassificationTask(own, sampler, sampler, learners[0].labels) for own in samplers]
    torch.compiler.reset()  # compiled code of another way would make the first call look short
    if seeds == 1:
        log = train(learners[0], tasks[0], config.training, unroll=how, progress=False).log
    else:
        log = train_together(learners, tasks, config.training, unroll=how, progress=False)[0].log
    ends = [line["seconds"] for line in log]  # after waiting for the device
    name = NAMES[how] + (f", {seeds} seeds at once" if seeds > 1 else "")
    differences = tuple(end - start for start, end in zip(ends, ends[1:], strict=False))
    return Measurement(name, differences, ends[0])
