"""Configs of Shankar & Sarawagi 2018, table 2, and of the readings of LMN: methods, settings to try, profiles."""

from dataclasses import dataclass, replace
from typing import Any

from lib.baselines.dntm import DNTMConfig
from lib.baselines.maml import MAMLConfig
from lib.baselines.rei import ReiConfig
from lib.baselines.sequence import TokenNetworkConfig, larger_lstm
from lib.config import added, to_dict
from lib.data.sequences import NAMES
from lib.experiments import lmn_sequence_tables as tables
from lib.methods.lmn import LMNConfig
from lib.training import TrainingConfig

TRIALS = 6  # settings that each method may try on the validation sequences
BASE = TrainingConfig(
    updates=1_000,
    learning_rate=3e-3,
    clip=1.0,
    log_every=20,
    validate_every=20,
    checkpoint_every=20,
    optimizer="adam",  # «in all experiments we used the Adam optimizer»
)


@dataclass(frozen=True)
class SequencesConfig:
    """One run: a method on a data set, the settings that it tries, and its training."""

    data: str
    learner: Any
    """A config; its `labels` are those of the data, once that is at hand."""
    settings: tuple[dict[str, Any], ...]
    """What is tried: changes of the learner, and `learning_rate`."""
    training: TrainingConfig = BASE
    trial_updates: int = 200
    """Of each setting that is tried."""
    steps: int = 150
    """Longest window of a sequence in training; tests take whole sequences."""
    test_steps: int | None = None
    """Longest part of a sequence in tests and validations, None for all of it."""
    network: "SequencesConfig | None" = None
    """How the network that LMN adapts is trained."""
    test_states: str | None = added(None)
    """`states` of an LMN in tests and checkpoints, None for those of its training."""

    def __post_init__(self):
        if len(self.settings) != TRIALS:
            raise ValueError(f"every method tries {TRIALS} settings, not {len(self.settings)}")


def product(**choices: tuple) -> tuple[dict[str, Any], ...]:
    """All combinations of choices, as settings."""
    found: list[dict[str, Any]] = [{}]
    for name, values in choices.items():
        found = [setting | {name: value} for setting in found for value in values]
    return tuple(found)


def method_configs(data: str) -> dict[str, SequencesConfig]:
    """The rows of a data set at the paper profile."""
    network = TokenNetworkConfig(labels=1)
    regularised = product(dropout=(0.2, 0.5, 0.8), learning_rate=(1e-3, 3e-3))
    retuned = product(rate=(0.1, 0.3, 1.0), learning_rate=(1e-3, 3e-3))
    # A vector takes larger steps than all weights: 0.1 to 1 was tried first, and 1 chosen on all data sets.
    one_retuned = product(rate=(3.0, 10.0, 30.0), learning_rate=(1e-3, 3e-3))
    adapted = SequencesConfig(data, network, regularised)
    return {
        "network": adapted,
        "lstm": SequencesConfig(data, larger_lstm(1, network), regularised),
        "rei": SequencesConfig(data, ReiConfig(labels=1), one_retuned),
        "maml": SequencesConfig(data, MAMLConfig(labels=1), retuned),
        "maml-2": SequencesConfig(data, MAMLConfig(labels=1, order=2), retuned),
        "dntm": SequencesConfig(data, DNTMConfig(labels=1), product(cells=(32, 64, 128), learning_rate=(1e-3, 3e-3))),
        "lmn-fixed": SequencesConfig(
            # Margins of 1 and 4 were tried with 0.5, 0.7 and 0.9 first: 4 was as good or better, and ends were chosen.
            data,
            LMNConfig(theta=0.5, margin=4.0),
            product(theta=(0.1, 0.3, 0.5, 0.7, 0.9, 0.97)),
            network=adapted,
        ),
        "lmn": SequencesConfig(
            data, LMNConfig(), product(margin=(1.0, 4.0), learning_rate=(3e-3, 1e-2, 3e-2)), network=adapted
        ),
    }


def reading_configs(data: str = "fsq-nyc") -> dict[str, SequencesConfig]:
    """Other readings of the paper than the ones taken, each with as many settings to try, on one data set."""
    fixed, combined = (method_configs(data)[method] for method in ("lmn-fixed", "lmn"))
    settings = product(theta=(0.5, 0.7, 0.9), margin=(1.0, 4.0))
    fixed = replace(fixed, learner=LMNConfig(theta=0.5), settings=settings)

    def fixed_with(**changes: Any) -> SequencesConfig:
        return replace(fixed, learner=replace(fixed.learner, **changes))

    return {
        "one-cell": fixed,
        "three-cells": fixed_with(cells=3),
        "three-cells-kernel": fixed_with(cells=3, update_weights="kernel"),
        "three-cells-zeros": fixed_with(cells=3, new_cells="zeros"),
        "always-write": replace(fixed, settings=product(margin=(tables.ALWAYS,), theta=(0.4, 0.5, 0.6, 0.7, 0.8, 0.9))),
        "no-strength": fixed_with(strength=0.0),
        "combiner": combined,
        "combiner-all-states": replace(combined, test_states="all"),
    }


METHODS = tuple(method_configs(NAMES[0]))
TABLE2 = {f"{data}-{method}": config for data in NAMES for method, config in method_configs(data).items()}
READINGS = reading_configs()
CONFIGS = {tables.NAME: TABLE2, tables.READINGS: READINGS}
TRAINED_AS = {"combiner": "lmn", "combiner-all-states": "lmn"}  # readings that need no training beside table 2's


def in_profile(paper: SequencesConfig, profile: str) -> SequencesConfig:
    """A config of the paper profile, cut down to another."""
    network = paper.network and in_profile(paper.network, profile)
    if profile == "paper":
        return paper
    if profile == "short":
        training = replace(paper.training, updates=120)
        return replace(paper, training=training, trial_updates=40, network=network)
    training = replace(paper.training, updates=4, batch_size=4, log_every=2, validate_every=2, checkpoint_every=2)
    return replace(paper, training=training, trial_updates=2, steps=20, test_steps=20, network=network)


def with_labels(config: SequencesConfig, labels: int) -> SequencesConfig:
    """The config once the data is at hand."""
    network = config.network and with_labels(config.network, labels)
    learner = config.learner if isinstance(config.learner, LMNConfig) else replace(config.learner, labels=labels)
    return replace(config, learner=learner, network=network)


def described(config: SequencesConfig) -> dict[str, Any]:
    """The config as a record keeps it: without the number of labels, which is the data's."""
    content = to_dict(config)
    content["learner"].pop("labels", None)
    if config.network:
        content["network"] = described(config.network)
    return content


def tested(config: SequencesConfig) -> SequencesConfig:
    """The config of what is tested and kept, once training is over."""
    if config.test_states is None:
        return config
    return replace(config, learner=replace(config.learner, states=config.test_states))


def chosen(config: SequencesConfig, setting: dict[str, Any]) -> SequencesConfig:
    """The config with one of its settings."""
    rest = {name: value for name, value in setting.items() if name != "learning_rate"}
    rate = setting.get("learning_rate", config.training.learning_rate)
    return replace(
        config, learner=replace(config.learner, **rest), training=replace(config.training, learning_rate=rate)
    )
