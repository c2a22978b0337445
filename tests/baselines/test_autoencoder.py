"""The autoencoder against layers by hand, and its training: what it learns, keeps and goes on from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.autoencoder import Autoencoder, AutoencoderConfig
from lib.experiments.runs import fresh
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.tasks.reconstruction import ReconstructionTask
from lib.training import TrainingConfig, evaluate, train
from lib.training.checkpoint import load_checkpoint
from tests.cases import random_cases, seeds
from tests.tasks.drawings import strokes
from tests.training.tiny import same, weights_of

SMALL = AutoencoderConfig(hidden=20, bottleneck=8)
BRIEF = TrainingConfig(updates=8, batch_size=2, log_every=2, validate_every=4, validation_batches=1, checkpoint_every=4)


def build_autoencoder(config: AutoencoderConfig, seed: int) -> Autoencoder:
    return fresh(lambda: Autoencoder(config), seed)


def train_autoencoder(config: AutoencoderConfig, training: TrainingConfig, *samplers, seed: int, **options):
    autoencoder = build_autoencoder(config, seed)
    return autoencoder, train(autoencoder, ReconstructionTask(*samplers), training, unroll="plain", **options)


@pytest.fixture(scope="module")
def samplers() -> tuple[EpisodeSampler, EpisodeSampler]:
    """Of characters to train on, and of others to validate on."""
    images = strokes(30, 20)
    banks = ImageBank(images[:24]), ImageBank(images[24:])
    return tuple(EpisodeSampler(bank, EpisodeConfig(), seed=0, stream="images") for bank in banks)


@random_cases(20)
@given(seeds, st.integers(1, 5), st.integers(1, 5), st.integers(1, 5))
def test_it_agrees_with_layers_by_hand(seed, features, hidden, bottleneck):
    autoencoder = build_autoencoder(AutoencoderConfig(features, hidden, bottleneck), seed).double()
    xs = torch.rand(2, 3, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    own = [p.detach().numpy() for p in autoencoder.parameters()]
    assert len(own) == 12

    def leaky(values):
        return np.where(values > 0, values, 0.01 * values)

    def layers(values, weights):
        first = leaky(values @ weights[0].T + weights[1])
        second = leaky(first @ weights[2].T + weights[3])
        return second @ weights[4].T + weights[5]

    encoded = layers(xs.numpy(), own[:6])
    np.testing.assert_allclose(autoencoder.encode(xs).detach(), encoded, atol=1e-9)
    np.testing.assert_allclose(autoencoder(xs).detach(), layers(encoded, own[6:]), atol=1e-9)


def test_its_sizes_are_the_papers():
    widths = [tuple(p.shape) for p in Autoencoder(AutoencoderConfig()).parameters() if p.ndim == 2]
    assert widths == [(200, 400), (200, 200), (32, 200), (200, 32), (200, 200), (400, 200)]


def cross_entropy(ink: torch.Tensor, xs: torch.Tensor) -> float:
    """Mean over pixels, in nats; xlogy has 0 log 0 = 0."""
    return -(torch.xlogy(xs, ink) + torch.xlogy(1 - xs, 1 - ink)).mean().item()


def test_it_learns_to_reconstruct_characters_that_it_has_not_seen(samplers):
    """Better than the best that is the same for all, the mean image."""
    training = TrainingConfig(
        updates=200,
        batch_size=4,
        learning_rate=1e-3,
        log_every=100,
        validate_every=100,
        validation_batches=1,
        checkpoint_every=100,
    )
    autoencoder, result = train_autoencoder(AutoencoderConfig(), training, *samplers, seed=0, progress=False)
    unseen = samplers[1].batch(0, 16)
    error = evaluate(autoencoder, ReconstructionTask(*samplers), samplers[1], batches=1)["loss"]
    found = autoencoder(unseen.xs).sigmoid().detach()
    assert error == pytest.approx(cross_entropy(found, unseen.xs), rel=1e-3)
    # The squared error: a cross-entropy of grey pixels is not 0 even where all is right.
    ratio = (found - unseen.xs).square().mean() / unseen.xs.var(dim=(0, 1), correction=0).mean()
    assert ratio < 0.95
    assert result.complete
    assert [line["validation"]["loss"] for line in result.log][-1] == pytest.approx(error, rel=0.2)
    assert not autoencoder.training


def test_an_interrupted_training_ends_as_an_uninterrupted_one(samplers, tmp_path):
    whole, _ = train_autoencoder(SMALL, BRIEF, *samplers, seed=0, progress=False)

    class Interrupted(Exception):
        pass

    def interrupt(line):
        if line["update"] == 6:  # the last checkpoint is of update 4
            raise Interrupted

    with pytest.raises(Interrupted):
        train_autoencoder(SMALL, BRIEF, *samplers, seed=0, folder=tmp_path, progress=False, on_log=interrupt)
    resumed, result = train_autoencoder(SMALL, BRIEF, *samplers, seed=0, folder=tmp_path, progress=False)
    assert same(weights_of(whole), weights_of(resumed))
    assert [line["update"] for line in result.log] == [2, 4, 6, 8]
    kept = build_autoencoder(SMALL, seed=5)
    load_checkpoint(tmp_path / "checkpoint.safetensors", kept)
    xs = samplers[1].batch(0, 1).xs
    assert torch.equal(kept.encode(xs), whole.encode(xs))
