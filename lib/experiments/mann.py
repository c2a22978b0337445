"""Santoro et al. 2016, Omniglot classification: every table and figure as an experiment.

| here | paper |
| --- | --- |
| `mann.table1` | table 1: test accuracy by instance, five classes, one-hot labels |
| `mann.table2` | table 2: the same with labels of five letters, five and fifteen classes |
| `mann.figure2` | figure 2: training accuracy of runs of the two tables |
| `mann.figure3` | figure 3: the memory is not wiped between episodes |
| `mann.figure4` | figure 4: one more class every 10 000 updates |
| `mann.readings` | not in the paper: what the other readings of its text give |
| `mann.ablations` | not in the paper: what single parts of MANN are worth |

Figures 5 and 6, regression, are in `mann_regression.py`; the tables that are shown, in `mann_tables.py`.
"""

from dataclasses import replace

from lib.baselines.autoencoder import AutoencoderConfig
from lib.baselines.feedforward import FeedForwardConfig
from lib.baselines.lstm import LSTMConfig
from lib.baselines.ntm import NTMConfig
from lib.config import to_dict
from lib.experiments import mann_neighbours
from lib.experiments import mann_tables as tables
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.mann_neighbours import NeighbourConfig
from lib.experiments.omniglot import OmniglotConfig, in_profile, omniglot_experiment
from lib.ledger import Record
from lib.methods.mann import MANNConfig
from lib.tasks.curriculum import CurriculumConfig
from lib.tasks.episodes import EpisodeConfig
from lib.training import TrainingConfig

PAPER = "Santoro et al. 2016"
COSTS = {"smoke": "seconds", "short": "minutes", "paper": "hours on a CPU core"}
FIFTEEN = EpisodeConfig(classes=15, length=100, strings=True)

TABLE1 = {
    "feedforward": OmniglotConfig(FeedForwardConfig()),
    "lstm": OmniglotConfig(LSTMConfig()),
    "mann": OmniglotConfig(MANNConfig()),
}
STRING_LEARNERS = {
    "feedforward": FeedForwardConfig(labels="strings"),
    "lstm": LSTMConfig(labels="strings"),
    "mann-feedforward": MANNConfig(labels="strings", controller="feedforward"),
    "mann": MANNConfig(labels="strings"),
}
TABLE2 = {
    **{f"{name}-5": OmniglotConfig(each, EpisodeConfig(strings=True)) for name, each in STRING_LEARNERS.items()},
    **{f"{name}-15": OmniglotConfig(each, FIFTEEN) for name, each in STRING_LEARNERS.items()},
    "ntm-15": OmniglotConfig(NTMConfig(labels="strings"), FIFTEEN),
}
NOT_WIPED = TrainingConfig(wipe_memory=False)
TEN = EpisodeConfig(classes=10, length=75)
FIGURE3 = {
    "five": OmniglotConfig(MANNConfig(), training=NOT_WIPED),
    "ten": OmniglotConfig(MANNConfig(classes=10), TEN, NOT_WIPED),
    "ten-wiped": OmniglotConfig(MANNConfig(classes=10), TEN),  # not in the paper: what «comparable» compares with
}
FIGURE4 = {"mann": OmniglotConfig(MANNConfig(labels="strings"), FIFTEEN, curriculum=CurriculumConfig())}
READINGS = {
    "shared-keys": OmniglotConfig(MANNConfig(keys="shared")),
    "own-slots": OmniglotConfig(MANNConfig(write_to="own")),
    "shared-keys-own-slots": OmniglotConfig(MANNConfig(keys="shared", write_to="own")),
    "constant-gate": OmniglotConfig(MANNConfig(gate="constant")),
}
ABLATIONS = {
    "ntm": OmniglotConfig(NTMConfig()),
    "fixed-gate": OmniglotConfig(MANNConfig(gate="fixed")),
    "one-read": OmniglotConfig(MANNConfig(reads=1)),
}


NEIGHBOURS = {
    f"knn-{name}-{episodes.classes}": NeighbourConfig(autoencoder, episodes)
    for episodes in (EpisodeConfig(strings=True), FIFTEEN)
    for name, autoencoder in (("raw", None), ("deep", AutoencoderConfig()))
}


