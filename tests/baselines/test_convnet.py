"""The network of images against naive loops, and what it is to know some labels only."""

import numpy as np
import pytest
import torch
from hypothesis import given

from lib.baselines.convnet import ConvNet, ConvNetConfig, KnownLabels
from lib.experiments.runs import fresh
from tests.cases import normal, random_cases, seeds


def naive_module(image, weights, mean, variance, gain, bias):
    """One module on (channels, side, side): 3 x 3 filters at each second pixel, then normalised, then a ReLU."""
    channels, side, _ = image.shape
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weights), (side + 1) // 2, (side + 1) // 2))
    for f in range(len(weights)):
        for i in range(out.shape[1]):
            for j in range(out.shape[2]):
                out[f, i, j] = (padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weights[f]).sum()
    shape = (-1, 1, 1)
    out = (out - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 1e-5)
    return np.maximum(out * gain.reshape(shape) + bias.reshape(shape), 0)


@random_cases(5)
@given(seeds)
def test_two_modules_are_those_of_naive_loops(seed):
    network = fresh(lambda: ConvNet(ConvNetConfig(labels=3, filters=2, modules=2)), seed).double()
    network(torch.tensor(np.abs(normal(seed, 4, 784))))  # moves the statistics away from 0 and 1
    network.eval()
    image = np.abs(normal(seed + 1, 784))
    expected = image.reshape(1, 28, 28)
    parts = list(network.layers)
    for convolution, normalisation in ((parts[0], parts[1]), (parts[3], parts[4])):
        arrays = [convolution.weight, normalisation.running_mean, normalisation.running_var]
        arrays += [normalisation.weight, normalisation.bias]
        expected = naive_module(expected, *(each.detach().numpy() for each in arrays))
    h = expected.mean((1, 2))
    with torch.no_grad():
        np.testing.assert_allclose(network.embed(torch.tensor(image)).numpy(), h, atol=1e-10)
        logits = network.to_logits.weight.numpy() @ h + network.to_logits.bias.numpy()
        np.testing.assert_allclose(network(torch.tensor(image)).numpy(), logits, atol=1e-10)


@pytest.mark.parametrize(("halving", "left"), [("stride", 2), ("max-pool", 1)])
def test_the_sizes_are_those_of_finn_et_al(halving, left):
    network = ConvNet(ConvNetConfig(halving=halving)).eval()
    assert network.hidden_size == 64
    assert network.layers[:-2](torch.zeros(2, 1, 28, 28)).shape == (2, 64, left, left)
    hs, state = network.hidden(torch.zeros(2, 5, 784))
    assert hs.shape == (2, 5, 64)
    assert state is None
    assert network.scores(hs).shape == (2, 5, 350)
    wide = ConvNet(ConvNetConfig(labels=0, width=256, halving=halving)).eval()
    assert wide.embed(torch.zeros(3, 784)).shape == (3, 256)
    assert not hasattr(wide, "to_logits")


def test_another_halving_is_refused():
    with pytest.raises((ValueError, TypeError), match="max-pool"):
        ConvNetConfig(halving="mean")


def test_an_unknown_label_gets_the_mean_of_those_never_trained_and_only_for_a_while():
    network = fresh(lambda: ConvNet(ConvNetConfig(labels=6, filters=3)), 0).eval()
    some = KnownLabels(network, seen=4)
    hs = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    plain = network.scores(hs)
    assert torch.equal(some.scores(hs), plain)
    known = torch.tensor([True, False, True, True, False, False])
    with some.only(known):
        found = some.scores(hs)
    assert torch.equal(found[..., known], plain[..., known])
    for label in (1, 4, 5):
        torch.testing.assert_close(found[..., label], (plain[..., 4] + plain[..., 5]) / 2)
    with pytest.raises(RuntimeError), some.only(known):
        raise RuntimeError
    assert torch.equal(some.scores(hs), plain)
