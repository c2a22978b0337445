"""A MANN and real episodes of drawn characters, small enough to train within a test."""

import torch

from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.mann import MANN, MANNConfig
from lib.tasks.classification import ClassificationTask
from lib.tasks.episodes import EpisodeConfig, Episodes, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.tasks.labels import OneHot
from lib.training import TrainingConfig
from tests.tasks.drawings import strokes
from tests.training.tiny import tiny_mann

SMALL = MANNConfig(classes=3, hidden=8, slots=8, width=4, reads=2)
EPISODES = EpisodeConfig(classes=3, length=9)
TWENTY = TrainingConfig(
    updates=20,
    batch_size=2,
    learning_rate=1e-3,
    log_every=2,
    validate_every=10,
    validation_batches=1,
    checkpoint_every=4,
)


class DoubleSampler(EpisodeSampler):
    """Episodes in float64, so that two ways of doing the same thing may differ by far less than they do by mistake."""

    def compose(self, numbers) -> Episodes:
        episodes = super().compose(numbers)
        return episodes._replace(xs=episodes.xs.double())


def drawn_tasks(seeds, device: torch.device | str = "cpu", episodes: EpisodeConfig = EPISODES):
    """One task for each seed, all on one bank."""
    images = strokes(8, 4)
    banks = ImageBank(images[:5], device), ImageBank(images[5:], device)
    held_out = [DoubleSampler(banks[1], EPISODES, seed=0, stream=stream) for stream in ("validation", "test")]
    labels = OneHot(EPISODES.classes)
    return [
        ClassificationTask(DoubleSampler(banks[0], episodes, seed=s, stream="train"), *held_out, labels) for s in seeds
    ]


def drawn_learners(
    seeds, config: MANNConfig | FLMNConfig = SMALL, device: torch.device | str = "cpu"
) -> list[MANN | FLMN]:
    return [tiny_mann(seed, config).double().to(device) for seed in seeds]
