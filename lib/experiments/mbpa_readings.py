"""What hangs on the readings of Sprechmann et al. 2018 where it is silent on MbPA's local fit (not in the paper).

The last layer, the memory, K and T are table 1's, on the same splits and test pictures. One thing of the fit is read
another way; its rate is then chosen anew on split 0, from one wide range for all, since an α is worth something else
with another optimizer. Later seeds take the rates of the first seed's record.
"""

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from lib import ledger, report
from lib.config import to_dict
from lib.experiments import mbpa_incremental_tables as tables
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.mbpa_incremental import TUNED_SPLIT, prepared, save, split_of
from lib.experiments.mbpa_incremental_configs import CONFIGS, IncrementalConfig, in_profile
from lib.experiments.mbpa_split import Answer, Split, measure
from lib.experiments.mbpa_tables import PAPER
from lib.methods.mbpa import MbPAConfig

NAME = "mbpa.readings"
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)
READINGS: dict[str, dict[str, Any]] = {
    "as-read": {},
    "square-1": {"square": 1.0},
    "decay-0.99": {"decay": 0.99},
    "epsilon-1e-6": {"epsilon": 1e-6},
    "epsilon-1": {"epsilon": 1.0},
    "prior-0.1": {"prior": 0.1},
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd"},
}
LABELS = {
    "as-read": "as read: RMSprop, mean square from 0, decay 0.9, ε = 0.001, β = 0",
    "square-1": "mean square from 1, as in TensorFlow 1",
    "decay-0.99": "decay 0.99, as in PyTorch",
    "epsilon-1e-6": "ε = 0.000001",
    "epsilon-1": "ε = 1",
    "prior-0.1": "β = 0.1",
    "adam": "Adam",
    "sgd": "gradient descent",
}


@dataclass(frozen=True)
class ReadingsConfig:
    """What is read another way, of one data set's config."""

    of: IncrementalConfig
    """Of table 1."""
    readings: tuple[str, ...]
    """Keys of `READINGS`."""
    rates: tuple[float, ...] = RATES
    """α to choose from, for each reading."""


@dataclass(frozen=True)
class ReadAnswer(Answer):
    """MbPA's answer with another reading of its fit."""

    reading: str = "as-read"

    @property
    def fit(self) -> MbPAConfig:
        """The local fit, as this reading has it."""
        return replace(super().fit, **READINGS[self.reading])


def config_of(variant: str, profile: str) -> ReadingsConfig:
    """The config of a data set."""
    of = replace(in_profile(CONFIGS[variant], profile), epochs=tables.EPOCHS)
    if profile == "short":
        of = replace(of, tested_on=1_000)
    if profile == "smoke":
        return ReadingsConfig(of, ("as-read", "sgd"), RATES[1::5])
    return ReadingsConfig(of, tuple(READINGS))


def chosen_rates(split: Split, rate: float, mbpa: Answer, config: ReadingsConfig, progress: str) -> dict[str, list]:
    """For each reading, the validation accuracy of each α: the mean over table 1's epochs. rate: of the last layer."""
    tried = [
        ReadAnswer("mbpa", mbpa.neighbours, steps=mbpa.steps, rate=alpha, reading=reading)
        for reading in config.readings
        for alpha in config.rates
    ]
    found = measure(split, rate, tried, config.of.epochs, "validation", config.of.tuned_on, progress=progress)
    results: dict[str, list] = {reading: [] for reading in config.readings}
    for answer, accuracy in zip(tried, found, strict=True):
        mean = sum(accuracy["all"]) / len(accuracy["all"])
        results[answer.reading].append({"rate": answer.rate, "validation_accuracy": mean})
    return results


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Choose each reading's rate on split 0, by the first seed, and test all on the seed's split."""
    config, started = config_of(variant, profile), time.monotonic()
    ready = prepared(NAME, variant, variant, profile, seed, config.of, options)
    if ready is None:
        return None
    split, best = ready
    mbpa = next(answer for answer in best.answers if answer.model == "mbpa")
    first = ledger.find_record(NAME, variant, profile, 0)
    as_now = json.loads(json.dumps(to_dict(config)))
    if first is not None and (first.config, first.data) == (as_now, split.pictures.data):
        tried = first.metrics["tuning"]
    else:
        tuned = split_of(variant, profile, config.of, TUNED_SPLIT, options)
        if tuned is None:
            return None
        tried = chosen_rates(tuned, best.rate, mbpa, config, "choosing rates" if options.progress else "")
    rates = {name: max(each, key=lambda one: one["validation_accuracy"])["rate"] for name, each in tried.items()}
    answers = [
        ReadAnswer("mbpa", mbpa.neighbours, steps=mbpa.steps, rate=rates[reading], reading=reading)
        for reading in config.readings
    ]
    progress = "testing" if options.progress else ""
    found = measure(split, best.rate, answers, config.of.epochs, "test", config.of.tested_on, progress=progress)
    metrics = {
        "epochs": list(config.of.epochs),
        "accuracy": {answer.reading: each for answer, each in zip(answers, found, strict=True)},
        "setting": {"rate": best.rate, "neighbours": mbpa.neighbours, "steps": mbpa.steps, "rates": rates},
        "tuning": tried,
    }
    return save(NAME, variant, profile, seed, split, metrics, started, config)


def table() -> report.Table:
    """Each reading's accuracy on new and old classes, and how far it is from the one that the book takes."""
    rows = []
    for variant in VARIANTS:
        records, name = tables.shown_records(NAME, variant), tables.DATA_SETS[variant]
        if not records:
            rows.append(report.Row("all readings", name, (), report.NOT_RUN))
            continue
        metrics = records[0].metrics
        for reading in metrics["accuracy"]:
            cells = tuple(_cell(records, reading, group, epoch) for group in tables.GROUPS for epoch in tables.EPOCHS)
            rate, tried = metrics["setting"]["rates"][reading], [each["rate"] for each in metrics["tuning"][reading]]
            end = ", at an end of what was tried" if rate in (min(tried), max(tried)) else ""
            note = f"{records[0].profile} profile, {tables.note_on(records)}, α = {rate:g}{end}"
            rows.append(report.Row(LABELS[reading], name, cells, note))
    caption = (
        "What hangs on readings of MbPA's local fit (not in the paper): accuracy in percent, with table 1's last "
        "layer, memory, K and T, and by how many points each other reading is above it or below, on the same splits; "
        f"each reading's α was chosen for it on split 0. {tables.TIMES}"
    )
    return report.Table(caption, tables.COLUMNS, tuple(rows), ("reading", "data"))


def _cell(records: list[ledger.Record], reading: str, group: str, epoch: float) -> str:
    found = [tables.top1(record, reading, group, epoch) for record in records]
    if reading == "as-read":
        return report.percent(found)
    first = [tables.top1(record, "as-read", group, epoch) for record in records]
    mean, half = ledger.mean_and_interval([100 * (b - a) for a, b in zip(first, found, strict=True)])
    return f"{mean:+.1f}" + ("" if half is None else f" ± {half:.1f}")


VARIANTS = ("tiny-imagenet", "omniglot")
EXPERIMENTS = (
    Experiment(
        name=NAME,
        paper=PAPER,
        title="What hangs on the readings of the local fit",
        variants=VARIANTS,
        run=run,
        config=lambda variant, profile: to_dict(config_of(variant, profile)),
        table=table,
        costs={
            "smoke": "10 s",
            "short": "10 min for Tiny ImageNet, 20 for Omniglot, once table 1 has run",
            "paper": "an hour on a GPU",
        },
        wanted=tuple((variant, seed) for variant in VARIANTS for seed in range(3)),
    ),
)
