"""Streams of tokens: at each step one is seen and the next is asked for, then revealed (Shankar & Sarawagi 2018).

A learner of streams scores only what came true, since 40 000 labels at every step of a batch would not fit:

    scored = learner(xs, ys)                                     # a whole batch, differentiable
    learner.begin(batch_size); p = learner.predict(x); learner.observe(x, y)      # one step at a time
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lib.tasks.seeds import generator


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
    # Counted in 32 bits: several times as fast as in 64 on a CPU.
    greater, equal = ((values > chosen).sum(-1, dtype=torch.int32), (values == chosen).sum(-1, dtype=torch.int32))
    return (greater + (equal + 1) / 2).to(torch.float32)


@dataclass(frozen=True, eq=False)
class StreamSampler:
    """Random windows of random sequences: the n-th batch depends on (seed, stream, n) alone."""

    sequences: Sequence[np.ndarray]
    """Each of two tokens or more."""
    steps: int
    """Longest window; a shorter sequence is taken whole."""
    seed: int
    stream: str
    device: torch.device | str = "cpu"

    def batch(self, index: int, size: int) -> Streams:
        """`size` sequences, each with the same chance, from a random start where they are longer than a window."""
        random = generator(self.seed, self.stream, index)
        windows = []
        for which in torch.randint(len(self.sequences), (size,), generator=random).tolist():
            tokens = self.sequences[which]
            spare = max(len(tokens) - 1 - self.steps, 0)
            start = int(torch.randint(spare + 1, (), generator=random))
            windows.append(tokens[start : start + self.steps + 1])
        return padded(windows, self.device)


@dataclass(frozen=True, eq=False)
class WholeStreams:
    """All sequences once, from start to end, those of like length together to save padding."""

    sequences: Sequence[np.ndarray]
    device: torch.device | str = "cpu"
    steps: int | None = None
    """Cut longer ones to their first so many steps; None keeps all."""

    def batches(self, size: int) -> int:
        """How many batches of `size` there are."""
        return -(-len(self.sequences) // size)

    def batch(self, index: int, size: int) -> Streams:
        """The sequences in the order of their lengths, from number index x size on."""
        chosen = self._by_length[index * size : (index + 1) * size]
        cut = None if self.steps is None else self.steps + 1
        return padded([self.sequences[i][:cut] for i in chosen], self.device)

    @cached_property
    def _by_length(self) -> list[int]:
        return sorted(range(len(self.sequences)), key=lambda i: (len(self.sequences[i]), i))


def padded(sequences: Sequence[np.ndarray], device: torch.device | str = "cpu") -> Streams:
    """Sequences of two tokens or more, side by side: each token but the last is seen, each but the first predicted."""
    steps = max(len(tokens) for tokens in sequences) - 1
    xs, ys = (np.zeros((len(sequences), steps), np.int64) for _ in range(2))
    mask = np.zeros((len(sequences), steps), bool)
    for row, tokens in enumerate(sequences):
        xs[row, : len(tokens) - 1], ys[row, : len(tokens) - 1] = tokens[:-1], tokens[1:]
        mask[row, : len(tokens) - 1] = True
    return Streams(*(torch.from_numpy(array).to(device) for array in (xs, ys, mask)))


STEP_RANGES = 12  # the k-th holds the steps 2^k to 2^(k + 1) - 1 of a stream, counted from 1; the last also all later


@dataclass
class StreamTally:
    """Sums over predicted tokens, each counted alike."""

    negative_log_likelihood: Tensor
    """(ranges,), by how far in its stream a token came."""
    reciprocal_rank: Tensor
    """(ranges,)"""
    count: Tensor
    """(ranges,)"""
    loss: Tensor
    """(), the sum of the batches' mean losses."""
    batches: Tensor
    """()"""

    @classmethod
    def empty(cls, device: torch.device | str = "cpu") -> "StreamTally":
        """Nothing counted yet."""
        zeros = torch.zeros(STEP_RANGES, dtype=torch.float64, device=device)
        return cls(zeros, zeros.clone(), zeros.clone(), zeros[0].clone(), zeros[0].clone())

    def add(self, scored: Scored, batch: Streams, loss: Tensor) -> None:
        """Count a batch."""
        steps = torch.arange(1, batch.mask.shape[1] + 1, device=batch.mask.device)
        which = steps.log2().floor().long().clamp(max=STEP_RANGES - 1)  # exact for powers of two
        self.negative_log_likelihood.index_add_(0, which, -(scored.log_likelihood * batch.mask).sum(0).double())
        self.reciprocal_rank.index_add_(0, which, (batch.mask / scored.rank).sum(0).double())
        self.count.index_add_(0, which, batch.mask.sum(0).double())
        self.loss += loss.detach()
        self.batches += 1

    def reset(self) -> None:
        """Nothing counted any more."""
        for each in (self.negative_log_likelihood, self.reciprocal_rank, self.count, self.loss, self.batches):
            each.zero_()

    def summary(self) -> dict[str, Any]:
        """Log-perplexity (nats a token), mean reciprocal rank, how many tokens, and the mean loss of the batches.

        `by_step` holds the first three by range of steps, up to the last range that has tokens.
        """
        columns = zip(
            *(each.tolist() for each in (self.negative_log_likelihood, self.reciprocal_rank, self.count)), strict=True
        )
        by_step = [[nll / n, rank / n, int(n)] for nll, rank, n in columns if n]
        count = max(self.count.sum().item(), 1)
        return {
            "loss": self.loss.item() / max(self.batches.item(), 1),
            "log_perplexity": self.negative_log_likelihood.sum().item() / count,
            "mrr": self.reciprocal_rank.sum().item() / count,
            "tokens": int(self.count.sum().item()),
            "by_step": by_step,
        }


@dataclass(frozen=True)
class StreamTask:
    """Streams to train, to validate and to test on, for `lib.training.train`."""

    train: StreamSampler
    validation: WholeStreams
    test: WholeStreams

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return torch.device(self.train.device)

    def loss(self, scored: Scored, batch: Streams) -> Float[Tensor, ""]:
        """Mean negative log-likelihood of the batch's tokens, in nats."""
        return -(scored.log_likelihood * batch.mask).sum() / batch.mask.sum()

    def tally(self) -> StreamTally:
        """An empty score."""
        return StreamTally.empty(self.train.device)
