"""Kinds of labels: how a learner is told one, how its output is read, scored and penalised.

| here | Santoro et al. 2016 |
| --- | --- |
| `OneHot` | one-hot labels, one softmax: equations 24 and 25 |
| `Strings` | five characters of five letters each, five softmaxes: section 4.2, equation 26 |
| `Real` | a function's value, a Gaussian of predicted mean and variance: supplements 6.2 and 6.3 |
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

CHARACTERS, LETTERS = 5, 5
STRINGS = LETTERS**CHARACTERS  # 3125 different labels
SMALLEST_VARIANCE = 1e-4
LabelKind = Literal["one-hot", "strings", "real"]


@dataclass(frozen=True)
class OneHot:
    """One of `classes` labels, int64 from 0."""

    classes: int

    @property
    def width(self) -> int:
        """Length of a label as the learner is told it."""
        return self.classes

    @property
    def outputs(self) -> int:
        """Length of the learner's output."""
        return self.classes

    def encode(self, ys: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """A one-hot vector."""
        return F.one_hot(ys, self.classes).float()

    def predict(self, outputs: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch classes"]:
        """Probabilities of the classes (equation 24)."""
        return outputs.softmax(-1)

    def loss(self, outputs: Float[Tensor, "*batch outputs"], ys: Int[Tensor, "*batch"]) -> Float[Tensor, ""]:
        """Cross-entropy in nats, the mean over all steps and episodes (equation 25 by the number of its terms)."""
        return F.cross_entropy(outputs.flatten(0, -2), ys.flatten())

    def right(self, outputs: Float[Tensor, "*batch outputs"], ys: Int[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        """Whether the most probable class is the label."""
        return outputs.argmax(-1) == ys


@dataclass(frozen=True)
class Strings:
    """A string of five letters, as int64 from 0 to 3124: its letters are the digits to the base five."""

    width = outputs = CHARACTERS * LETTERS

    def letters(self, ys: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch 5"]:
        """The five letters, 0 to 4 each."""
        places = LETTERS ** torch.arange(CHARACTERS - 1, -1, -1, device=ys.device)
        return torch.div(ys.unsqueeze(-1), places, rounding_mode="floor") % LETTERS

    def encode(self, ys: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Five one-hot vectors side by side."""
        return F.one_hot(self.letters(ys), LETTERS).flatten(-2).float()

    def predict(self, outputs: Float[Tensor, "*batch outputs"]) -> Float[Tensor, "*batch 5 5"]:
        """Probabilities of the letters at each of the five places."""
        return outputs.unflatten(-1, (CHARACTERS, LETTERS)).softmax(-1)

    def loss(self, outputs: Float[Tensor, "*batch outputs"], ys: Int[Tensor, "*batch"]) -> Float[Tensor, ""]:
        """Cross-entropy in nats, summed over the five places; the mean over all steps and episodes (equation 26)."""
        logits = outputs.unflatten(-1, (CHARACTERS, LETTERS))
        return CHARACTERS * F.cross_entropy(logits.flatten(0, -2), self.letters(ys).flatten())

    def right(self, outputs: Float[Tensor, "*batch outputs"], ys: Int[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        """Whether the most probable letters are right at all five places."""
        chosen = outputs.unflatten(-1, (CHARACTERS, LETTERS)).argmax(-1)
        return (chosen == self.letters(ys)).all(-1)


@dataclass(frozen=True)
class Real:
    """A real number."""

    width = 1
    outputs = 2

    def encode(self, ys: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 1"]:
        """The number itself."""
        return ys.unsqueeze(-1)

    def predict(self, outputs: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Mean and variance of the predicted Gaussian; softplus keeps a variance positive (paper: silent)."""
        mean, raw = outputs.unbind(-1)
        return torch.stack([mean, F.softplus(raw) + SMALLEST_VARIANCE], dim=-1)

    def negative_log_likelihood(
        self, outputs: Float[Tensor, "*batch 2"], ys: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch"]:
        """Of each number under its predicted Gaussian, in nats."""
        mean, variance = self.predict(outputs).unbind(-1)
        return 0.5 * (torch.log(2 * math.pi * variance) + (ys - mean).square() / variance)

    def loss(self, outputs: Float[Tensor, "*batch 2"], ys: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
        """Mean negative log-likelihood over all steps and episodes (supplement 6.3)."""
        return self.negative_log_likelihood(outputs, ys).mean()


Labels = OneHot | Strings | Real


def make_labels(kind: LabelKind, classes: int) -> Labels:
    """Labels of a kind; `classes` counts for one-hot labels only. Raises ValueError for another kind."""
    if kind == "one-hot":
        return OneHot(classes)
    if kind == "strings":
        return Strings()
    if kind == "real":
        return Real()
    raise ValueError(f"there are no labels of the kind {kind!r}; known: one-hot, strings, real")
