"""Omniglot as LMN's paper uses it: labels that a trained network knows beside new ones, and one space of thousands.

Reading notes. The paper takes its classes from Omniglot's characters and their quarter turns (Vinyals et al. 2016).

Online adaptation (table 3): «arbitrarily» is one fixed permutation of the characters and one fixed turn of each; no two
classes are turns of one character, which could look the same. The paper does not say which drawings are whose. A fixed
permutation of the twenty drawers gives some to the network, some to train what adapts it, some to validate on and the
others to the test, so that no drawing of the test, nor its drawer, was there in training. A sequence of ten shows each
of its five labels twice, since second occurrences of all five are scored.

«Only seen classes are provided» in training, so new labels must be played: in each training batch a random part of the
seen labels, as large as that of the new ones in the test, is taken for unknown to the network.

Few-shot over the whole label space (table 4): 1123 characters in four turns, 4492 labels, are in the test; 450
others, 1800 labels, train the embedding, and 50 are held out to choose settings by. In the order `passes` a k-th
drawing of each label comes, in random order, before any (k+1)-th; in the order `mixed` ten drawings of all labels
come as they happen to.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from lib.data.store import OMNIGLOT_CLASSES, Characters
from lib.tasks.images import ORIGINAL_SIZE
from lib.tasks.seeds import generator

SIDE = 28  # pixels
TURNS = 4
SPLIT_SEED = 0  # the same classes and drawers for every seed
BLOCK = 1024  # images shrunk at once


class SmallImages:
    """Drawings at 28 x 28 pixels, ready to be drawn from. Memory: 0.8 kB an image on `device`.

    images: uint8 (characters, drawings, 105, 105), ink = 1.
    """

    def __init__(self, images: UInt8[np.ndarray, "characters drawings 105 105"], device: torch.device | str = "cpu"):
        self.characters, self.drawings = images.shape[:2]
        self.device = torch.device(device)
        flat = torch.from_numpy(np.ascontiguousarray(images)).flatten(0, 1)
        # The same linear map on rows and on columns, read off by applying it to the identity.
        unit = torch.eye(ORIGINAL_SIZE).view(1, 1, ORIGINAL_SIZE, ORIGINAL_SIZE)
        size = (SIDE, ORIGINAL_SIZE)
        shrink = F.interpolate(unit, size=size, mode="bilinear", antialias=True, align_corners=False)[0, 0]
        small = [(shrink @ (part.float() * 255) @ shrink.T).round().to(torch.uint8) for part in flat.split(BLOCK)]
        self.pixels = torch.cat(small).view(self.characters, self.drawings, SIDE, SIDE).to(self.device)

    def draw(
        self, characters: Int[Tensor, "*any"], drawings: Int[Tensor, "*any"], turns: Int[Tensor, "*any"]
    ) -> Float[Tensor, "*any 784"]:
        """The asked images, flat, in [0, 1], turned counter-clockwise by so many times 90 degrees."""
        upright = self.pixels[characters.flatten(), drawings.flatten()]
        turned = torch.stack([torch.rot90(upright, k, (1, 2)) for k in range(TURNS)])
        chosen = turned[turns.flatten(), torch.arange(len(upright), device=self.device)]
        return chosen.view(*characters.shape, SIDE * SIDE).float() / 255


class Labelled(NamedTuple):
    """A batch of images with their labels."""

    xs: Float[Tensor, "batch *image"]
    ys: Int[Tensor, " batch"]


class LabelledImages:
    """Single images of labels, which are turned characters, to train a network or an embedding on.

    characters, turns: of each label, (labels,); drawings: the numbers of those that may be drawn. times: how often each
    label of a batch comes: 1, no label comes twice; 2, all come once, and then in another order once more; None, any.
    """

    def __init__(
        self,
        bank: SmallImages,
        characters: Int[Tensor, " labels"],
        turns: Int[Tensor, " labels"],
        drawings: Int[Tensor, " drawings"],
        *,
        seed: int,
        stream: str,
        times: int | None = None,
    ):
        self.bank, self.characters, self.turns, self.drawings = bank, characters, turns, drawings
        self.seed, self.stream, self.times = seed, stream, times

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.bank.device

    def batch(self, index: int, size: int) -> Labelled:
        """The index-th batch of `size` images: the same for the same (seed, stream, index, size), on any call.

        Raises ValueError if it does not divide into labels that come `times`, or there are not so many labels.
        """
        device, labels = self.bank.device, len(self.characters)
        random = generator(self.seed, self.stream, index, device)
        if self.times is None:
            ys = torch.randint(labels, (size,), generator=random, device=device)
            which = torch.randint(len(self.drawings), (size,), generator=random, device=device)
        else:
            some = size // self.times
            if size % self.times or some > labels or self.times > len(self.drawings):
                raise ValueError(
                    f"a batch of {size} images cannot show each of its labels {self.times} times: "
                    f"there are {labels} labels and {len(self.drawings)} drawings of each"
                )
            chosen = torch.randperm(labels, generator=random, device=device)[:some]
            order = torch.rand(self.times, some, generator=random, device=device).argsort(1)
            ways = torch.rand(some, len(self.drawings), generator=random, device=device).argsort(1)[:, : self.times]
            ys, which = chosen[order].flatten(), ways.T.gather(1, order).flatten()
        return Labelled(self.bank.draw(self.characters[ys], self.drawings[which], self.turns[ys]), ys)


@dataclass(frozen=True)
class OnlineConfig:
    """Labels, drawings and sequences of online adaptation; the defaults are the paper's where it states them."""

    seen: int = 250
    """Labels that the network was trained on (paper: 250); the first ones."""
    unseen: int = 100
    """Labels that come up in the test only (paper: 100)."""
    labels: int = 5
    """In a sequence (paper: 5), drawn from all 350."""
    times: int = 2
    """That each of them is shown: a length of 10 (paper: 10 in all)."""
    network_drawings: int = 10
    """Drawings of each seen label that train the network (paper: silent)."""
    adapter_drawings: int = 4
    """Other drawings of each seen label, in the sequences that train what adapts the network (paper: silent)."""
    validation_drawings: int = 2
    """Others again, in the sequences that settings are chosen by (paper: silent). What is left is for the test."""

    @property
    def all_labels(self) -> int:
        """Seen and unseen ones."""
        return self.seen + self.unseen


