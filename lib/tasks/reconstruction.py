"""Images to be reconstructed: what the autoencoder of the nearest-neighbour baseline learns from."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lib.tasks.episodes import Episodes, EpisodeSampler


@dataclass
class LossTally:
    """The mean loss of some batches; kept on the device until asked."""

    loss: Tensor
    """(), the sum of the batches' losses."""
    batches: Tensor
    """(), how many there were."""

    def add(self, outputs: Tensor, batch: Any, loss: Float[Tensor, ""]) -> None:
        """Count a batch."""
        self.loss += loss.detach()
        self.batches += 1

    def reset(self) -> None:
        """Nothing counted any more."""
        self.loss.zero_()
        self.batches.zero_()

    def summary(self) -> dict[str, float]:
        """The mean loss, in the task's nats a pixel or a word."""
        return {"loss": self.loss.item() / max(self.batches.item(), 1)}


@dataclass(frozen=True)
class ReconstructionTask:
    """The images of episodes, to be reconstructed: what `lib.training.train` asks of a task."""

    train: EpisodeSampler
    validation: EpisodeSampler

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.train.bank.device

    def loss(self, logits: Float[Tensor, "batch time features"], batch: Episodes) -> Float[Tensor, ""]:
        """Cross-entropy of the pixels, grey ones as probabilities of ink, in nats: the mean over all pixels."""
        return F.binary_cross_entropy_with_logits(logits, batch.xs)

    def tally(self) -> LossTally:
        """An empty score."""
        return LossTally(*torch.zeros(2, device=self.device).unbind())