def table2() -> Experiment:
    """The rows that learn from episodes, and those of the nearest neighbours."""
    learners = omniglot_experiment(
        "mann.table2",
        PAPER,
        "Omniglot, labels of five letters, five and fifteen classes an episode: test accuracy by instance",
        TABLE2,
        tables.table2,
        COSTS,
        wanted=tuple((variant, 0) for variant in (*TABLE2, *NEIGHBOURS)),
    )

    def run(variant: str, profile: str, seed: int, options: RunOptions) -> Record | None:
        if variant in NEIGHBOURS:
            return mann_neighbours.run("mann.table2", NEIGHBOURS[variant], variant, profile, seed, options)
        return learners.run(variant, profile, seed, options)

    def config(variant: str, profile: str) -> dict:
        if variant in NEIGHBOURS:
            return to_dict(mann_neighbours.in_profile(NEIGHBOURS[variant], profile))
        return learners.config(variant, profile)

    def verify(record: Record, device: str) -> tuple[bool | None, str]:
        if record.variant in NEIGHBOURS:
            return mann_neighbours.verify(NEIGHBOURS[record.variant], record, device)
        return learners.verify(record, device)

    def run_together(variant: str, profile: str, seeds: list[int], options: RunOptions) -> list[Record]:
        if variant in NEIGHBOURS:
            return [run(variant, profile, seed, options) for seed in seeds]
        return learners.run_together(variant, profile, seeds, options)

    parts = {"run": run, "run_together": run_together, "config": config, "verify": verify}
    return replace(learners, variants=(*NEIGHBOURS, *TABLE2), **parts)


def figure2() -> Experiment:
    """Four curves of runs that the tables have."""
    curves = {
        "lstm": ("mann.table1", "lstm"),
        "mann": ("mann.table1", "mann"),
        "lstm-15": ("mann.table2", "lstm-15"),
        "mann-15": ("mann.table2", "mann-15"),
    }
    configs = {"mann.table1": TABLE1, "mann.table2": TABLE2}

    def config(variant: str, profile: str) -> dict:
        experiment, drawn = curves[variant]
        return to_dict(in_profile(configs[experiment][drawn], profile))

    return Experiment(
        name="mann.figure2",
        paper=PAPER,
        title="Omniglot: accuracy by instance during training (a, c: LSTM; b, d: MANN; five classes, then fifteen)",
        variants=tuple(curves),
        run=None,
        config=config,
        table=tables.figure2,
        costs=COSTS,
        drawn_from=curves,
    )


EXPERIMENTS = (
    omniglot_experiment(
        "mann.table1",
        PAPER,
        "Omniglot, five classes an episode, one-hot labels: test accuracy by instance",
        TABLE1,
        tables.table1,
        COSTS,
        wanted=(("mann", 0), ("lstm", 0), ("feedforward", 0), ("mann", 1), ("lstm", 1), ("feedforward", 1)),
    ),
    table2(),
    figure2(),
    omniglot_experiment(
        "mann.figure3",
        PAPER,
        "Omniglot, the memory not wiped between episodes: accuracy by instance during training",
        FIGURE3,
        tables.figure3,
        COSTS,
        wanted=tuple((variant, 0) for variant in FIGURE3),
    ),
    omniglot_experiment(
        "mann.figure4",
        PAPER,
        "Omniglot, more and more classes an episode during training; tested with up to 100",
        FIGURE4,
        tables.figure4,
        COSTS,
        wanted=tuple((variant, 0) for variant in FIGURE4),
    ),
    omniglot_experiment(
        "mann.readings",
        PAPER,
        "Omniglot as in table 1: MANN with other readings of the paper's text",
        READINGS,
        tables.readings,
        COSTS,
        wanted=tuple((variant, 0) for variant in READINGS),
    ),
    omniglot_experiment(
        "mann.ablations",
        PAPER,
        "Omniglot as in table 1: MANN without one of its parts (not in the paper)",
        ABLATIONS,
        tables.ablations,
        COSTS,
        wanted=tuple((variant, 0) for variant in ABLATIONS),
    ),
)
