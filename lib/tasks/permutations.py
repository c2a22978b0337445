"""Permuted MNIST: the same digits again and again, in another order of pixels for each task (Sprechmann et al., 4.1).

Tasks come one after the other and are never met again in training; the tests are on all tasks met so far. Which images
a task has to train on is drawn anew for each; tests show the same images in each task's order of pixels.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.data.mnist import Digits
from lib.tasks.seeds import generator


@dataclass(frozen=True)
class PermutationConfig:
    """How many tasks, and of how many images."""

    tasks: int = 20
    """Permutations, one after the other (paper: 20)."""
    examples: int = 10_000
    """To train on, of each task (paper: 10 000)."""
    validation: int = 1_000
    """To choose settings by, of each task; from the same part of MNIST, but never trained on."""
    test: int = 1_000
    """Of MNIST's test images, the first so many: each is tested in every task."""


class Images(NamedTuple):
    """Images of one task and what they are."""

    xs: Float[Tensor, "images 784"]
    """0 to 1, in the task's order of pixels."""
    ys: Int[Tensor, " images"]


class PermutedDigits:
    """The tasks of one seed. Raises ValueError if there are not as many digits as the config asks for."""

    def __init__(
        self,
        config: PermutationConfig,
        train: Digits,
        test: Digits,
        seed: int,
        device: torch.device | str = "cpu",
    ):
        needed = config.examples + config.validation
        if len(train) < needed or len(test) < config.test:
            raise ValueError(
                f"there are {len(train)} and {len(test)} digits, and {needed} to train on and validate with "
                f"and {config.test} to test on are asked for"
            )
        self.config, self.seed, self.device = config, seed, device
        self._pixels = {name: self._flat(part.images) for name, part in (("train", train), ("test", test))}
        self._labels = {
            name: torch.from_numpy(part.labels).to(device) for name, part in (("train", train), ("test", test))
        }
        # Never trained on by any task: held out before the tasks draw theirs.
        order = torch.randperm(len(train), generator=generator(seed, "held out", 0))
        self._held_out, self._others = order[: config.validation], order[config.validation :]

    def _flat(self, images) -> Float[Tensor, "images 784"]:
        return torch.from_numpy(images).to(self.device).flatten(1).float() / 255

    def permutation(self, task: int) -> Int[Tensor, "784"]:
        """The order of pixels of a task."""
        self._check(task)
        return torch.randperm(784, generator=generator(self.seed, "permutation", task)).to(self.device)

    def images(self, task: int, part: Literal["train", "validation", "test"]) -> Images:
        """The images of a task: to train on, to choose settings by, or to test on."""
        order = self.permutation(task)
        if part == "test":
            xs, ys = (each["test"][: self.config.test] for each in (self._pixels, self._labels))
            return Images(xs[:, order], ys)
        if part == "validation":
            chosen = self._held_out
        else:
            draws = torch.randperm(len(self._others), generator=generator(self.seed, "examples", task))
            chosen = self._others[draws[: self.config.examples]]
        chosen = chosen.to(self.device)
        return Images(self._pixels["train"][chosen][:, order], self._labels["train"][chosen])

    def batch(self, task: int, update: int, size: int, images: Images) -> Images:
        """A minibatch of a task's images for an update, drawn with replacement: a function of seed, task and update."""
        draws = generator(self.seed, f"batch of task {task}", update)
        at = torch.randint(len(images.ys), (size,), generator=draws).to(self.device)
        return Images(images.xs[at], images.ys[at])

    def _check(self, task: int) -> None:
        if not 0 <= task < self.config.tasks:
            raise ValueError(f"there is no task {task}: there are {self.config.tasks}, from 0 on")
