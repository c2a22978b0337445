"""The convolutional network of images that LMN adapts, and that MAML retunes (Shankar & Sarawagi 2018).

«A convolutional network, with the same configuration as used in» Finn, Abbeel & Levine 2017: four modules of a 3 x 3
convolution with 64 filters, batch normalisation and a ReLU. That paper halves the image of a module by max-pooling, but
says that on Omniglot it strides the convolutions instead, and so does this one by default. Of 28 x 28 pixels 2 x 2 are
left; their mean is the last layer, of 64 numbers.

It plugs into what adapts it by `hidden_size`, `labels`, `hidden(xs, state)` and `scores(hs)`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib.tasks.online_images import SIDE


@dataclass(frozen=True)
class ConvNetConfig:
    """Sizes of the network of images; the defaults are those of Finn et al. 2017 on Omniglot."""

    labels: int = 350
    """Classes of the softmax layer (paper: 250 seen and 100 unseen ones); 0 for an embedding alone."""
    filters: int = 64
    """Of each convolution (Finn et al.: 64)."""
    modules: int = 4
    """Convolutions, each of which halves the image (Finn et al.: 4)."""
    halving: Literal["stride", "max-pool"] = "stride"
    """How a module halves the image (Finn et al.: by stride on Omniglot, by max-pooling otherwise)."""
    width: int | None = None
    """Length of h_t where a linear layer makes it of all that is left of the image; None: the mean over its pixels."""

    def __post_init__(self):
        if self.halving not in ("stride", "max-pool"):
            raise ValueError(f"there is no halving {self.halving!r}; known: stride, max-pool")


class ConvNet(nn.Module):
    """Images to h_t, and h_t to logits (equation 1)."""

    def __init__(self, config: ConvNetConfig):
        super().__init__()
        self.config = config
        strides, layers, side, channels = config.halving == "stride", [], SIDE, 1
        for _ in range(config.modules):
            # Batch normalisation has a bias of its own.
            layers.append(nn.Conv2d(channels, config.filters, 3, stride=2 if strides else 1, padding=1, bias=False))
            layers += [nn.BatchNorm2d(config.filters), nn.ReLU()]
            if not strides:
                layers.append(nn.MaxPool2d(2))
            side, channels = (side + 1) // 2 if strides else side // 2, config.filters
        if config.width is None:
            layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        else:
            layers += [nn.Flatten(), nn.Linear(side * side * config.filters, config.width)]
            # Centred, or all cosines would be near 1 at first.
            layers.append(nn.BatchNorm1d(config.width, affine=False))
        self.layers = nn.Sequential(*layers)
        self.hidden_size, self.labels = config.width or config.filters, config.labels
        if config.labels:
            self.to_logits = nn.Linear(self.hidden_size, config.labels)

    def embed(self, xs: Float[Tensor, "*any 784"]) -> Float[Tensor, "*any hidden"]:
        """h_t of images, flat, in [0, 1]."""
        hs = self.layers(xs.reshape(-1, 1, SIDE, SIDE))
        return hs.view(*xs.shape[:-1], self.hidden_size)

    def hidden(
        self, xs: Float[Tensor, "batch time 784"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time hidden"], None]:
        """h_t of each step; images have no state."""
        return self.embed(xs), None

    def scores(self, hs: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any labels"]:
        """The logits β h + b of every label (equation 1, before its softmax)."""
        return self.to_logits(hs)

    def forward(
        self, xs: Float[Tensor, "*any 784"], ys: Int[Tensor, "*any"] | None = None, unroll: Any = None
    ) -> Float[Tensor, "*any labels"]:
        """Logits of images. The training loop hands every learner labels `ys` and `unroll`: unused here."""
        return self.scores(self.embed(xs))


class KnownLabels(nn.Module):
    """A trained network that can be made to forget some of its labels, so that they can play new ones.

    seen: the first labels, which it was trained on. A label that it does not know gets what the labels of which it was
    never shown an image get in the mean, once training has driven their scores down.
    """

    def __init__(self, network: ConvNet, seen: int):
        super().__init__()
        self.network, self.seen = network, seen
        self.hidden_size, self.labels = network.hidden_size, network.labels
        self.known: Tensor | None = None

    @contextmanager
    def only(self, known: Bool[Tensor, " labels"]) -> Iterator[None]:
        """Within it, no label is known but these."""
        self.known = known
        try:
            yield
        finally:
            self.known = None

    def hidden(
        self, xs: Float[Tensor, "batch time 784"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time hidden"], None]:
        """h_t of each step."""
        return self.network.hidden(xs, state)

    def scores(self, hs: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any labels"]:
        """The network's logits, those of unknown labels replaced."""
        logits = self.network.scores(hs)
        if self.known is None:
            return logits
        return torch.where(self.known, logits, logits[..., self.seen :].mean(-1, keepdim=True))

    def forward(
        self, xs: Float[Tensor, "*any 784"], ys: Int[Tensor, "*any"] | None = None, unroll: Any = None
    ) -> Float[Tensor, "*any labels"]:
        """Logits of images. `ys` and `unroll` are for learners that use them."""
        return self.scores(self.network.embed(xs))
