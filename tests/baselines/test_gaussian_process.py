"""The exact Gaussian process, against scikit-learn's."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from lib.baselines import gaussian_process
from lib.tasks.gaussian_process import FunctionSampler, ProcessConfig

CASES = [ProcessConfig(1, length=8), ProcessConfig(3, length=8, length_scale=0.6, noise=0.3)]


def sklearn_predictions(process: ProcessConfig, xs, ys, queries) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of noisy values; the variance that scikit-learn gives is of the function without noise."""
    model = GaussianProcessRegressor(RBF(process.length_scale), alpha=process.noise**2, optimizer=None)
    if len(xs):
        model.fit(xs.double().numpy(), ys.double().numpy())
    mean, deviation = model.predict(queries.double().numpy(), return_std=True)
    return np.atleast_1d(mean), np.atleast_1d(deviation) ** 2 + process.noise**2


def episodes(process: ProcessConfig):
    return FunctionSampler(process, seed=0, stream="test")


@pytest.mark.parametrize("process", CASES)
def test_predictions_are_scikit_learns(process):
    xs, ys = episodes(process).batch(0, 2)
    queries = episodes(process).batch(1, 2).xs
    mean, variance = gaussian_process.predict(process, xs, ys, queries)
    for b in range(2):
        expected = sklearn_predictions(process, xs[b], ys[b], queries[b])
        np.testing.assert_allclose(mean[b], expected[0], atol=1e-9)
        np.testing.assert_allclose(variance[b], expected[1], atol=1e-9)


@pytest.mark.parametrize("process", CASES)
def test_predictions_in_sequence_have_seen_the_samples_before_and_no_other(process):
    xs, ys = episodes(process).batch(0, 2)
    mean, variance = gaussian_process.predict_in_sequence(process, xs, ys)
    assert mean[:, 0].abs().max() < 1e-12
    for b, t in np.ndindex(2, process.length):
        expected = sklearn_predictions(process, xs[b, :t], ys[b, :t], xs[b, t : t + 1])
        np.testing.assert_allclose(mean[b, t], expected[0][0], atol=1e-9)
        np.testing.assert_allclose(variance[b, t], expected[1][0], atol=1e-9)


def test_the_likelihood_by_sample_is_of_these_predictions():
    process, sampler = CASES[0], episodes(CASES[0])
    found = gaussian_process.negative_log_likelihood(sampler, batches=2, batch_size=3)
    expected = []
    for index in range(2):
        xs, ys = sampler.batch(index, 3)
        mean, variance = gaussian_process.predict_in_sequence(process, xs, ys)
        expected.append(-norm.logpdf(ys.double(), mean, variance.sqrt()))
    assert found == pytest.approx(np.concatenate(expected).mean(0), rel=1e-9)


def test_no_other_hyper_parameters_predict_better():
    """On many functions the true process has the least negative log-likelihood: it is the one that drew them."""
    process = ProcessConfig(length=20)
    sampler = episodes(process)
    best = np.mean(gaussian_process.negative_log_likelihood(sampler, 4, 50))
    for wrong in (ProcessConfig(length=20, length_scale=0.7), ProcessConfig(length=20, noise=0.2)):
        total = []
        for index in range(4):
            xs, ys = sampler.batch(index, 50)
            mean, variance = gaussian_process.predict_in_sequence(wrong, xs, ys)
            total.append(-torch.distributions.Normal(mean, variance.sqrt()).log_prob(ys.double()).mean().item())
        assert np.mean(total) > best + 0.02
