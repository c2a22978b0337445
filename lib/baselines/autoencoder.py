"""The autoencoder whose bottleneck gives the nearest-neighbour baseline of Santoro et al. 2016 its «deep features».

Section 4.2: encoder and decoder of two 200-unit layers each with leaky ReLU, a bottleneck of 32 units, and three times
as much augmented data to train on as the others. Table 2 shows what one nearest neighbour makes of its features.

Reading notes. «Three times as much augmented data» is read as three times MANN's 100 000 minibatches of 16 episodes of
50 images, rotated, shifted and turned as in the episodes: 240 million images, their labels unused. The paper is silent
on the loss: the cross-entropy of pixels is taken, chosen over the squared error by one nearest neighbour's accuracy on
the validation classes, once, at the short profile. The bottleneck is linear, the output a sigmoid, and the slope of the
leaky ReLU is PyTorch's 0.01. The optimizer is the paper's for its networks (supplement 9.0.1). The paper says that this
network has significantly more parameters than MANN; with the sizes that it states for both, it has fewer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.tasks.episodes import Episodes, EpisodeSampler
from lib.tasks.seeds import generator
from lib.training import TrainingConfig, train
from lib.training.loop import TrainingResult


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


@dataclass
class LossTally:
    """The mean loss of some batches; kept on the device until asked."""

    loss: Tensor
    """(), the sum of the batches' losses."""
    batches: int = 0

    def add(self, logits: Tensor, batch: Episodes, loss: Float[Tensor, ""]) -> None:
        """Count a batch."""
        self.loss += loss.detach()
        self.batches += 1

    def summary(self) -> dict[str, float]:
        """The mean loss, nats a pixel."""
        return {"loss": self.loss.item() / max(self.batches, 1)}


@dataclass(frozen=True)
class ReconstructionTask:
    """The images of episodes, to be reconstructed: what `lib.training.train` asks of a task."""

    train: EpisodeSampler
    validation: EpisodeSampler

    @property
    def device(self) -> torch.device:
        """Where the batches are made."""
        return self.train.bank.device

    def loss(self, logits: Float[Tensor, "batch time features"], batch: Episodes) -> Float[Tensor, ""]:
        """Cross-entropy of the pixels, grey ones as probabilities of ink, in nats: the mean over all pixels."""
        return F.binary_cross_entropy_with_logits(logits, batch.xs)

    def tally(self) -> LossTally:
        """An empty score."""
        return LossTally(torch.zeros((), device=self.device))


def autoencoder_training(profile: str) -> TrainingConfig:
    """How to train in a profile: `paper` (hours on a CPU core), `short` (minutes) or `smoke` (seconds)."""
    paper = TrainingConfig(updates=3 * TrainingConfig.updates)
    if profile == "paper":
        return paper
    if profile == "short":
        return replace(paper, updates=6_000, validate_every=2_000)
    return replace(paper, updates=20, log_every=10, validate_every=20, validation_batches=1, checkpoint_every=10)


def build_autoencoder(config: AutoencoderConfig, seed: int) -> Autoencoder:
    """An autoencoder with fresh weights, a function of (config, seed): PyTorch's default initialisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "autoencoder weights", 0).initial_seed())
        return Autoencoder(config)


def train_autoencoder(
    config: AutoencoderConfig,
    training: TrainingConfig,
    episodes: EpisodeSampler,
    validation: EpisodeSampler,
    *,
    seed: int,
    folder: Path | None = None,
    identity: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Autoencoder, TrainingResult]:
    """Train an autoencoder on the images of `episodes`, going on from the checkpoint in `folder` if there is one.

    episodes: of the classes to train on; they and the weights follow from the seed. validation: of other classes, for
    the log. folder, identity, options: as `lib.training.train` has them.

    Returns the autoencoder, ready to `encode`, and where its training stands. Raises what `lib.training.train` raises.
    """
    autoencoder = build_autoencoder(config, seed).to(episodes.bank.device)
    task = ReconstructionTask(episodes, validation)
    result = train(autoencoder, task, training, folder=folder, identity=identity, unroll="plain", **options)
    return autoencoder, result
