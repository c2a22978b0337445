"""Mureja et al. 2017: every table and figure as an experiment.

| here | paper |
| --- | --- |
| `flmn.table1` | table 1: Omniglot without augmentation (I) and with it (II), test accuracy by instance |
| `flmn.figure3`, `flmn.figure4` | training accuracy of the runs of table 1, experiments I and II |
| `flmn.figure5` | the loss of the same runs |
| `flmn.table2` | table 2: the networks of table 1, tested on digits |
| `flmn.readings` | table 1 with «100,000 episodes» to the letter: one in an update, in place of a minibatch of 16 |
| `flmn.ablations` | not in the paper: what its MANN lacks, and what FLMN's new parts are worth |
| `flmn.fair` | not in the paper: FLMN and a MANN with equal memory, parameters and tuning |

Reading notes. Five classes and «10 samples per each class»: balanced episodes, unlike Santoro's. 1209 classes are
trained on, by number, of which the last 50 are held out to validate on. The paper gives no optimizer, no sizes of
controller and memory, and no decay of usage: those of Santoro et al. 2016 serve both networks. It names a minibatch of
16 as Santoro's, among the things in which its own settings differ, and does not give its own: `flmn.table1` takes 16,
`flmn.readings` one, which keeps the pace of figure 3. Its MANN has one head; which reading of Santoro's text it
follows is not said: ours is that of `mann.table1`.
"""

from dataclasses import replace

from lib.config import to_dict
from lib.experiments import flmn_tables as tables
from lib.experiments.base import Experiment
from lib.experiments.mini_mnist import MiniMNISTConfig
from lib.experiments.omniglot import OmniglotConfig, in_profile, omniglot_experiment
from lib.methods.flmn import FLMNConfig
from lib.methods.mann import MANNConfig
from lib.tasks.episodes import EpisodeConfig

PAPER = "Mureja et al. 2017"
COSTS = {"smoke": "seconds", "short": "minutes", "paper": "an hour or two on a CPU core"}
NOT_AUGMENTED = EpisodeConfig(balanced=True, quarter_turns=False, jitter=False)
AUGMENTED = EpisodeConfig(balanced=True, quarter_turns=False)


def setting(learner: FLMNConfig | MANNConfig, episodes: EpisodeConfig = NOT_AUGMENTED) -> OmniglotConfig:
    """A run of the paper's setting."""
    return OmniglotConfig(learner, episodes, training_classes=1209, short_updates=10_000, mini_mnist=MiniMNISTConfig())


def with_adam(config: OmniglotConfig) -> OmniglotConfig:
    """Adam at its usual rate in place of RMSprop."""
    return replace(config, training=replace(config.training, optimizer="adam", learning_rate=1e-3))


def with_single_episodes(config: OmniglotConfig) -> OmniglotConfig:
    """An update on one episode in place of sixteen, and so as many episodes as updates."""
    return replace(config, training=replace(config.training, batch_size=1))


def with_glorot(config: OmniglotConfig) -> OmniglotConfig:
    """Glorot's initial weights in place of PyTorch's."""
    return replace(config, initial_weights="glorot")


ONE_HEAD = MANNConfig(reads=1)
TABLE1 = {
    "mann-1": setting(ONE_HEAD),
    "flmn-1": setting(FLMNConfig()),
    "mann-2": setting(ONE_HEAD, AUGMENTED),
    "flmn-2": setting(FLMNConfig(), AUGMENTED),
}
READINGS = {variant: with_single_episodes(config) for variant, config in TABLE1.items()}
ABLATIONS = {
    "flmn-shuffled-split": replace(TABLE1["flmn-1"], split="shuffled"),
    "mann-four-heads": setting(MANNConfig()),
    "mann-half-memory": setting(replace(ONE_HEAD, slots=64)),
    "mann-quarter-turns": setting(ONE_HEAD, EpisodeConfig(balanced=True)),
    "mann-adam": with_adam(TABLE1["mann-1"]),
    "mann-glorot": with_glorot(TABLE1["mann-1"]),
    "mann-shared-key": setting(replace(ONE_HEAD, keys="shared")),
    "mann-constant-gate": setting(replace(ONE_HEAD, gate="constant")),
    "flmn-dynamic-gate": setting(FLMNConfig(gate="dynamic")),
    "flmn-same-step": setting(FLMNConfig(label_write="same-step")),
    "flmn-answer-from-memory": setting(FLMNConfig(answer_from="memory")),
}
FAIR_MANN = setting(MANNConfig(hidden=166))  # four heads, as much memory and as many parameters as FLMN: see the tests
CHOSEN = ("flmn-adam", "mann-adam")  # by the validation of the short profile: the first to be run at the paper's
FAIR = {
    "mann": FAIR_MANN,
    "mann-adam": with_adam(FAIR_MANN),
    "mann-glorot": with_glorot(FAIR_MANN),
    "flmn-adam": with_adam(TABLE1["flmn-1"]),
    "flmn-glorot": with_glorot(TABLE1["flmn-1"]),
}


def drawn(name: str, title: str, variants: tuple[str, ...], table) -> Experiment:
    """A table or figure of the runs of table 1."""

    def config(variant: str, profile: str) -> dict:
        return to_dict(in_profile(TABLE1[variant], profile))

    return Experiment(
        name=name,
        paper=PAPER,
        title=title,
        variants=variants,
        run=None,
        config=config,
        table=table,
        costs=COSTS,
        drawn_from={variant: ("flmn.table1", variant) for variant in variants},
    )


FIRST, SECOND = ("mann-1", "flmn-1"), ("mann-2", "flmn-2")
SEEDS = (0, 1, 2)

EXPERIMENTS = (
    omniglot_experiment(
        "flmn.table1",
        PAPER,
        "Omniglot, five classes an episode, without augmentation (I) and with it (II): test accuracy by instance",
        TABLE1,
        tables.table1,
        COSTS,
        wanted=tuple((variant, 0) for variant in ("flmn-1", "mann-1", "flmn-2", "mann-2")),
    ),
    drawn("flmn.table2", "Trained on Omniglot, tested on miniMNIST", (*FIRST, *SECOND), tables.table2),
    drawn("flmn.figure3", "Experiment I: training accuracy of MANN and FLMN", FIRST, tables.figure3),
    drawn("flmn.figure4", "Experiment II: training accuracy of MANN and FLMN", SECOND, tables.figure4),
    drawn("flmn.figure5", "The training loss of MANN and FLMN", (*FIRST, *SECOND), tables.figure5),
    omniglot_experiment(
        "flmn.readings",
        PAPER,
        "Table 1 again, with an update on one episode in place of sixteen",
        READINGS,
        tables.readings,
        COSTS | {"paper": "half an hour on a CPU core"},
        wanted=tuple((variant, seed) for seed in SEEDS for variant in ("flmn-1", "mann-1", "flmn-2", "mann-2")),
    ),
    omniglot_experiment(
        "flmn.fair",
        PAPER,
        "Experiment I: FLMN and MANN with equal memory, equal parameters, equal tuning (not in the paper)",
        FAIR,
        tables.fair,
        COSTS,
        wanted=tuple((variant, seed) for seed in SEEDS for variant in CHOSEN),
    ),
    omniglot_experiment(
        "flmn.ablations",
        PAPER,
        "Experiment I: how much of FLMN's advantage is the paper's choice of MANN (not in the paper)",
        ABLATIONS,
        tables.ablations,
        COSTS,
        wanted=tuple((variant, 0) for variant in ABLATIONS),
    ),
)
