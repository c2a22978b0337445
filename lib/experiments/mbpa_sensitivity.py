"""Sprechmann et al. 2018, figures 6 and 7: how much MbPA depends on its memory, on the last layer's rate and on K.

One thing is changed at a time; all else is as it was chosen for table 1, on the same splits. Nothing is tuned here.
"""

import time
from dataclasses import dataclass, replace
from typing import Any

from lib import ledger
from lib.config import to_dict
from lib.experiments import mbpa_incremental_tables as tables
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.mbpa_incremental import Chosen, prepared, save
from lib.experiments.mbpa_incremental_configs import CONFIGS, RATES, IncrementalConfig, in_profile
from lib.experiments.mbpa_split import Split, measure
from lib.experiments.mbpa_tables import PAPER

MEMORIES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100, 200)


@dataclass(frozen=True)
class SensitivityConfig:
    """What is changed, of one data set's config."""

    of: IncrementalConfig
    """Of table 1."""
    changed: str
    """`memory`: its room, as a share of the pictures shown (figure 6, left); `rate`: the last layer's (right);
    `neighbours`: K (figure 7)."""
    values: tuple[float, ...]
    """What it is changed to."""


VALUES = {"memory": MEMORIES, "rate": RATES, "neighbours": NEIGHBOURS}
DATA_SETS = ("tiny-imagenet", "omniglot")


def config_of(variant: str, profile: str) -> SensitivityConfig:
    """The config of a variant such as `tiny-imagenet-memory`."""
    name, changed = variant.rsplit("-", 1)
    of, values = replace(in_profile(CONFIGS[name], profile), epochs=tables.EPOCHS), VALUES[changed]
    if profile == "short":
        of = replace(of, tested_on=1_000)
    return SensitivityConfig(of, changed, values if profile != "smoke" else values[::5])


def accuracies(config: SensitivityConfig, split: Split, best: Chosen, progress: str) -> list[dict[str, Any]]:
    """Of each value, the accuracy of the models that it touches, at the config's epochs and by group of classes."""
    mbpa = next(answer for answer in best.answers if answer.model == "mbpa")
    how: dict[str, Any] = {"part": "test", "count": config.of.tested_on, "progress": progress}
    if config.changed == "neighbours":
        answers = [replace(mbpa, neighbours=int(value)) for value in config.values]
        found = measure(split, best.rate, answers, config.of.epochs, **how)
        return [{"mbpa": each} for each in found]
    if config.changed == "memory":
        by_size = [measure(split, best.rate, [mbpa], config.of.epochs, memory=value, **how) for value in config.values]
        return [{"mbpa": each} for (each,) in by_size]
    answers = [answer for answer in best.answers if answer.model != "non-parametric"]  # it has no last layer
    by_rate = [measure(split, value, answers, config.of.epochs, **how) for value in config.values]
    return [{answer.model: each for answer, each in zip(answers, found, strict=True)} for found in by_rate]


def run_of(experiment: str):
    """What `Experiment.run` is of an experiment."""

    def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
        config, started = config_of(variant, profile), time.monotonic()
        name = variant.rsplit("-", 1)[0]
        ready = prepared(experiment, variant, name, profile, seed, config.of, options)
        if ready is None:
            return None
        split, best = ready
        found = accuracies(config, split, best, variant if options.progress else "")
        metrics = {
            "epochs": list(config.of.epochs),
            "changed": config.changed,
            "values": list(config.values),
            "by_value": found,
            "shown": len(split.shown()),
            "setting": {"rate": best.rate, **{answer.model: to_dict(answer) for answer in best.answers}},
        }
        return save(experiment, variant, profile, seed, split, metrics, started, config)

    return run


def _experiment(name: str, title: str, changed: tuple[str, ...], table: Any) -> Experiment:
    variants = tuple(f"{data}-{each}" for data in DATA_SETS for each in changed)
    return Experiment(
        name=name,
        paper=PAPER,
        title=title,
        variants=variants,
        run=run_of(name),
        config=lambda variant, profile: to_dict(config_of(variant, profile)),
        table=table,
        costs={"smoke": "10 s", "short": "5 min, once table 1 has run", "paper": "an hour on a GPU"},
        wanted=tuple((variant, seed) for seed in range(4) for variant in variants),
    )


EXPERIMENTS = (
    _experiment(
        tables.FIGURE6,
        "The size of the memory, and the rate of the last layer",
        ("memory", "rate"),
        tables.figure6,
    ),
    _experiment(tables.FIGURE7, "How many neighbours MbPA is fitted to", ("neighbours",), tables.figure7),
)
