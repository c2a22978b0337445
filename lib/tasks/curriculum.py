"""Episodes that grow during training: one more class every so many updates (Santoro et al. 2016, section 4.2.2)."""

from dataclasses import dataclass, replace

from lib.tasks.episodes import EpisodeConfig, Episodes, EpisodeSampler
from lib.tasks.images import ImageBank


@dataclass(frozen=True)
class CurriculumConfig:
    """How the number of classes grows; an episode is always ten times as long."""

    first: int = 15
    """Classes at the beginning."""
    every: int = 10_000
    """Updates after which there is one class more."""
    tests: tuple[int, ...] = (50, 55, 60, 65, 70, 75, 80, 85, 90, 95, 100)
    """Numbers of classes to test with after training."""
    test_batches: int = 20
    """Minibatches of each of these tests."""

    def episodes(self, update: int, like: EpisodeConfig) -> EpisodeConfig:
        """The episodes after `update` updates, in all else as `like`."""
        classes = self.first + update // self.every
        return replace(like, classes=classes, length=10 * classes)


class CurriculumSampler:
    """Draws the n-th minibatch with as many classes as there are after n - 1 updates."""

    def __init__(self, bank: ImageBank, curriculum: CurriculumConfig, like: EpisodeConfig, *, seed: int, stream: str):
        self.bank, self.curriculum, self.config, self.seed, self.stream = bank, curriculum, like, seed, stream

    def batch(self, index: int, size: int) -> Episodes:
        """The index-th batch, from 1; the same on any call."""
        episodes = self.curriculum.episodes(index - 1, self.config)
        return EpisodeSampler(self.bank, episodes, seed=self.seed, stream=self.stream).batch(index, size)
