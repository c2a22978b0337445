"""miniMNIST: what was learnt on characters, tested on digits (Mureja et al. 2017, section 5.4 and table 2).

Twenty images of each digit «randomly selected from the original MNIST», shrunk to 20 x 20: here from its test part, by
a stated seed. Which twenty is a matter of luck, so the draw is repeated, which the paper did not do.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from lib.data.mnist import Digits, load_mnist
from lib.methods.online import OnlineLearner
from lib.tasks.classification import ClassificationTask
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import PlainBank
from lib.training import evaluate

EPISODE_SEED = 0  # the same episodes for every learner


@dataclass(frozen=True)
class MiniMNISTConfig:
    """A test on digits."""

    images: int = 20
    """Of each digit."""
    draws: int = 20
    """Times that the images are drawn, with the seeds 0, 1, 2 ...; the paper's draw has no seed."""
    batches: int = 30
    """Minibatches of 16 episodes for each draw."""


def draw(digits: Digits, images: int, seed: int, device: torch.device | str = "cpu") -> PlainBank:
    """So many images of each digit, without repetition."""
    rng = np.random.default_rng(seed)
    chosen = [rng.choice(np.flatnonzero(digits.labels == digit), images, replace=False) for digit in range(10)]
    return PlainBank(digits.images[np.stack(chosen)], device)


def scores(
    config: MiniMNISTConfig,
    episodes: EpisodeConfig,
    task: ClassificationTask,
    learner: OnlineLearner,
    progress: bool = False,
) -> dict:
    """Accuracy by instance on episodes of digits, not augmented.

    Returns `accuracy`, the mean over the draws, `by_draw`, a list of accuracies for each, and `data`.
    """
    digits, by_draw = load_mnist("test"), []
    plain = replace(episodes, quarter_turns=False, jitter=False)
    for seed in range(config.draws):
        bank = draw(digits, config.images, seed, task.device)
        sampler = EpisodeSampler(bank, plain, seed=EPISODE_SEED, stream="mini mnist")
        by_draw.append(evaluate(learner, task, sampler, config.batches, progress=progress)["accuracy"])
    known = [[a for a in column if a is not None] for column in zip(*by_draw, strict=True)]
    return {
        "accuracy": [sum(column) / len(column) if column else None for column in known],
        "by_draw": by_draw,
        "data": {"name": digits.name, "sha256": digits.digest, "is_standin": digits.is_standin},
    }
