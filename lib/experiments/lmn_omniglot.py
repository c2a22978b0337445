"""Shankar & Sarawagi 2018, table 3: a classifier of 250 characters meets them again, and 100 new ones beside them.

All rows share the trained network of a seed. What is read into the paper's silences is told in
`lib/tasks/online_images.py`, `lib/baselines/convnet.py` and `lib/baselines/maml_images.py`. The settings of LMN were
chosen on validation sequences, which have neither the test's drawings nor its new labels.

The combiner and MAML learn from all steps of a sequence, as the paper has it. From second occurrences alone the
combiner learnt to leave out every label that is not in memory (θ = 1), since in these sequences none of them is right
there. And δ = 0 is the choice of sequences that show each label just twice: a label of much weight was shown twice
already.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from lib import ledger
from lib.baselines.convnet import ConvNet, ConvNetConfig, KnownLabels
from lib.baselines.maml_images import ImageMAML, ImageMAMLConfig
from lib.config import to_dict
from lib.data import load_characters
from lib.data.store import Characters
from lib.experiments import lmn_image_tables as tables
from lib.experiments import omniglot, runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.lmn_table1 import PAPER
from lib.methods.lmn import LMN, LMNConfig
from lib.tasks.online_images import OnlineConfig, OnlineLabels, OnlineSequences, Shown
from lib.tasks.online_tasks import KINDS, ImageTask, SequenceTask
from lib.tasks.streams import Scored, score
from lib.training import TrainingConfig, pick_device, train
from lib.training.loop import TrainingResult

NAME = "lmn.table3"
COSTS = {"smoke": "20 s", "short": "15 min on two CPU cores", "paper": "1 h on a CPU"}
EVALUATION_SEED = 0  # the same test sequences for every method and seed
TEST_BATCH = 100  # sequences whose mean the paper gives


@dataclass(frozen=True)
class OnlineImagesConfig:
    """One row: labels and sequences, the trained network, what adapts it, and the training of both."""

    adapter: LMNConfig | ImageMAMLConfig | None
    """What adapts the network online; None: nothing, the baseline."""
    training: TrainingConfig
    """Of the adapter; of the network, where the adapter has nothing to train."""
    labels: OnlineConfig = field(default_factory=OnlineConfig)
    network: ConvNetConfig = field(default_factory=ConvNetConfig)
    network_training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            updates=2_000,
            batch_size=64,
            learning_rate=2e-3,
            optimizer="adam",
            rate_falls_from=0.5,
            log_every=100,
            checkpoint_every=100,
            validate_every=500,
            validation_batches=8,
        )
    )
    """On minibatches of images (paper: Adam, else silent)."""
    test_batches: int = 10
    """Repetitions of the paper's 100 test sequences, for an interval."""

    @property
    def trains(self) -> bool:
        """Whether the adapter has something to train."""
        return isinstance(self.adapter, ImageMAMLConfig) or (self.adapter is not None and self.adapter.theta is None)


def _row(adapter: LMNConfig | ImageMAMLConfig | None, **training: Any) -> OnlineImagesConfig:
    config = OnlineImagesConfig(adapter, TrainingConfig())
    if not config.trains:
        return replace(config, training=config.network_training)
    shared = {"optimizer": "adam", "log_every": 100, "checkpoint_every": 100, "validate_every": 500}
    return replace(config, training=TrainingConfig(**(shared | training)))


LMN_SETTINGS = LMNConfig(margin=5.0, sharpness=10.0, strength=0.0)
CONFIGS = {
    "baseline": _row(None),
    "maml": _row(ImageMAMLConfig(order=2), updates=3_000, batch_size=8, learning_rate=1e-3, validation_batches=5),
    "lmn-fixed": _row(replace(LMN_SETTINGS, theta=0.6)),
    "lmn": _row(LMN_SETTINGS, updates=4_000, batch_size=16, learning_rate=2e-3),
}


def in_profile(paper: OnlineImagesConfig, profile: str) -> OnlineImagesConfig:
    """A config of the paper profile, cut down to another."""
    if profile == "paper":
        return paper
    if profile == "short":
        network = replace(paper.network_training, updates=600, validate_every=300)
        maml = isinstance(paper.adapter, ImageMAMLConfig)
        shorter = {"updates": 600, "batch_size": 4} if maml else {"updates": 1_500}
        adapter = replace(paper.training, **shorter, validate_every=300)
    else:
        few = {"updates": 20, "batch_size": 4, "log_every": 10, "checkpoint_every": 10, "validate_every": 20}
        network = replace(paper.network_training, **few | {"batch_size": 32}, validation_batches=1)
        adapter = replace(paper.training, **few, validation_batches=1)
    changes = {"network_training": network, "training": adapter if paper.trains else network}
    return replace(paper, **changes, test_batches=10 if profile == "short" else 1)