class Shown(NamedTuple):
    """What a sequence shows, and what the network may know of it."""

    images: Float[Tensor, "batch time 784"]
    known: Bool[Tensor, " labels"]
    """The labels that are not taken for new ones, the same for a batch."""


class Sequences(NamedTuple):
    """A batch of online sequences."""

    xs: Shown
    ys: Int[Tensor, "batch time"]
    occurrence: Int[Tensor, "batch time"]
    """How many times the label has come by then, this time included."""
    new: Bool[Tensor, "batch time"]
    """The network knows nothing of the label."""


class OnlineSequences:
    """Sequences of a few labels out of all that a network has an output for, see the module's reading notes.

    part: `train` and `validation` show seen labels alone, some of which play new ones; `test` shows all.
    """

    def __init__(self, drawn: "OnlineLabels", part: str, *, seed: int, stream: str):
        self.drawn, self.part, self.seed, self.stream = drawn, part, seed, stream
        self.drawings = getattr(drawn, f"{part}_drawings")

    def batch(self, index: int, size: int) -> Sequences:
        """The index-th batch of `size` sequences: the same for the same (seed, stream, index, size), on any call."""
        config, drawn = self.drawn.config, self.drawn
        device = drawn.bank.device
        random = generator(self.seed, self.stream, index, device)
        known = torch.arange(config.all_labels, device=device) < config.seen
        shown = config.all_labels
        if self.part != "test":
            shown = config.seen
            playing = round(config.seen * config.unseen / config.all_labels)
            known[torch.randperm(config.seen, generator=random, device=device)[:playing]] = False

        def ranks(*shape: int) -> Tensor:
            return torch.rand(size, *shape, generator=random, device=device).argsort(-1)

        labels = ranks(shown)[:, : config.labels]
        order = ranks(config.labels * config.times)
        member = order // config.times
        which = ranks(config.labels, len(self.drawings))[..., : config.times].flatten(1).gather(1, order)
        ys = labels.gather(1, member)
        images = drawn.bank.draw(drawn.characters[ys], self.drawings[which], drawn.turns[ys])
        occurrence = (F.one_hot(member, config.labels).cumsum(1)).gather(2, member.unsqueeze(2)).squeeze(2)
        return Sequences(Shown(images, known), ys, occurrence, ~known[ys])


class OnlineLabels:
    """Which turned characters are the labels, and which drawings are whose: the same for every seed.

    Raises ValueError if there are too few characters or drawings.
    """

    def __init__(self, config: OnlineConfig, characters: Characters, device: torch.device | str = "cpu"):
        given = config.network_drawings + config.adapter_drawings + config.validation_drawings
        if config.all_labels > len(characters) or given + config.times > characters.drawers:
            raise ValueError(
                f"{config.all_labels} labels and {given + config.times} drawings of each asked, there are "
                f"{len(characters)} characters with {characters.drawers} drawings"
            )
        random = np.random.default_rng(SPLIT_SEED)
        chosen = random.permutation(len(characters))[: config.all_labels]
        turns, drawers = random.integers(TURNS, size=config.all_labels), random.permutation(characters.drawers)
        self.config = config
        self.bank = SmallImages(characters.images(chosen), device)
        self.characters = torch.arange(config.all_labels, device=self.bank.device)
        self.turns = torch.from_numpy(turns).to(self.bank.device)
        sizes = (config.network_drawings, config.adapter_drawings, config.validation_drawings)
        parts = np.split(drawers, np.cumsum(sizes))
        self.network_drawings, self.train_drawings, self.validation_drawings, self.test_drawings = (
            torch.from_numpy(part).to(self.bank.device) for part in parts
        )

    def images(self, drawings: Int[Tensor, " drawings"], *, seed: int, stream: str) -> LabelledImages:
        """Single images of the seen labels."""
        seen = self.config.seen
        return LabelledImages(self.bank, self.characters[:seen], self.turns[:seen], drawings, seed=seed, stream=stream)


