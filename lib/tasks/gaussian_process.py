"""Regression on functions drawn from a Gaussian process (Santoro et al. 2016, section 4.3, supplements 6.2 and 6.3).

An episode is a new function: inputs x in a box, each presented once, and values y = f(x) + noise. Value y_t is told one
step late, with x_{t+1}, as labels are.

Reading notes. The paper says «a GP prior with a fixed set of hyper-parameters» and x-values of one, two or three
dimensions, and no more. Ours: inputs uniform in [-2, 2] along each dimension; mean 0; the kernel
k(a, b) = exp(-|a - b|² / 2ℓ²) with length scale ℓ = 1 and variance 1; 50 samples an episode, as in classification. Each
value carries normal noise of standard deviation 0.1. Without noise the exact GP would be more and more sure of ever
closer neighbours: its variance would go to 0, its likelihood would grow without bound, and there would be nothing to
compare a network's likelihood with.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from lib.tasks.labels import Real
from lib.tasks.seeds import generator


@dataclass(frozen=True)
class ProcessConfig:
    """Which functions are drawn, and where they are sampled."""

    dimensions: int = 1
    """Of an input x (paper: 1, 2 or 3)."""
    length: int = 50
    """Samples in an episode (paper: silent)."""
    box: float = 2.0
    """Inputs are uniform in [-box, box] along each dimension (paper: silent)."""
    length_scale: float = 1.0
    """ℓ of the kernel (paper: silent)."""
    noise: float = 0.1
    """Standard deviation of the noise on a value (paper: silent)."""

    def __post_init__(self):
        if self.noise <= 0:
            raise ValueError(f"the noise must be above 0, got {self.noise}: without it likelihoods have no bound")


class Functions(NamedTuple):
    """A batch of episodes."""

    xs: Float[Tensor, "batch time dimensions"]
    """Inputs."""
    ys: Float[Tensor, "batch time"]
    """Values with their noise."""


def kernel(
    a: Float[Tensor, "batch n dimensions"], b: Float[Tensor, "batch m dimensions"], length_scale: float
) -> Float[Tensor, "batch n m"]:
    """exp(-|a - b|² / 2ℓ²), the covariance of a function's values at a and b."""
    squares = (a.unsqueeze(2) - b.unsqueeze(1)).square().sum(-1)
    return torch.exp(-squares / (2 * length_scale**2))


def cholesky_factor(
    xs: Float[Tensor, "batch time dimensions"], process: ProcessConfig
) -> Float[Tensor, "batch time time"]:
    """The lower triangular L with L Lᵀ = K + noise² I, the covariance of the noisy values at xs."""
    noise = process.noise**2 * torch.eye(xs.shape[1], dtype=xs.dtype, device=xs.device)
    return torch.linalg.cholesky(kernel(xs, xs, process.length_scale) + noise)


class FunctionSampler:
    """Draws batches of episodes, on the CPU in float64, and hands them over as float32 on `device`.

    So the episodes are the same on every device.
    """

    def __init__(self, process: ProcessConfig, *, seed: int, stream: str, device: torch.device | str = "cpu"):
        self.process, self.seed, self.stream, self.device = process, seed, stream, torch.device(device)

    def batch(self, index: int, size: int) -> Functions:
        """The index-th batch of `size` episodes: the same for the same (seed, stream, index, size), on any call."""
        process, random = self.process, generator(self.seed, self.stream, index)
        shape = size, process.length
        xs = torch.rand(*shape, process.dimensions, generator=random, dtype=torch.float64)
        xs = process.box * (2 * xs - 1)
        normal = torch.randn(*shape, 1, generator=random, dtype=torch.float64)
        ys = (cholesky_factor(xs, process) @ normal).squeeze(2)
        return Functions(xs.float().to(self.device), ys.float().to(self.device))


@dataclass
class LikelihoodTally:
    """Negative log-likelihood by sample of an episode, in nats; kept on the device until asked."""

    labels: Real
    total: Tensor
    """(length,), the sum over episodes."""
    episodes: Tensor
    """(), how many there were."""

    def add(self, outputs: Float[Tensor, "batch time 2"], batch: Functions, loss: Tensor) -> None:
        """Count a batch; its loss is the mean of what is counted here."""
        self.total += self.labels.negative_log_likelihood(outputs, batch.ys).sum(0)
        self.episodes += len(batch.ys)

    def reset(self) -> None:
        """Nothing counted any more."""
        self.total.zero_()
        self.episodes.zero_()

    def summary(self) -> dict:
        """The means over episodes by sample, and `loss`, the mean over these."""
        by_sample = (self.total / self.episodes.clamp(min=1)).tolist()
        return {"loss": sum(by_sample) / len(by_sample), "negative_log_likelihood": by_sample}


@dataclass(frozen=True)
class RegressionTask:
    """Functions to train on, to validate and to test on, all of one process."""

    train: FunctionSampler
    validation: FunctionSampler
    test: FunctionSampler
    labels: Real = Real()

    @property
    def device(self) -> torch.device:
        """Where the batches are put."""
        return self.train.device

    def loss(self, outputs: Float[Tensor, "batch time 2"], batch: Functions) -> Float[Tensor, ""]:
        """Mean negative log-likelihood, in nats a step (supplement 6.3)."""
        return self.labels.loss(outputs, batch.ys)

    def tally(self) -> LikelihoodTally:
        """An empty score."""
        return LikelihoodTally(
            self.labels,
            torch.zeros(self.train.process.length, device=self.device),
            torch.zeros((), device=self.device),
        )
