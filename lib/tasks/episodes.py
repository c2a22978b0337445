"""Episodes of one-shot classification (Santoro et al. 2016, section 2 and supplements 7 and 8)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lib.config import added
from lib.tasks.images import MAX_ANGLE, MAX_SHIFT, ImageBank, PlainBank
from lib.tasks.labels import STRINGS
from lib.tasks.seeds import generator


@dataclass(frozen=True)
class EpisodeConfig:
    """What an episode is made of; the defaults are the paper's."""

    classes: int = 5
    """Classes in an episode."""
    length: int = 50
    """Images in an episode: ten times the classes."""
    balanced: bool = False
    """True: the same number of images of each class; False: images drawn at random from the classes (supplement 7)."""
    quarter_turns: bool = True
    """Turn each class by a random multiple of 90 degrees, which makes new classes."""
    jitter: bool = True
    """Rotate each image within ±π/16 and shift it within ±10 pixels of the 105-pixel original."""
    strings: bool = added(False)
    """Labels are strings of five letters, drawn anew for each class of each episode (section 4.2)."""


class Episodes(NamedTuple):
    """A batch of episodes."""

    xs: Float[Tensor, "batch time 400"]
    """Images, flat, in [0, 1]."""
    ys: Int[Tensor, "batch time"]
    """Labels, drawn anew in each episode: one-hot labels are `members` itself, strings are numbers up to 3124."""
    characters: Int[Tensor, "batch classes"]
    """The classes of the bank that an episode is made of."""
    members: Int[Tensor, "batch time"]
    """Which of the episode's classes each image is of."""


class EpisodeSampler:
    """Draws batches of episodes from a bank, on the bank's device."""

    def __init__(self, bank: ImageBank | PlainBank, config: EpisodeConfig, *, seed: int, stream: str):
        needed = -(-config.length // config.classes) if config.balanced else 1
        if config.balanced and config.length % config.classes:
            raise ValueError(f"a balanced episode of {config.classes} classes cannot have {config.length} images")
        if config.classes > bank.classes:
            raise ValueError(f"{config.classes} classes asked for an episode, the bank has {bank.classes}")
        if needed > bank.drawings or config.length > config.classes * bank.drawings:
            raise ValueError(
                f"{config.length} images of {config.classes} classes asked, the bank has {bank.drawings} of each class"
            )
        self.bank, self.config, self.seed, self.stream = bank, config, seed, stream

    def batch(self, index: int, size: int) -> Episodes:
        """The index-th batch of `size` episodes: the same for the same (seed, stream, index, size), on any call."""
        return self.compose(self.draw(generator(self.seed, self.stream, index, self.bank.device), size))

    def draw(self, random: torch.Generator, size: int) -> tuple[Tensor, ...]:
        """All the random numbers of a batch, uniform in [0, 1): tensors (size, ...), for `compose`."""
        config, bank = self.config, self.bank
        order = [(config.classes * bank.drawings,)]
        if config.balanced:
            order = [(config.classes, bank.drawings), (config.length,)]
        shapes = [(bank.classes,), *order, (config.classes,), (config.length,), (config.length, 2), (config.classes,)]
        used = shapes if config.strings else shapes[:-1]
        return tuple(torch.rand(size, *shape, generator=random, device=bank.device) for shape in used)

    def compose(self, numbers: tuple[Tensor, ...]) -> Episodes:
        """The episodes that random numbers stand for. Each row stands alone: batches may be put together before."""
        config, bank = self.config, self.bank
        spelling = None
        if config.strings:
            *numbers, spelling = numbers
        naming, *order, turning, angle, shift = numbers
        # Distinct characters in random order: a character's place in this order is its one-hot label.
        characters = naming.topk(config.classes, dim=1).indices
        members, drawings = self._order(*order)
        turns = torch.floor(4 * turning).long()
        angles = (2 * angle - 1) * MAX_ANGLE
        shifts = (2 * shift - 1) * MAX_SHIFT
        xs = bank.draw(
            characters.gather(1, members),
            drawings,
            turns.gather(1, members) if config.quarter_turns else None,
            angles if config.jitter else None,
            shifts if config.jitter else None,
        )
        if spelling is None:
            return Episodes(xs, members, characters, members)
        # Any string is as likely as any other, so two classes may rarely share one.
        strings = torch.floor(STRINGS * spelling).long()
        return Episodes(xs, strings.gather(1, members), characters, members)

    def _order(self, choice: Tensor, order: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Members and drawings (size, length) in the order of presentation; no drawing comes twice in an episode."""
        config, drawings = self.config, self.bank.drawings
        if config.balanced:
            each = config.length // config.classes
            order = order.argsort(-1)
            return order // each, choice.argsort(-1)[..., :each].flatten(1).gather(1, order)
        chosen = choice.argsort(-1)[:, : config.length]
        return chosen // drawings, chosen % drawings


def instance_numbers(members: Int[Tensor, "batch time"], classes: int) -> Int[Tensor, "batch time"]:
    """For each step, how many times its class has been seen by then, itself included: 1 for a first sight."""
    seen = F.one_hot(members, classes).cumsum(1)
    return seen.gather(2, members.unsqueeze(2)).squeeze(2)
