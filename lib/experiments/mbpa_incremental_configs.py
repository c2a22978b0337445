"""The configs of Sprechmann et al. 2018, table 1 and figures 4 to 7: data sets, the network, what is tuned."""

import itertools
from dataclasses import dataclass, field, replace

from lib.baselines.resnet import ResNetConfig
from lib.training import TrainingConfig

FITS = tuple(itertools.product((20, 50, 100), (1, 5, 10, 20), (3e-4, 1e-3, 3e-3, 1e-2)))
NEIGHBOURS = (1, 5, 20, 50, 100, 200)
SHARES = (0.1, 0.3, 0.5, 0.7, 0.9)
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)


@dataclass(frozen=True)
class IncrementalConfig:
    """One data set; the defaults are the paper profile's for Tiny ImageNet."""

    pictures: str = "tiny-imagenet-100"
    """The data set, see `lib.tasks.incremental.picture_set` (paper: ImageNet)."""
    size: int = 64
    """Pixels of a side."""
    held_out: float = 0.1
    """Share of each class's pictures to train on by which settings are chosen."""
    network: ResNetConfig = field(default_factory=ResNetConfig)
    """(paper: «a ResnetV1 model»)."""
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(
            updates=12_000,
            batch_size=128,
            learning_rate=2e-3,
            clip=10.0,
            log_every=100,
            validate_every=1_000,
            validation_batches=50,
            checkpoint_every=100,
            optimizer="adam",
            rate_falls_from=0.3,
        )
    )
    """Of the network, on the old classes (paper: silent)."""
    shift: int = 6
    """Pixels by which a picture that the network is trained on is moved at most."""
    batch_size: int = 128
    """Pictures of a minibatch while all classes are shown (paper: silent)."""
    rates: tuple[float, ...] = RATES
    """Of the last layer's optimizer, Adam, to choose from (paper: silent)."""
    epochs: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
    """When the models are tested, in passes through all pictures that are shown."""
    memory: float = 1.0
    """Pictures that the memory has room for, as a share of those that are shown (paper: tuned; 400 000 and more are
    alike, a third of ImageNet)."""
    scarce: float = 1.0
    """What is shown of half the new classes, as a share (paper: a tenth in figure 5)."""
    fits: tuple[tuple[int, int, float], ...] = FITS
    """(K, T, α) of MbPA to choose from (paper: tuned, values not given but for K = 50 in figure 7)."""
    neighbours: tuple[int, ...] = NEIGHBOURS
    """K to choose from, of the memory alone and of the mixture."""
    shares: tuple[float, ...] = SHARES
    """λ of the mixture to choose from."""
    tuned_on: int = 2_000
    """Validation pictures on which settings are chosen."""
    tested_on: int = 5_000
    """Test pictures, at most."""


def _omniglot(config: IncrementalConfig) -> IncrementalConfig:
    """1623 characters of twenty drawings: a smaller network, and fewer neighbours, since a class has fourteen."""
    network = replace(config.network, channels=1, widths=(32, 64, 128), blocks=1, first_stride=1)
    return replace(
        config,
        pictures="omniglot",
        size=28,
        held_out=0.125,
        network=network,
        training=replace(config.training, updates=4_000, validate_every=500, validation_batches=20),
        shift=2,
        fits=tuple(itertools.product((10, 20, 50), (1, 5, 10, 20), (3e-4, 1e-3, 3e-3, 1e-2))),
        neighbours=(1, 2, 5, 10, 20),
    )


TINY = IncrementalConfig()
CONFIGS = {
    "tiny-imagenet": TINY,
    "omniglot": _omniglot(TINY),
    # The folder `imagenet` in the data directory: train/<class>/ and val/<class>/. Decoded, it takes 16 GB.
    "imagenet": replace(
        TINY, pictures="imagenet", held_out=0.02, training=replace(TINY.training, updates=100_000), memory=1 / 3
    ),
}
UNBALANCED = {
    name: replace(config, scarce=0.1, epochs=(0.1, 0.5, 1.0, 3.0, 10.0, 20.0))
    for name, config in CONFIGS.items()
    if name != "imagenet"
}

BALANCED = {
    f"{name}-balanced": replace(CONFIGS[name], epochs=(0.1, 0.5, 1.0, 3.0, 10.0, 20.0, 30.0)) for name in UNBALANCED
}
"""What figure 5 is compared with, and as far as the text of section 4.2 goes."""


def in_profile(paper: IncrementalConfig, profile: str) -> IncrementalConfig:
    """A config of the paper profile, cut down to another."""
    if profile == "paper":
        return paper
    if profile == "short":
        tiny = paper.network.channels == 3
        small = replace(paper.network, widths=(32, 64, 128, 256) if tiny else (16, 32, 64), blocks=1)
        training = replace(paper.training, updates=3_500 if tiny else 2_000, validate_every=500)
        return replace(paper, network=small, training=training, tuned_on=500, tested_on=2_000)
    few = {"updates": 10, "batch_size": 16, "log_every": 5, "checkpoint_every": 5, "validate_every": 10}
    return replace(
        paper,
        pictures="stand-in",
        size=16,
        held_out=0.2,
        network=replace(paper.network, channels=3, widths=(8, 16), blocks=1),
        training=replace(paper.training, **few, validation_batches=1),
        shift=1,
        batch_size=32,
        rates=paper.rates[2:4],
        epochs=(0.1, 1.0, 3.0) if paper.scarce == 1 else (0.1, 1.0),
        fits=paper.fits[:2],
        neighbours=paper.neighbours[:2],
        shares=paper.shares[:2],
        tuned_on=40,
        tested_on=60,
    )
