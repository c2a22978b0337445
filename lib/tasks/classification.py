"""One-shot classification as a task to train on: its batches, its loss and its score by instance."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lib.tasks.curriculum import CurriculumSampler
from lib.tasks.episodes import Episodes, EpisodeSampler, instance_numbers
from lib.tasks.labels import OneHot, Strings

COUNTED_INSTANCES = 10


@dataclass
class InstanceTally:
    """How often the k-th image of a class was classified rightly, for k = 1 to 10; kept on the device until asked."""

    labels: OneHot | Strings
    hits: Tensor
    """(10,), how many were right."""
    counts: Tensor
    """(10,), how many there were."""
    loss: Tensor
    """(), the sum of the batches' mean losses."""
    batches: Tensor
    """(), how many there were."""

    @classmethod
    def empty(cls, labels: OneHot | Strings, device: torch.device | str = "cpu") -> "InstanceTally":
        """Nothing counted yet."""
        zeros = torch.zeros(COUNTED_INSTANCES, dtype=torch.int64, device=device)
        return cls(labels, zeros, zeros.clone(), torch.zeros((), device=device), zeros.sum())

    def add(self, outputs: Float[Tensor, "batch time outputs"], batch: Episodes, loss: Tensor) -> None:
        """Count a batch. Instances beyond the tenth are not counted."""
        numbers = instance_numbers(batch.members, batch.characters.shape[1]).flatten()
        right = self.labels.right(outputs, batch.ys).flatten()
        one_hot = F.one_hot(numbers.clamp(max=COUNTED_INSTANCES + 1), COUNTED_INSTANCES + 2)[:, 1:-1]
        self.counts += one_hot.sum(0)
        self.hits += (one_hot * right.unsqueeze(1)).sum(0)
        self.loss += loss.detach()
        self.batches += 1

    def reset(self) -> None:
        """Nothing counted any more, in place: a CUDA graph goes on counting in the same tensors."""
        for counted in (self.hits, self.counts, self.loss, self.batches):
            counted.zero_()

    def summary(self) -> dict:
        """Mean loss (nats a step), accuracy by instance (0 to 1; None where nothing was counted) and the counts."""
        hits, counts = self.hits.tolist(), self.counts.tolist()
        return {
            "loss": self.loss.item() / max(self.batches.item(), 1),
            "accuracy": [h / c if c else None for h, c in zip(hits, counts, strict=True)],
            "hits": hits,
            "counts": counts,
        }


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
        return InstanceTally.empty(self.labels, self.device)
