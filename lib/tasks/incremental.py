"""Classes that a network learns, and new ones that it meets afterwards (Sprechmann et al. 2018, section 4.2).

A random half of the classes is old: a network is trained on them. Then pictures of all classes are shown, over and
over. A split says which classes are old; each class's pictures to train on are parted once into those that are shown
and those by which settings are chosen.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lib.data.characters import load_characters
from lib.data.pictures import load_pictures, make_pictures
from lib.tasks.online_images import Labelled, SmallImages
from lib.tasks.seeds import generator

PARTS = ("train", "validation", "test")
TESTED_DRAWERS = 4  # of Omniglot's twenty


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures of many classes in three parts.

    images: uint8 (N, channels, S, S). labels: (N,). parts: name to positions among them. class_names: by label.
    mirrored: whether a picture's mirror image shows the same thing. data: name, digest and whether it is a stand-in.
    """

    images: Tensor
    labels: Tensor
    parts: dict[str, Tensor]
    class_names: tuple[str, ...]
    mirrored: bool
    data: dict[str, Any]

    @property
    def classes(self) -> int:
        """How many."""
        return len(self.class_names)

    def of(self, part: str, classes: Int[Tensor, " some"] | None = None) -> Int[Tensor, " found"]:
        """Positions of a part's pictures, of some classes or of all."""
        positions = self.parts[part]
        if classes is None:
            return positions
        return positions[torch.isin(self.labels[positions], classes.to(self.labels.device))]


def picture_set(name: str, size: int, validation: float, device: torch.device | str = "cpu") -> PictureSet:
    """A data set by name: `omniglot`, `stand-in`, or a folder of pictures such as `tiny-imagenet-100`.

    size: pixels of a side (Omniglot's are always 28). validation: share of each class's pictures to train on by which
    settings are chosen. Omniglot's last drawers are the test.
    """
    if name == "omniglot":
        characters = load_characters()
        small = SmallImages(characters.images()).pixels
        labels = np.repeat(np.arange(len(characters)), characters.drawers)
        tested = np.tile(np.arange(characters.drawers) >= characters.drawers - TESTED_DRAWERS, len(characters))
        images, names, mirrored = small.flatten(0, 1).unsqueeze(1), characters.class_names, False
        source, digest = characters, characters.digest
    else:
        pictures = make_pictures(size) if name == "stand-in" else load_pictures(name, size)
        labels, tested = pictures.labels, np.arange(len(pictures)) >= pictures.training
        with warnings.catch_warnings():  # of an array that cannot be written to: it is only read
            warnings.simplefilter("ignore", UserWarning)
            images = torch.from_numpy(pictures.images).permute(0, 3, 1, 2)
        names, mirrored, source, digest = pictures.class_names, not pictures.is_standin, pictures, pictures.digest
    order = np.random.default_rng(0).permutation(len(labels))  # who is held out: the same for every split and seed
    held_out = np.zeros(len(labels), bool)
    for label in range(len(names)):
        own = order[(labels[order] == label) & ~tested[order]]
        held_out[own[: max(1, round(validation * len(own)))]] = True
    masks = {"train": ~tested & ~held_out, "validation": held_out, "test": tested}
    parts = {part: torch.from_numpy(np.flatnonzero(mask)).to(device) for part, mask in masks.items()}
    data = {"name": source.name, "sha256": digest, "is_standin": source.is_standin}
    return PictureSet(images.to(device), torch.from_numpy(labels).to(device), parts, tuple(names), mirrored, data)


def split_classes(classes: int, split: int) -> tuple[Int[Tensor, " old"], Int[Tensor, " new"]]:
    """Old and new classes, in rising order: halves of a random order of all, which the number of the split gives."""
    order = torch.randperm(classes, generator=generator(split, "old and new classes", 0))
    return order[: classes // 2].sort().values, order[classes // 2 :].sort().values


def as_floats(images: Tensor) -> Float[Tensor, "batch channels size size"]:
    """uint8 pictures as numbers from -1 to 1."""
    return images.float() / 127.5 - 1


class ClassPictures:
    """Pictures of some classes, numbered from 0 on, as batches to train on or to validate on.

    seed: of what is drawn; None: the pictures as they are, the n-th batch is the n-th in a fixed order. shift: pixels
    by which a picture that is trained on is moved at most, in either direction.
    """

    def __init__(self, pictures: PictureSet, part: str, classes: Tensor, seed: int | None, shift: int = 0):
        self.pictures, self.seed, self.shift = pictures, seed, shift
        self.positions = pictures.of(part, classes)
        self.number = torch.full((pictures.classes,), -1, device=self.positions.device)
        self.number[classes.to(self.number.device)] = torch.arange(len(classes), device=self.number.device)

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.positions.device

    def batch(self, n: int, size: int) -> Labelled:
        """The n-th batch. To train on: pictures drawn at random, moved, and mirrored if they may be."""
        if self.seed is None:
            shuffled = torch.randperm(len(self.positions), generator=generator(0, "held out pictures", 0))
            at = self.positions[shuffled.roll(-n * size)[:size].to(self.device)]
            return Labelled(as_floats(self.pictures.images[at]), self.number[self.pictures.labels[at]])
        random = generator(self.seed, "pictures", n)
        at = self.positions[torch.randint(len(self.positions), (size,), generator=random).to(self.device)]
        xs = as_floats(self.pictures.images[at])
        flips = torch.rand(size, generator=random).to(self.device) < 0.5
        if self.pictures.mirrored:
            xs = torch.where(flips.view(-1, 1, 1, 1), xs.flip(3), xs)
        side, shifts = xs.shape[-1], torch.randint(2 * self.shift + 1, (2, size), generator=random).to(self.device)
        padded = F.pad(xs, [self.shift] * 4, value=-1.0 if xs.shape[1] == 1 else 0.0)
        rows, columns = (shift.unsqueeze(1) + torch.arange(side, device=self.device) for shift in shifts)
        picture = torch.arange(size, device=self.device).view(-1, 1, 1)
        moved = padded[picture, :, rows.unsqueeze(2), columns.unsqueeze(1)]
        return Labelled(moved.permute(0, 3, 1, 2), self.number[self.pictures.labels[at]])
