"""Sprechmann et al. 2018, figure 2: a regression in which the network is out of date, and three ways to answer anyway.

The paper shows a picture and says nothing of how it was made. Here a network learns a function; then the function
changes on one side, and the memory holds samples of what it has become: «a prediction needs to be made while
assimilating new information». At each query are asked

- the network as it was trained;
- attention: the mean of the K nearest values by their weights, which is the fit of a constant (appendix E);
- MbPA: the network fitted to the K nearest samples for this query.

Two changes: in `shifted` the function rises and keeps its shape, so that what the network knows is half the truth; in
`reversed` it rises and waves the other way, and the network knows nothing of use. A local fit of a network starts from
what it knows; attention starts from nothing.

f_γ is the identity. K, T and α are chosen by the first seed on samples that are in neither the memory nor the test.
"""

import itertools
import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib import ledger
from lib.config import to_dict
from lib.experiments import mbpa_tables as tables
from lib.experiments import runs
from lib.experiments.base import Experiment, RunOptions
from lib.memory.episodic import EpisodicMemory
from lib.methods.mbpa import MbPAConfig, fitter
from lib.tasks.seeds import generator
from lib.training import pick_device

DATA = {"name": "functions of one number, made up", "sha256": "", "is_standin": False}
EDGE = 4.0  # inputs are between -EDGE and EDGE
GRID = 161  # queries of the test, evenly spaced
FITS = tuple(itertools.product((2, 4, 8, 16), (1, 5, 20, 100, 500), (0.003, 0.01, 0.03, 0.1)))


@dataclass(frozen=True)
class ToyConfig:
    """Sizes and noise of the toy."""

    hidden: int = 32
    """tanh units of the network."""
    updates: int = 2_000
    """Of its training, by Adam on minibatches of 64 fresh samples."""
    learning_rate: float = 1e-2
    memory: int = 24
    """Samples of the changed function in memory."""
    validation: int = 80
    """Samples on which K, T and α are chosen."""
    noise: float = 0.05
    """Standard deviation of a sample's value."""
    change: float = 1.5
    """How much the function has risen on the right."""
    reversed: bool = False
    """It waves the other way there."""
    fits: tuple[tuple[int, int, float], ...] = FITS
    """(K, T, α) to choose from."""


CONFIGS = {"shifted": ToyConfig(), "reversed": ToyConfig(reversed=True)}


def in_profile(paper: ToyConfig, profile: str) -> ToyConfig:
    """The whole takes seconds: `short` is `paper`."""
    if profile != "smoke":
        return paper
    return replace(paper, updates=200, fits=paper.fits[::19])


