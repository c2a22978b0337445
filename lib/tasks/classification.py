"""One-shot classification as a task to train on: its batches, its loss and its score by instance."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lib.tasks.curriculum import CurriculumSampler
from lib.tasks.episodes import Episodes, EpisodeSampler, instance_numbers
from lib.tasks.labels import OneHot, Strings
from lib.tasks.tally import HitTally

COUNTED_INSTANCES = 10


@dataclass
class InstanceTally(HitTally):
    """How often the k-th image of a class was classified rightly, for k = 1 to 10."""

    labels: OneHot | Strings

    @classmethod
    def of(cls, labels: OneHot | Strings, device: torch.device | str = "cpu") -> "InstanceTally":
        """Nothing counted yet."""
        return cls.empty(COUNTED_INSTANCES, device, labels=labels)

    def add(self, outputs: Float[Tensor, "batch time outputs"], batch: Episodes, loss: Tensor) -> None:
        """Count a batch. Instances beyond the tenth are not counted."""
        numbers = instance_numbers(batch.members, batch.characters.shape[1]).flatten()
        right = self.labels.right(outputs, batch.ys).flatten()
        there = F.one_hot(numbers.clamp(max=COUNTED_INSTANCES + 1), COUNTED_INSTANCES + 2)[:, 1:-1].T.bool()
        self.count(right.expand_as(there), there, loss)


@dataclass(frozen=True)
class ClassificationTask:
    """Episodes to train on, and disjoint classes to validate and to test on."""

    train: EpisodeSampler | CurriculumSampler
    validation: EpisodeSampler
    test: EpisodeSampler
    labels: OneHot | Strings

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.train.bank.device

    def loss(self, outputs: Float[Tensor, "batch time outputs"], batch: Episodes) -> Float[Tensor, ""]:
        """Equation 25 or 26, in nats a step."""
        return self.labels.loss(outputs, batch.ys)

    def tally(self) -> InstanceTally:
        """An empty score."""
        return InstanceTally.of(self.labels, self.device)
