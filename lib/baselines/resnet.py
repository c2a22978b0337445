"""A residual network of pictures (He et al. 2016, the first form), whose last layer but one is MbPA's embedding.

Sprechmann et al. 2018, section 4.2: «As a parametric model we used a ResnetV1 model», «the penultimate layer of the
network as the embedding network f_γ», «the last fully connected layer [...] to initialise the parametric model g_θ».
The blocks are the basic ones, of two convolutions; the mean over the picture is the penultimate layer.
"""

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class ResNetConfig:
    """Sizes of the network; the defaults are those of ResNet-18 (the paper does not say which it used)."""

    labels: int = 50
    """Classes of the last layer."""
    channels: int = 3
    """Of a picture."""
    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each stage; each but the first halves the picture. The last is the length of the embedding."""
    blocks: int = 2
    """Of each stage."""
    first_stride: int = 2
    """Of the first convolution."""
    pooled: bool = True
    """Whether max-pooling halves the picture after the first convolution."""


class Block(nn.Module):
    """Two convolutions beside a way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.around = nn.Identity()
        if stride != 1 or inputs != outputs:
            projected = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.around = nn.Sequential(projected, nn.BatchNorm2d(outputs))

    def forward(self, xs: Float[Tensor, "batch inputs height width"]) -> Float[Tensor, "batch outputs *size"]:
        """ReLU of the sum of both ways."""
        return F.relu(self.path(xs) + self.around(xs))


class ResNet(nn.Module):
    """Pictures to the embedding f_γ(x), and from there to logits."""

    def __init__(self, config: ResNetConfig):
        super().__init__()
        self.config, inputs = config, config.widths[0]
        first = nn.Conv2d(config.channels, inputs, 3, config.first_stride, padding=1, bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm2d(inputs), nn.ReLU()]
        if config.pooled:
            layers.append(nn.MaxPool2d(2))
        for stage, width in enumerate(config.widths):
            for block in range(config.blocks):
                layers.append(Block(inputs, width, 2 if stage and not block else 1))
                inputs = width
        self.embed = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.output = nn.Linear(inputs, config.labels)

    def forward(
        self, xs: Float[Tensor, "batch channels height width"], ys: Tensor | None = None, unroll: Any = None
    ) -> Float[Tensor, "batch labels"]:
        """Logits. The training loop hands every learner labels `ys` and `unroll`: unused here."""
        return self.output(self.embed(xs))
