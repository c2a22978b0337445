"""The autoencoder whose bottleneck gives the nearest-neighbour baseline of Santoro et al. 2016 its «deep features».

Section 4.2: encoder and decoder of two 200-unit layers each with leaky ReLU, a bottleneck of 32 units, and three times
as much augmented data to train on as the others. Table 2 shows what one nearest neighbour makes of its features.

Reading notes. «Three times as much augmented data» is read as three times MANN's 100 000 minibatches of 16 episodes of
50 images, rotated, shifted and turned as in the episodes: 240 million images, their labels unused. The paper is silent
on the loss: the cross-entropy of pixels is taken; it gave a better nearest neighbour than the squared error on the
validation classes, in one try of 6000 updates each that no record is kept of. The bottleneck is linear, the output a
sigmoid, and the slope of the leaky ReLU is PyTorch's 0.01. The optimizer is the paper's for its networks (supplement
9.0.1). The paper says that this network has significantly more parameters than MANN; with the sizes that it states for
both, it has fewer.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder; the defaults are the paper's."""

    features: int = 400
    """Length of an image: 20 x 20 pixels."""
    hidden: int = 200
    """Units of each of the two hidden layers of the encoder, and of the decoder."""
    bottleneck: int = 32
    """Units of the bottleneck: the length of the features."""


class Autoencoder(nn.Module):
    """Images in [0, 1] to features and back."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config = config
        self.encoder = _three_layers(config.features, config.hidden, config.bottleneck)
        self.decoder = _three_layers(config.bottleneck, config.hidden, config.features)

    def encode(self, xs: Float[Tensor, "*any features"]) -> Float[Tensor, "*any bottleneck"]:
        """The features of images: the bottleneck's units."""
        return self.encoder(xs)

    def forward(
        self,
        xs: Float[Tensor, "*any features"],
        ys: Int[Tensor, "*any"] | None = None,
        unroll: Callable | None = None,
    ) -> Float[Tensor, "*any features"]:
        """Logits of the pixels, as the features tell them.

        The training loop hands every learner labels `ys` and `unroll`: unused here.
        """
        return self.decoder(self.encode(xs))


def _three_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, outputs),
    )
