"""Images as tasks to train on: single ones to a network, sequences to what adapts it, a label space to an embedding."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lib.tasks.online_images import Labelled, LabelledImages, OnlineSequences, Sequences
from lib.tasks.streams import Scored
from lib.tasks.tally import HitTally

SCORED = 2  # the occurrence of a label in a sequence whose accuracy counts
KINDS = ("overall", "new", "seen")


class ImageTally(HitTally):
    """How often images were classified rightly."""

    def add(self, logits: Float[Tensor, "batch labels"], batch: Labelled, loss: Tensor) -> None:
        """Count a batch."""
        right = (logits.argmax(1) == batch.ys).unsqueeze(0)
        self.count(right, torch.ones_like(right), loss)


@runtime_checkable
class Images(Protocol):
    """Images that come in batches, with their labels."""

    device: torch.device

    def batch(self, n: int, size: int, /) -> Labelled:
        """The n-th batch of so many images."""


@dataclass(frozen=True)
class ImageTask:
    """Images to be classified by a network."""

    train: Images
    validation: Images

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.train.device

    def loss(self, logits: Float[Tensor, "batch labels"], batch: Labelled) -> Float[Tensor, ""]:
        """Cross-entropy, nats an image."""
        return F.cross_entropy(logits, batch.ys)

    def tally(self) -> ImageTally:
        """An empty score."""
        return ImageTally.empty(1, self.device)


class SequenceTally(HitTally):
    """How often second occurrences of labels were named rightly: of all labels, of new ones, of seen ones."""

    def add(self, scored: Scored, batch: Sequences, loss: Tensor) -> None:
        """Count a batch."""
        second = (batch.occurrence == SCORED).flatten()
        new = batch.new.flatten()
        right = (scored.rank == 1).flatten()
        self.count(right.expand(3, -1), torch.stack([second, second & new, second & ~new]), loss)


@dataclass(frozen=True)
class SequenceTask:
    """Online sequences, in which a network meets labels that it knows and new ones."""

    train: OnlineSequences
    validation: OnlineSequences
    test: OnlineSequences

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.train.drawn.bank.device

    def loss(self, scored: Scored, batch: Sequences) -> Float[Tensor, ""]:
        """-log P_t(y_t | x_t), nats a step, over all steps of the sequences."""
        return -scored.log_likelihood.mean()

    def tally(self) -> SequenceTally:
        """An empty score."""
        return SequenceTally.empty(3, self.device)


class EmbeddingTally(HitTally):
    """How often a memory found the label of an image."""

    def add(self, outputs: Float[Tensor, "batch two"], batch: Labelled, loss: Tensor) -> None:
        """Count a batch. outputs: as `EmbeddingTask` has them."""
        right = (outputs[:, 1] > 0).unsqueeze(0)
        self.count(right, torch.ones_like(right), loss)


@dataclass(frozen=True)
class EmbeddingTask:
    """Images that come one after another, to be found again by a memory.

    What learns gives two numbers for each image: its loss, and 1 where the label was found, else 0.
    """

    train: LabelledImages
    validation: LabelledImages

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.train.bank.device

    def loss(self, outputs: Float[Tensor, "batch two"], batch: Labelled) -> Float[Tensor, ""]:
        """The mean loss."""
        return outputs[:, 0].mean()

    def tally(self) -> EmbeddingTally:
        """An empty score."""
        return EmbeddingTally.empty(1, self.device)
