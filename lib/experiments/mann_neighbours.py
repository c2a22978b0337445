"""Santoro et al. 2016, table 2: the nearest-neighbour rows, on pixels and on the features of an autoencoder."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lib import ledger
from lib.baselines.autoencoder import Autoencoder, AutoencoderConfig
from lib.baselines.feedforward import FeedForwardConfig
from lib.baselines.nearest_neighbour import knn_accuracy
from lib.data import load_characters
from lib.data.store import Characters
from lib.experiments import omniglot, runs
from lib.experiments.base import RunOptions
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.tasks.reconstruction import ReconstructionTask
from lib.training import TrainingConfig, distributed, pick_device


@dataclass(frozen=True)
class NeighbourConfig:
    """One row: what is compared, on which episodes."""

    autoencoder: AutoencoderConfig | None
    """Whose bottleneck is compared; None compares pixels."""
    episodes: EpisodeConfig = field(default_factory=EpisodeConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(updates=3 * TrainingConfig.updates))
    """Of the autoencoder, on minibatches of 16 x 50 images: three times as many as MANN has for five classes."""
    test_batches: int = 125
    """Minibatches of 16 test episodes, the same as for every method."""


def in_profile(paper: NeighbourConfig, profile: str) -> NeighbourConfig:
    """A config of the paper profile, cut down to another."""
    if profile == "paper":
        return paper
    if profile == "short":
        return replace(paper, training=replace(paper.training, updates=36_000, validate_every=12_000), test_batches=30)
    training = replace(
        paper.training, updates=20, log_every=10, validate_every=20, validation_batches=1, checkpoint_every=10
    )
    return replace(paper, training=training, test_batches=2)


def run(
    experiment: str, paper: NeighbourConfig, variant: str, profile: str, seed: int, options: RunOptions
) -> ledger.Record | None:
    """Train the autoencoder if there is one, test and record one row."""
    config, characters, device = in_profile(paper, profile), load_characters(), pick_device(options.device)
    data = {"name": characters.name, "sha256": characters.digest, "is_standin": characters.is_standin}
    if config.autoencoder is None:
        if not distributed.is_first():
            return None
        ledger.refuse_stand_in(ledger.record_name(experiment, variant, profile, seed), data)
        started = time.monotonic()
        metrics = score(config, characters, device, progress=options.progress)
        seconds = time.monotonic() - started
        return runs.recorded(
            experiment, variant, profile, seed, config, metrics, data=data, device=device, seconds=seconds
        )
    # What there is to learn from is the same, whatever the number of classes in a test episode.
    shown = omniglot.build_task(omniglot.OmniglotConfig(FeedForwardConfig()), characters, seed, device)
    autoencoder = runs.Run(
        experiment=experiment,
        variant=variant,
        profile=profile,
        seed=seed,
        options=replace(options, unroll="plain"),
        config=config,
        data=data,
        task=ReconstructionTask(shown.train, shown.validation),
        build=lambda: Autoencoder(config.autoencoder),
        test=lambda trained: score(config, characters, device, trained.encode, options.progress),
        trained_as=("autoencoder", config.autoencoder),
    )
    return runs.run_alone(autoencoder)


def score(
    config: NeighbourConfig,
    characters: Characters,
    device: torch.device,
    encode: Callable[[Tensor], Tensor] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Accuracy by instance on the test episodes that every method has."""
    bank = ImageBank(characters.images(characters.train_test_split()[1]), device)
    test = EpisodeSampler(bank, config.episodes, seed=omniglot.EVALUATION_SEED, stream="test")
    return knn_accuracy(test, config.test_batches, encode=encode, seed=omniglot.EVALUATION_SEED, progress=progress)


def verify(paper: NeighbourConfig, record: ledger.Record, device: str) -> tuple[bool | None, str]:
    """Test a committed autoencoder again, as `omniglot.verify` does a learner."""
    config = in_profile(paper, record.profile)
    return omniglot.verify_weights(
        record,
        config,
        lambda: Autoencoder(config.autoencoder),
        lambda autoencoder, characters: score(config, characters, pick_device(device), autoencoder.encode),
        device,
    )