class Stream(NamedTuple):
    """A sequence of labels and drawings to come, in one label space."""

    ys: Int[Tensor, " time"]
    drawings: Int[Tensor, " time"]
    occurrence: Int[Tensor, " time"]
    """How many times the label has come by then, this time included."""


@dataclass(frozen=True)
class FewShotConfig:
    """The label space of few-shot learning; the defaults are the paper's where it states them."""

    test_characters: int = 1123
    """Characters in the test, in four turns each: 4492 labels (paper: «4K»)."""
    validation_characters: int = 50
    """Others, held out to choose settings by (paper: silent); those left train the embedding."""
    passes: int = 4
    """Drawings of each label in the order `passes`: up to 3-shot (paper: 1, 2 and 3-shot)."""
    mixed: int = 10
    """Drawings of each label in the order `mixed`."""


class FewShotLabels:
    """Turned characters: labels to train an embedding with, and others to validate and to test on; always the same.

    With fewer characters than Omniglot has, all parts are smaller in proportion.
    """

    def __init__(self, config: FewShotConfig, characters: Characters, device: torch.device | str = "cpu"):
        order = np.random.default_rng(SPLIT_SEED).permutation(len(characters))
        tested, validated = (
            round(len(characters) * some / OMNIGLOT_CLASSES)
            for some in (config.test_characters, config.validation_characters)
        )
        self.config = config
        self.bank = SmallImages(characters.images(order), device)
        labels = torch.arange(TURNS * len(order), device=self.bank.device)
        self.characters, self.turns = labels // TURNS, labels % TURNS
        self.train_labels = TURNS * (len(order) - tested - validated)
        self.first = {"validation": self.train_labels, "test": self.train_labels + TURNS * validated}
        self.count = {"validation": TURNS * validated, "test": TURNS * tested}

    def images(self, times: int, *, seed: int, stream: str) -> LabelledImages:
        """Single images of the training labels, all drawings of them; `times` as in `LabelledImages`."""
        n, drawings = self.train_labels, torch.arange(self.bank.drawings, device=self.bank.device)
        return LabelledImages(
            self.bank, self.characters[:n], self.turns[:n], drawings, seed=seed, stream=stream, times=times
        )

    def draw(self, part: str, ys: Int[Tensor, "*any"], drawings: Int[Tensor, "*any"]) -> Float[Tensor, "*any 784"]:
        """Images of the labels of a part, `validation` or `test`, which are numbered from 0."""
        at = ys + self.first[part]
        return self.bank.draw(self.characters[at], drawings, self.turns[at])

    def stream(self, part: str, order: str, seed: int) -> Stream:
        """All labels of a part, `validation` or `test`, in the order `passes` or `mixed` of the module's reading notes.

        Raises ValueError for another order.
        """
        if order not in ("passes", "mixed"):
            raise ValueError(f"there is no order {order!r}; known: passes, mixed")
        labels, device = self.count[part], self.bank.device
        random = generator(seed, f"few-shot {part} {order}", 0, device)
        times = self.config.passes if order == "passes" else self.config.mixed
        which = torch.rand(labels, self.bank.drawings, generator=random, device=device).argsort(1)
        if order == "passes":
            each = [torch.randperm(labels, generator=random, device=device) for _ in range(times)]
            ys = torch.cat(each)
            occurrence = torch.arange(1, times + 1, device=device).repeat_interleave(labels)
        else:
            ys = torch.arange(labels, device=device).repeat(times)
            ys = ys[torch.randperm(len(ys), generator=random, device=device)]
            occurrence = occurrence_numbers(ys)
        return Stream(ys, which[ys, occurrence - 1], occurrence)


def occurrence_numbers(ys: Int[Tensor, " time"]) -> Int[Tensor, " time"]:
    """For each step, how many times its label has come by then, this time included."""
    by_label = torch.sort(ys, stable=True)
    first = torch.searchsorted(by_label.values, by_label.values)  # where the label's run begins
    numbers = torch.empty_like(ys)
    numbers[by_label.indices] = torch.arange(len(ys), device=ys.device) - first + 1
    return numbers