class Unadapted(nn.Module):
    """The baseline: the network's own scores."""

    def __init__(self, network: ConvNet, seen: int):
        super().__init__()
        self.network = KnownLabels(network, seen)

    def forward(self, xs: Shown, ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of sequences. `unroll` is ignored: there is one form."""
        with self.network.only(xs.known):
            return score(self.network(xs.images), ys)


class AdaptedByLMN(nn.Module):
    """LMN on a network that knows of each sequence's labels only those that are not to play new ones."""

    def __init__(self, network: ConvNet, seen: int, config: LMNConfig):
        super().__init__()
        self.lmn = LMN(KnownLabels(network, seen), config)

    def forward(self, xs: Shown, ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of sequences. `unroll` is ignored: there is one form."""
        with self.lmn.network.only(xs.known):
            return self.lmn(xs.images, ys)


def adapt(network: ConvNet, config: OnlineImagesConfig) -> nn.Module:
    """What a row tests: a copy of the trained network with what adapts it, whose weights are fresh."""
    network, seen = copy.deepcopy(network), config.labels.seen
    if config.adapter is None:
        return Unadapted(network, seen)
    if isinstance(config.adapter, ImageMAMLConfig):
        return ImageMAML(network, seen, config.adapter)
    return AdaptedByLMN(network, seen, config.adapter)


def build_task(labels: OnlineLabels, seed: int) -> SequenceTask:
    """Sequences to train what adapts the network, to validate and to test it."""

    def sequences(part: str, seed: int) -> OnlineSequences:
        return OnlineSequences(labels, part, seed=seed, stream=part)

    return SequenceTask(
        sequences("train", seed), sequences("validation", EVALUATION_SEED), sequences("test", EVALUATION_SEED)
    )


@torch.no_grad()
def test_scores(config: OnlineImagesConfig, task: SequenceTask, learner: nn.Module) -> dict[str, Any]:
    """Accuracy on second occurrences: of all labels, of new ones, of seen ones; over all repetitions and of each."""
    learner.eval()
    total, by_repetition = task.tally(), []
    for repetition in range(config.test_batches):
        batch, own = task.test.batch(repetition, TEST_BATCH), task.tally()
        scored = learner(batch.xs, batch.ys)
        for tally in (total, own):
            tally.add(scored, batch, task.loss(scored, batch))
        by_repetition.append(own.summary()["accuracy"])
    return {"kinds": list(KINDS), **total.summary(), "by_repetition": by_repetition}


@dataclass(frozen=True)
class NetworkConfig:
    """All that the training of the network depends on."""

    labels: OnlineConfig
    network: ConvNetConfig
    training: TrainingConfig


def trained_as(config: OnlineImagesConfig) -> tuple[str, NetworkConfig]:
    """The name and config under which the network of all rows is trained."""
    return "network", NetworkConfig(config.labels, config.network, config.network_training)


def pretrained(
    config: OnlineImagesConfig, labels: OnlineLabels, data: dict[str, Any], profile: str, seed: int, options: RunOptions
) -> tuple[runs.Run, TrainingResult]:
    """The baseline's run with its trained network as `learner`, trained once for all rows of a seed.

    A time limit does not stop it; nothing is recorded here.
    """
    baseline = replace(config, adapter=None, training=config.network_training)
    task = ImageTask(
        labels.images(labels.network_drawings, seed=seed, stream="network"),
        labels.images(labels.validation_drawings, seed=EVALUATION_SEED, stream="validation"),
    )
    network = runs.Run(
        experiment=NAME,
        variant="baseline",
        profile=profile,
        seed=seed,
        options=replace(options, unroll="plain", minutes=None),
        config=baseline,
        data=data,
        task=task,
        build=lambda: ConvNet(config.network),
        test=lambda network: test_scores(baseline, build_task(labels, seed), adapt(network, baseline)),
        trained_as=trained_as(config),
    )
    folder = network.in_progress.parent
    result = train(
        network.learner,
        task,
        config.network_training,
        folder=folder,
        identity=network.identity,
        **network.training_options(),
    )
    return network, result


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Train the network if it is not yet, then what adapts it; test and record."""
    config, characters = in_profile(CONFIGS[variant], profile), load_characters()
    data = {"name": characters.name, "sha256": characters.digest, "is_standin": characters.is_standin}
    labels = OnlineLabels(config.labels, characters, pick_device(options.device))
    network, result = pretrained(config, labels, data, profile, seed, options)
    if config.adapter is None:
        return network.record(result)
    task = build_task(labels, seed)
    adapted = runs.Run(
        experiment=NAME,
        variant=variant,
        profile=profile,
        seed=seed,
        options=replace(options, unroll="plain"),
        config=config,
        data=data,
        task=task,
        build=lambda: adapt(network.learner, config),
        test=lambda learner: test_scores(config, task, learner),
        trained_as=None if config.trains else trained_as(config),
    )
    return runs.run_alone(adapted) if config.trains else adapted.record(result)


def verify(record: ledger.Record, device: str) -> tuple[bool | None, str]:
    """Test committed weights again, see `omniglot.verify_weights`."""
    config = in_profile(CONFIGS[record.variant], record.profile)

    def build() -> nn.Module:
        network = ConvNet(config.network)
        return network if config.adapter is None else adapt(network, config)

    def test(learner: nn.Module, characters: Characters) -> dict[str, Any]:
        labels = OnlineLabels(config.labels, characters, pick_device(device))
        if config.adapter is None:
            learner = adapt(learner, config)
        return test_scores(config, build_task(labels, record.seed), learner)

    return omniglot.verify_weights(record, config, build, test, device)


EXPERIMENTS = (
    Experiment(
        name=NAME,
        paper=PAPER,
        title="Online Omniglot: 250 labels that the network was trained on and 100 new ones, in one label space",
        variants=tuple(CONFIGS),
        run=run,
        config=lambda variant, profile: to_dict(in_profile(CONFIGS[variant], profile)),
        table=tables.table3,
        costs=COSTS,
        wanted=tuple((variant, seed) for seed in range(3) for variant in CONFIGS),
        verify=verify,
    ),
)
