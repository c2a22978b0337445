"""The exact Gaussian process with the true hyper-parameters, to which Santoro et al. 2016 compare MANN: section 4.3.

All variances are those of a noisy value, noise² included: noisy values are what a learner is told and scored on.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lib.tasks.gaussian_process import FunctionSampler, ProcessConfig, cholesky_factor, kernel


def predict(
    process: ProcessConfig,
    xs: Float[Tensor, "batch seen dimensions"],
    ys: Float[Tensor, "batch seen"],
    queries: Float[Tensor, "batch asked dimensions"],
) -> tuple[Float[Tensor, "batch asked"], Float[Tensor, "batch asked"]]:
    """Mean and variance of the noisy value at each query, given the samples (xs, ys); float64."""
    xs, ys, queries = xs.double(), ys.double(), queries.double()
    factor = cholesky_factor(xs, process)
    # With K + noise² I = L Lᵀ and k the covariances with a query: mean kᵀ L⁻ᵀ L⁻¹ y, variance 1 - |L⁻¹ k|² + noise².
    across = torch.linalg.solve_triangular(factor, kernel(xs, queries, process.length_scale), upper=False)
    values = torch.linalg.solve_triangular(factor, ys.unsqueeze(2), upper=False)
    mean = (across * values).sum(1)
    return mean, 1 - across.square().sum(1) + process.noise**2


def predict_in_sequence(
    process: ProcessConfig, xs: Float[Tensor, "batch time dimensions"], ys: Float[Tensor, "batch time"]
) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time"]]:
    """Mean and variance of each noisy value y_t given x_t and the samples before it; float64.

    One Cholesky factor serves all steps: with L z = y, row t says y_t = (what the values before explain) + L_tt z_t,
    where z_t is standard normal and independent of them.
    """
    xs, ys = xs.double(), ys.double()
    factor = cholesky_factor(xs, process)
    deviation = factor.diagonal(dim1=1, dim2=2)
    z = torch.linalg.solve_triangular(factor, ys.unsqueeze(2), upper=False).squeeze(2)
    return ys - deviation * z, deviation.square()


def negative_log_likelihood(sampler: FunctionSampler, batches: int, batch_size: int) -> list[float]:
    """By sample, in nats, the mean over the first `batches` batches, as a learner's tally gives it."""
    total, episodes = torch.zeros(sampler.process.length, dtype=torch.float64), 0
    for index in range(batches):
        xs, ys = (part.cpu() for part in sampler.batch(index, batch_size))
        mean, variance = predict_in_sequence(sampler.process, xs, ys)
        total += 0.5 * (torch.log(2 * math.pi * variance) + (ys - mean).square() / variance).sum(0)
        episodes += batch_size
    return (total / episodes).tolist()
