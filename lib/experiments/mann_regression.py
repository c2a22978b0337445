"""Santoro et al. 2016, regression: figures 5 and 6 as experiments, the exact Gaussian process beside MANN.

| here | paper |
| --- | --- |
| `mann.figure5` | figure 5: functions of one number; predictions at all x after 20 samples |
| `mann.figure6` | figure 6: functions of two and of three numbers; negative log-likelihood by sample |

What the paper leaves open is told in `lib/tasks/gaussian_process.py`; training is as in `TrainingConfig`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from lib import ledger
from lib.baselines import gaussian_process
from lib.config import to_dict
from lib.experiments import mann_tables as tables
from lib.experiments import runs
from lib.experiments.base import Experiment, RunOptions
from lib.experiments.mann import COSTS, PAPER
from lib.methods.mann import MANN, MANNConfig
from lib.report import Table
from lib.tasks.gaussian_process import FunctionSampler, ProcessConfig, RegressionTask
from lib.training import TrainingConfig, evaluate, pick_device

DATA = {"name": "functions of a Gaussian process, drawn as needed", "sha256": "", "is_standin": False}
EVALUATION_SEED = 0  # the same test episodes for every seed
TEST_BATCH = 20
SEEN, GRID = 20, 100  # figure 5: samples before the predictions, and x-values to predict at
TOLERANCE = 0.01  # nats; of a committed checkpoint's likelihoods, for rounding on another machine


@dataclass(frozen=True)
class RegressionConfig:
    """One run: a learner, the functions it learns, its training and its test."""

    learner: MANNConfig
    process: ProcessConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    test_batches: int = 5
    """Minibatches of 20 test episodes: 100 episodes, as in figure 6."""


def regression(dimensions: int) -> RegressionConfig:
    """MANN on functions of so many numbers, at the paper profile."""
    return RegressionConfig(MANNConfig(features=dimensions, labels="real"), ProcessConfig(dimensions))


FIGURE5 = {"1d": regression(1)}
FIGURE6 = {"2d": regression(2), "3d": regression(3)}


def in_profile(paper: RegressionConfig, profile: str) -> RegressionConfig:
    """A config of the paper profile, cut down to another."""
    if profile == "paper":
        return paper
    if profile == "short":
        return replace(paper, training=replace(paper.training, updates=5_000, validate_every=2_500))
    training = replace(
        paper.training, updates=20, log_every=10, validate_every=20, validation_batches=1, checkpoint_every=10
    )
    return replace(paper, training=training, test_batches=1)


def build_task(config: RegressionConfig, seed: int, device: torch.device) -> RegressionTask:
    """Training, validation and test functions."""
    sampler = partial(FunctionSampler, config.process, device=device)
    return RegressionTask(
        train=sampler(seed=seed, stream="train"),
        validation=sampler(seed=EVALUATION_SEED, stream="validation"),
        test=sampler(seed=EVALUATION_SEED, stream="test"),
    )


def test_scores(config: RegressionConfig, task: RegressionTask, learner: MANN, progress: bool) -> dict:
    """Negative log-likelihood by sample of MANN and of the exact GP; for functions of one number also figure 5."""
    metrics = evaluate(learner, task, task.test, config.test_batches, TEST_BATCH, progress)
    metrics["gp_negative_log_likelihood"] = gaussian_process.negative_log_likelihood(
        task.test, config.test_batches, TEST_BATCH
    )
    if config.process.dimensions == 1:
        metrics |= predictions_on_a_grid(task, learner)
    return metrics


def predictions_on_a_grid(task: RegressionTask, learner: MANN) -> dict:
    """Figure 5: what MANN and the exact GP predict at 100 x-values after 20 samples, in the first 20 test episodes.

    Returns `example`, the first of the episodes, with `xs` and `ys` of its 20 samples, `unseen_xs` and `unseen_ys` of
    the other 30, which show where the function goes, the `grid` (100 x-values) and `mann` and `gp`, each a `mean` and a
    `variance` of the noisy value at each x; and over all episodes together
    `mean_r2`, the share of the GP's means' variance that MANN's means explain, and `distance_correlation` and
    `gp_distance_correlation`, Spearman's correlation of the predicted variance with the distance to the nearest sample.
    """
    process, batch = task.test.process, task.test.batch(0, TEST_BATCH)
    xs, ys = batch.xs[:, :SEEN], batch.ys[:, :SEEN]
    grid = torch.linspace(-process.box, process.box, GRID, device=xs.device)
    learner.begin(TEST_BATCH)
    for t in range(SEEN):
        learner.observe(xs[:, t], ys[:, t])
    asked = grid.view(1, GRID, 1).expand(TEST_BATCH, -1, -1)
    mean, variance = torch.stack([learner.predict(asked[:, i]) for i in range(GRID)], dim=1).double().cpu().unbind(-1)
    xs, ys, asked = xs.cpu(), ys.cpu(), asked.cpu()
    gp_mean, gp_variance = gaussian_process.predict(process, xs, ys, asked)
    distance = torch.cdist(asked, xs).amin(-1)
    return {
        "mean_r2": 1 - ((mean - gp_mean).square().mean() / gp_mean.var(correction=0)).item(),
        "distance_correlation": rank_correlation(variance.flatten(), distance.flatten()),
        "gp_distance_correlation": rank_correlation(gp_variance.flatten(), distance.flatten()),
        "example": {
            "xs": xs[0, :, 0].tolist(),
            "ys": ys[0].tolist(),
            "unseen_xs": batch.xs[0, SEEN:, 0].tolist(),
            "unseen_ys": batch.ys[0, SEEN:].tolist(),
            "grid": grid.tolist(),
            "mann": {"mean": mean[0].tolist(), "variance": variance[0].tolist()},
            "gp": {"mean": gp_mean[0].tolist(), "variance": gp_variance[0].tolist()},
        },
    }


def rank_correlation(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> float:
    """Spearman's correlation of numbers without ties."""
    ranks = torch.stack([each.argsort().argsort().double() for each in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def run(
    experiment: str, paper: RegressionConfig, variant: str, profile: str, seed: int, options: RunOptions
) -> ledger.Record | None:
    """Train, test and record one run; `paper` is its config at the paper profile."""
    config = in_profile(paper, profile)
    task = build_task(config, seed, pick_device(options.device))
    regression = runs.Run(
        experiment=experiment,
        variant=variant,
        profile=profile,
        seed=seed,
        options=options,
        config=config,
        data=DATA,
        task=task,
        build=lambda: MANN(config.learner),
        test=lambda learner: test_scores(config, task, learner, options.progress),
    )
    return runs.run_alone(regression)


def verify(configs: dict[str, RegressionConfig], record: ledger.Record, device: str) -> tuple[bool, str]:
    """Test a committed checkpoint on the recorded functions again; likelihoods may differ by rounding."""
    config = in_profile(configs[record.variant], record.profile)
    learner = runs.restore(record, config, lambda: MANN(config.learner), device)
    if isinstance(learner, str):
        return False, learner
    task = build_task(config, record.seed, pick_device(device))
    found = evaluate(learner, task, task.test, config.test_batches, TEST_BATCH)["negative_log_likelihood"]
    pairs = zip(found, record.metrics["negative_log_likelihood"], strict=True)
    difference = max(abs(a - b) for a, b in pairs)
    return difference <= TOLERANCE, f"largest difference of a negative log-likelihood {difference:.4f} nats"


def regression_experiment(
    name: str, title: str, configs: dict[str, RegressionConfig], table: Callable[[], Table]
) -> Experiment:
    """An experiment whose variants are configs, given at the paper profile."""

    def run_variant(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
        return run(name, configs[variant], variant, profile, seed, options)

    return Experiment(
        name=name,
        paper=PAPER,
        title=title,
        variants=tuple(configs),
        run=run_variant,
        config=lambda variant, profile: to_dict(in_profile(configs[variant], profile)),
        table=table,
        costs=COSTS,
        wanted=tuple((variant, 0) for variant in configs),
        verify=partial(verify, configs),
    )


EXPERIMENTS = (
    regression_experiment(
        "mann.figure5",
        "Functions of one number drawn from a Gaussian process: predictions after 20 samples",
        FIGURE5,
        tables.figure5,
    ),
    regression_experiment(
        "mann.figure6",
        "Functions of two and of three numbers: negative log-likelihood by sample, beside the exact Gaussian process",
        FIGURE6,
        tables.figure6,
    ),
)
