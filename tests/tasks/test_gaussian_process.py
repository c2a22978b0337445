"""Functions drawn from a Gaussian process: their statistics, their determinism, and the tally of likelihoods."""

import math

import numpy as np
import pytest
import torch

from lib.tasks.gaussian_process import FunctionSampler, ProcessConfig, RegressionTask, cholesky_factor, kernel


def sampler(stream: str = "train", seed: int = 0, **process) -> FunctionSampler:
    return FunctionSampler(ProcessConfig(**process), seed=seed, stream=stream)


def test_the_kernel_is_the_formula():
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(2, n, 3, generator=random, dtype=torch.float64) for n in (4, 5))
    found = kernel(a, b, 0.7)
    for i, j, k in np.ndindex(2, 4, 5):
        squares = sum(float(a[i, j, d] - b[i, k, d]) ** 2 for d in range(3))
        assert found[i, j, k].item() == pytest.approx(math.exp(-squares / (2 * 0.7**2)), rel=1e-12)


def test_the_factor_is_of_the_covariance_with_its_noise():
    xs = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    factor = cholesky_factor(xs, ProcessConfig(dimensions=2, noise=0.3))
    torch.testing.assert_close(factor @ factor.mT, kernel(xs, xs, 1.0) + 0.09 * torch.eye(6, dtype=torch.float64))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_inputs_fill_the_box(dimensions):
    xs, ys = sampler(dimensions=dimensions, length=40, box=1.5).batch(0, 50)
    assert xs.shape == (50, 40, dimensions)
    assert ys.shape == (50, 40)
    assert xs.dtype == ys.dtype == torch.float32
    assert xs.abs().max() <= 1.5
    for d in range(dimensions):
        quarters = torch.histc(xs[..., d], 4, -1.5, 1.5) / 2000
        torch.testing.assert_close(quarters, torch.full((4,), 0.25), atol=0.05, rtol=0)


def test_values_covary_as_the_kernel_says():
    """Products of values of two steps, by the distance of their inputs; 1 + noise² for a value with itself."""
    noise, length_scale = 0.5, 0.8
    xs, ys = sampler(length=2, noise=noise, length_scale=length_scale).batch(0, 40_000)
    assert ys.mean().item() == pytest.approx(0, abs=0.02)
    assert ys.square().mean().item() == pytest.approx(1 + noise**2, rel=0.03)
    distance = (xs[:, 0] - xs[:, 1]).abs().squeeze(1)
    product = ys[:, 0] * ys[:, 1]
    for low in (0.0, 0.5, 1.0, 2.0):
        near = (distance >= low) & (distance < low + 0.25)
        expected = torch.exp(-distance[near].square() / (2 * length_scale**2)).mean().item()
        assert product[near].mean().item() == pytest.approx(expected, abs=0.06)


def test_a_batch_is_a_function_of_seed_stream_and_number():
    first = sampler()
    expected = first.batch(3, 4)
    first.batch(4, 4)
    torch.rand(5)
    for found in (first.batch(3, 4), sampler().batch(3, 4)):
        assert torch.equal(found.xs, expected.xs)
        assert torch.equal(found.ys, expected.ys)
    for other in (sampler().batch(4, 4), sampler("test").batch(3, 4), sampler(seed=1).batch(3, 4)):
        assert not torch.equal(other.xs, expected.xs)
        assert not torch.equal(other.ys, expected.ys)


def test_each_episode_of_a_batch_is_a_function_of_its_own():
    xs, ys = sampler().batch(0, 3)
    assert len({tuple(row) for row in ys.tolist()}) == len({tuple(row) for row in xs.flatten(1).tolist()}) == 3


def test_no_noise_is_an_error_that_says_why():
    with pytest.raises(ValueError, match=r"noise must be above 0, got 0\.0: .*likelihoods have no bound"):
        ProcessConfig(noise=0.0)


def test_the_tally_is_the_mean_by_sample_counted_by_hand():
    parts = {name: sampler(name, length=5) for name in ("train", "validation", "test")}
    task = RegressionTask(**parts)
    tally = task.tally()
    random = torch.Generator().manual_seed(0)
    expected, losses = [[] for _ in range(5)], []
    for index, size in enumerate((3, 3)):
        batch = task.train.batch(index, size)
        outputs = torch.randn(size, 5, 2, generator=random)
        losses.append(task.loss(outputs, batch))
        tally.add(outputs, batch, losses[-1])
        for b, t in np.ndindex(size, 5):
            mean, raw = outputs[b, t].tolist()
            deviation = math.sqrt(math.log1p(math.exp(raw)) + 1e-4)
            density = math.exp(-0.5 * ((batch.ys[b, t].item() - mean) / deviation) ** 2) / deviation
            expected[t].append(-math.log(density / math.sqrt(2 * math.pi)))
    summary = tally.summary()
    assert summary["negative_log_likelihood"] == pytest.approx([np.mean(each) for each in expected], rel=1e-5)
    assert summary["loss"] == pytest.approx(np.mean([loss.item() for loss in losses]), rel=1e-5)
    assert task.device == torch.device("cpu")
