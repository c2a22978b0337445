"""A text as streams: cut into as many pieces as a batch has rows, read side by side in blocks of some words.

A block goes on where the last one of its row ended, so that a learner may carry its state over. The n-th block depends
on n alone; after the last one the text begins anew.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.tasks.reconstruction import LossTally
from lib.tasks.streams import Streams


class TextBlocks:
    """The blocks of one text. Each word but a piece's first is predicted once; words that fill no block are left out.

    tokens: the text. time: words in a block.
    """

    def __init__(self, tokens: Int[Tensor, " words"], time: int):
        if time < 1:
            raise ValueError(f"a block has at least one word, not {time}")
        self.tokens, self.time = tokens, time

    def count(self, size: int) -> int:
        """How many blocks there are if the text is cut into `size` pieces. Raises ValueError if there is none."""
        blocks = (len(self.tokens) - 1) // size // self.time
        if blocks < 1:
            raise ValueError(f"a text of {len(self.tokens)} words has no block of {size} times {self.time} words")
        return blocks

    def batch(self, n: int, size: int) -> Streams:
        """The n-th block (from 0, over and over) of each of `size` pieces. Raises ValueError if there is none."""
        start = n % self.count(size) * self.time
        xs, ys = (part[:, start : start + self.time] for part in side_by_side(self.tokens, size))
        return Streams(xs, ys, torch.ones_like(xs, dtype=torch.bool))


def side_by_side(tokens: Int[Tensor, " words"], size: int) -> tuple[Int[Tensor, "size time"], Int[Tensor, "size time"]]:
    """A text as `size` whole streams: words and their successors. Fewer than `size` words at its end are left out.

    Raises ValueError if the text is too short.
    """
    time = (len(tokens) - 1) // size
    if time < 1:
        raise ValueError(f"a text of {len(tokens)} words cannot be cut into {size} streams")
    used = time * size
    return tokens[:used].view(size, time), tokens[1 : used + 1].view(size, time)


@dataclass(frozen=True)
class LanguageTask:
    """Text to train a language model on, and text to validate on. A learner's outputs are log-likelihoods."""

    train: TextBlocks
    validation: TextBlocks

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.train.tokens.device

    def loss(self, outputs: Float[Tensor, "batch time"], batch: Streams) -> Float[Tensor, ""]:
        """Mean negative log-likelihood, in nats a word."""
        return -outputs.mean()

    def tally(self) -> LossTally:
        """An empty score, in nats a word. All batches are of one size."""
        return LossTally(*(torch.zeros((), device=self.device, dtype=kind) for kind in (torch.float64, torch.float32)))