def before(x: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The function that the network learns."""
    return torch.sin(1.5 * x)


def after(x: Float[Tensor, " n"], config: ToyConfig) -> Float[Tensor, " n"]:
    """What it has become: the same on the left, another on the right."""
    right = torch.sigmoid(4 * (x - 0.5))
    shape = -before(x) if config.reversed else before(x)
    return (1 - right) * before(x) + right * (config.change + shape)


def samples(config: ToyConfig, count: int, seed: int, stream: str) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
    """Inputs and noisy values of the changed function."""
    random = generator(seed, stream, 0)
    x = (2 * torch.rand(count, generator=random) - 1) * EDGE
    y = after(x, config) + config.noise * torch.randn(count, generator=random)
    return x.unsqueeze(1), y.unsqueeze(1)


def trained_network(config: ToyConfig, seed: int) -> nn.Sequential:
    """What has learnt the function as it was."""
    network = runs.fresh(
        lambda: nn.Sequential(nn.Linear(1, config.hidden), nn.Tanh(), nn.Linear(config.hidden, 1)), seed
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    for update in range(config.updates):
        random = generator(seed, "training", update)
        x = (2 * torch.rand(64, generator=random) - 1) * EDGE
        y = before(x) + config.noise * torch.randn(64, generator=random)
        optimizer.zero_grad()
        (network(x.unsqueeze(1)).squeeze(1) - y).square().mean().backward()
        optimizer.step()
    return network


def make_memory(config: ToyConfig, seed: int) -> EpisodicMemory:
    """Samples of the changed function."""
    memory = EpisodicMemory(config.memory, 1, (1,), like=torch.zeros(()))
    memory.append(*samples(config, config.memory, seed, "memory"))
    return memory


@torch.no_grad()
def answers(
    network: nn.Sequential, memory: EpisodicMemory, queries: Float[Tensor, "n 1"], fit: MbPAConfig
) -> dict[str, Float[Tensor, " n"]]:
    """What the network, attention and the fitted network say of each query."""
    context = memory.context(queries, fit.neighbours, fit.epsilon)
    fitted = fitter(network, fit, False)(network, queries, context, fit).outputs
    attention = (context.weights.unsqueeze(2) * context.values).sum(1)
    return {
        name: each.squeeze(1) for name, each in zip(tables.FITS2, (network(queries), attention, fitted), strict=True)
    }


def error(found: Float[Tensor, " n"], truth: Float[Tensor, " n"]) -> float:
    """Root of the mean squared error."""
    return math.sqrt((found - truth).square().mean().item())


def chosen_fits(config: ToyConfig) -> tuple[dict[str, MbPAConfig], dict[str, list[dict[str, Any]]]]:
    """For attention and for MbPA the setting with the least error on validation samples, and how each did: None where
    the descent ran away."""
    network, memory = trained_network(config, 0), make_memory(config, 0)
    xs, ys = samples(config, config.validation, 0, "validation")
    tried: dict[str, list[dict[str, Any]]] = {"attention": [], "mbpa": []}
    for k, steps, rate in config.fits:
        setting = {"neighbours": k, "steps": steps, "rate": rate}
        found = answers(network, memory, xs, MbPAConfig(**setting))
        for name, settings in tried.items():
            off = error(found[name], ys.squeeze(1))
            settings.append({"setting": setting, "validation_error": off if math.isfinite(off) else None})
    stable = {name: [each for each in of if each["validation_error"] is not None] for name, of in tried.items()}
    best = {name: min(each, key=lambda one: one["validation_error"])["setting"] for name, each in stable.items()}
    return {name: MbPAConfig(**setting) for name, setting in best.items()}, tried


def run(variant: str, profile: str, seed: int, options: RunOptions) -> ledger.Record | None:
    """Train, choose, test on a grid, and record; on the CPU, where it takes seconds."""
    config, started = in_profile(CONFIGS[variant], profile), time.monotonic()
    fits, tried = chosen_fits(config)
    network, memory = trained_network(config, seed), make_memory(config, seed)
    grid = torch.linspace(-EDGE, EDGE, GRID)
    truth, right = after(grid, config), grid > 0.5
    found = answers(network, memory, grid.unsqueeze(1), fits["mbpa"])
    found["attention"] = answers(network, memory, grid.unsqueeze(1), fits["attention"])["attention"]
    metrics = {
        "error": {name: error(each, truth) for name, each in found.items()},
        "error_where_it_changed": {name: error(each[right], truth[right]) for name, each in found.items()},
        "setting": {name: to_dict(fit) for name, fit in fits.items()},
        "tuning": tried,
        "grid": grid.tolist(),
        "truth": truth.tolist(),
        "answers": {name: each.tolist() for name, each in found.items()},
        "memory": [memory.keys.squeeze(1).tolist(), memory.values.squeeze(1).tolist()],
    }
    seconds = time.monotonic() - started
    return runs.recorded(
        tables.FIGURE2,
        variant,
        profile,
        seed,
        config,
        metrics,
        data=DATA,
        device=pick_device("cpu"),
        seconds=seconds,
        updates=config.updates,
    )


EXPERIMENTS = (
    Experiment(
        name=tables.FIGURE2,
        paper=tables.PAPER,
        title="A regression: the network as trained, attention, and the network fitted to each query",
        variants=tuple(CONFIGS),
        run=run,
        config=lambda variant, profile: to_dict(in_profile(CONFIGS[variant], profile)),
        table=tables.figure2,
        costs={"smoke": "2 s", "short": "10 s", "paper": "10 s"},
        wanted=tuple((variant, seed) for seed in range(3) for variant in CONFIGS),
    ),
)
