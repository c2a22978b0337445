"""Streams of tokens: at each step one is seen and the next is asked for, then revealed (Shankar & Sarawagi 2018).

A learner of streams scores only what came true, since 40 000 labels at every step of a batch would not fit:

    scored = learner(xs, ys)                                     # a whole batch, differentiable
    learner.begin(batch_size); p = learner.predict(x); learner.observe(x, y)      # one step at a time
"""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Streams(NamedTuple):
    """A batch of streams, padded at their ends."""

    xs: Int[Tensor, "batch time"]
    """The token seen at each step."""
    ys: Int[Tensor, "batch time"]
    """The token that follows it, which is to be predicted."""
    mask: Bool[Tensor, "batch time"]
    """False at the padding after the end of a stream, where xs and ys are 0."""


class Scored(NamedTuple):
    """How well each token that came true was predicted, before it was revealed."""

    log_likelihood: Float[Tensor, "batch time"]
    """log P_t(y_t | x_t) in nats."""
    rank: Float[Tensor, "batch time"]
    """1 for the most probable label; labels of equal probability share the mean of their ranks."""

    def detach(self) -> "Scored":
        """The same without gradients."""
        return Scored(self.log_likelihood.detach(), self.rank)


@runtime_checkable
class StreamLearner(Protocol):
    """What learns while it predicts; both views must agree."""

    def __call__(self, xs: Tensor, ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of streams, from a fresh start. `unroll` is for learners that have several forms."""

    def begin(self, batch_size: int = 1) -> None:
        """Start so many streams side by side."""

    def predict(self, x: Tensor) -> Float[Tensor, "batch labels"]:
        """Probabilities of what follows x. Changes nothing."""

    def observe(self, x: Tensor, y: Int[Tensor, " batch"]) -> None:
        """Reveal what follows x."""


def score(logits: Float[Tensor, "*any labels"], ys: Int[Tensor, "*any"]) -> Scored:
    """Score logits, of any scale, against what came true."""
    chosen = logits.gather(-1, ys.unsqueeze(-1))
    rank = rank_of(logits.detach(), chosen.detach())
    return Scored((chosen.squeeze(-1) - logits.logsumexp(-1)), rank)


def rank_of(values: Float[Tensor, "*any labels"], chosen: Float[Tensor, "*any 1"]) -> Float[Tensor, "*any"]:
    """The rank of a chosen value among the others, from 1; ties share the mean of their ranks."""
    greater, equal = (values > chosen).sum(-1), (values == chosen).sum(-1)
    return (greater + (equal + 1) / 2).to(torch.float32)
