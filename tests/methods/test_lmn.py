"""LMN against its equations, and what its parts must do."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib.methods.lmn import LMN, LMNConfig, margin_too_small, own_and_best_other
from tests.cases import random_cases, seeds
from tests.methods import reference_lmn as reference

LABELS, WIDTH = 7, 4


class Given(nn.Module):
    """A network whose h is its input, with a softmax layer on top."""

    hidden_size, labels = WIDTH, LABELS

    def __init__(self, seed: int, scale: float = 1.0):
        super().__init__()
        self.softmax = nn.Linear(WIDTH, LABELS).double()
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64))

    def hidden(self, xs, state=None):
        return xs, None

    def scores(self, hidden):
        return self.softmax(hidden)


def random_lmn(seed: int, **config) -> LMN:
    """In float64, with larger weights than at the start of training."""
    learner = LMN(Given(seed), LMNConfig(**({"units": 3, "sharpness": 3.0, "strength": 0.7} | config))).double()
    random = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if name.startswith("combiner"):
                parameter.copy_(1.5 * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return learner


def random_streams(seed: int, batch: int = 2, steps: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs near one of some centres, so that the memory is of use, and labels of which some are frequent."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((LABELS, WIDTH))
    ys = np.minimum(random.geometric(0.35, (batch, steps)) - 1, LABELS - 1)
    xs = centres[ys] + 0.6 * random.standard_normal((batch, steps, WIDTH))
    return torch.from_numpy(xs), torch.from_numpy(ys)


def to_reference(learner: LMN) -> tuple[reference.Settings, dict | None]:
    config = learner.config
    settings = reference.Settings(
        labels=LABELS,
        cells=config.cells,
        margin=config.margin,
        decay=config.decay,
        sharpness=config.sharpness,
        strength=config.strength,
        theta=config.theta,
        kernel_weights_updates=config.update_weights == "kernel",
        zeros=config.new_cells == "zeros",
        budget=config.budget,
        evict=config.evict,
        every_state=config.states == "all",
    )
    if config.theta is not None:
        return settings, None
    own = {name: value.detach().numpy() for name, value in learner.combiner.named_parameters()}
    return settings, {
        "x": np.concatenate([own["from_shared.weight"], own["from_label.weight"]], axis=1),
        "x_bias": own["from_shared.bias"],
        "mu": own["from_state.weight"],
        "mu_bias": own["from_state.bias"],
        "theta": own["to_theta.weight"][0],
        "theta_bias": own["to_theta.bias"][0],
    }


configs = st.fixed_dictionaries(
    {
        "cells": st.integers(1, 3),
        "margin": st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
        "theta": st.sampled_from([None, 0.0, 0.3, 1.0]),
        "states": st.sampled_from(["held", "all"]),
        "update_weights": st.sampled_from(["cosine", "kernel"]),
        "new_cells": st.sampled_from(["on demand", "zeros"]),
        "budget": st.sampled_from([None, 6, 12]),
        "evict": st.sampled_from(["least", "oldest"]),
        "sharpness": st.sampled_from([0.5, 6.0]),
        "strength": st.sampled_from([0.0, 0.7, 2.0]),
        "decay": st.sampled_from([0.5, 0.99]),
    }
)


# The memory alone needs a margin above 0 to begin, see `test_errors`.
configs = configs.filter(lambda config: config["theta"] != 1.0 or config["margin"] > 0)


@given(seeds, configs)
@random_cases(40)
def test_agrees_with_the_paper_s_equations(seed, config):
    learner = random_lmn(seed, **config)
    xs, ys = random_streams(seed)
    settings, combiner = to_reference(learner)
    scored = learner(xs, ys)
    learner.begin(len(xs))
    logits = learner.network.scores(xs).detach().numpy()
    expected = [reference.stream(settings, xs[b].numpy(), logits[b], ys[b].numpy(), combiner) for b in range(len(xs))]
    for t in range(xs.shape[1]):
        step = learner.look(xs[:, t])
        predicted = learner.predict(xs[:, t])
        labels = learner.memory.row_labels
        learner.observe(xs[:, t], ys[:, t])
        for b in range(len(xs)):
            p, r, s, theta, cells = expected[b][t]
            np.testing.assert_allclose(predicted[b], p, atol=1e-10)
            np.testing.assert_allclose(step.network_p[b], r, atol=1e-10)
            for row, label in enumerate(labels[b].tolist()):
                if label >= 0:
                    assert step.memory_p[b, row].item() == pytest.approx(s[label], abs=1e-10)
                    place = label if config["states"] == "all" else row
                    assert step.theta[b, place].item() == pytest.approx(theta[label], abs=1e-10)
            y = ys[b, t].item()
            assert scored.log_likelihood[b, t].item() == pytest.approx(
                max(math.log(max(p[y], 1e-300)), math.log(1e-30))
            )
            rank = 1 + sum(p > p[y]) + (sum(p == p[y]) - 1) / 2
            assert scored.rank[b, t].item() == pytest.approx(rank)
            compare_cells(learner.memory, b, cells)


def compare_cells(memory, b: int, cells: dict[int, list]) -> None:
    labels = memory.row_labels[b].tolist()
    assert {label for label in labels if label >= 0} == set(cells)
    for label, expected in cells.items():
        row = memory.row_of[b, label].item()
        assert labels[row] == label
        count = memory.count[b, row].item()
        assert count == len(expected)
        for j, (vector, weight) in enumerate(expected):
            np.testing.assert_allclose(memory.vectors[b, row, j], vector, atol=1e-10)
            assert memory.weights[b, row, j].item() == pytest.approx(weight, abs=1e-10)


@given(seeds, configs)
@random_cases(30)
def test_a_stream_does_not_depend_on_its_neighbours_in_the_batch(seed, config):
    learner = random_lmn(seed, **config)
    xs, ys = random_streams(seed, batch=4)
    together, alone = learner(xs, ys), learner(xs[2:3], ys[2:3])
    torch.testing.assert_close(together.log_likelihood[2:3], alone.log_likelihood, atol=1e-10, rtol=0)


@given(seeds)
@random_cases(20)
def test_the_gradient_is_the_numerical_one(seed):
    learner = random_lmn(seed, margin=math.inf)  # all is written: no step of a parameter changes what is
    xs, ys = random_streams(seed, steps=6)
    random = torch.Generator().manual_seed(seed)

    def loss() -> torch.Tensor:
        return -learner(xs, ys).log_likelihood.mean()

    loss().backward()
    with torch.no_grad():
        for parameter in learner.combiner.parameters():
            index = tuple(torch.randint(size, (), generator=random).item() for size in parameter.shape)
            kept, around = parameter[index].item(), []
            for step in (1e-5, -1e-5):
                parameter[index] = kept + step
                around.append(loss().item())
            parameter[index] = kept
            assert parameter.grad[index].item() == pytest.approx((around[0] - around[1]) / 2e-5, abs=1e-7)


def test_the_loss_reaches_back_over_steps_through_the_combiner_s_state():
    learner = random_lmn(0, margin=math.inf).train()
    xs, ys = random_streams(0, batch=1, steps=8)
    weight = learner.combiner.from_label.weight
    (whole,) = torch.autograd.grad(-learner(xs, ys).log_likelihood[:, -1].sum(), weight)
    learner.begin(1)
    with torch.no_grad():
        for t in range(7):
            learner.observe(xs[:, t], ys[:, t])
    last = learner._log_likelihood(learner._step(xs[:, 7], None), ys[:, 7])
    (alone,) = torch.autograd.grad(-last.sum(), weight)
    assert (whole - alone).abs().max() > 1e-6


def test_only_the_combiner_is_trained():
    learner = random_lmn(0)
    xs, ys = random_streams(0)
    learner(xs, ys).log_likelihood.sum().backward()
    assert {name.split(".")[0] for name, p in learner.named_parameters() if p.grad is not None} == {"combiner"}
    assert not any(parameter.requires_grad for parameter in random_lmn(0, theta=0.5).parameters())


def test_predicting_changes_nothing():
    learner = random_lmn(3)
    xs, ys = random_streams(3, batch=1)
    learner.begin(1)
    for t in range(10):
        learner.observe(xs[:, t], ys[:, t])
    kept = [learner.memory.vectors.clone(), learner.memory.weights.clone(), learner.state.mu.clone()]
    first = learner.predict(xs[:, 10])
    learner.predict(xs[:, 11])
    torch.testing.assert_close(learner.predict(xs[:, 10]), first, atol=0, rtol=0)
    for before, after in zip(kept, [learner.memory.vectors, learner.memory.weights, learner.state.mu], strict=True):
        assert torch.equal(before, after)


def test_theta_zero_is_the_network_and_theta_one_the_memory():
    xs, ys = random_streams(5)
    network = random_lmn(5, theta=0.0)
    alone = network.network.scores(xs).log_softmax(-1).gather(-1, ys.unsqueeze(-1)).squeeze(-1)
    torch.testing.assert_close(network(xs, ys).log_likelihood, alone)
    memory = random_lmn(5, theta=1.0)
    memory.begin(1)
    memory.observe(xs[:1, 0], ys[:1, 0])
    assert memory.predict(xs[:1, 0])[0, ys[0, 0]] == pytest.approx(1.0)


def test_what_the_network_is_sure_of_is_never_written():
    learner = random_lmn(2, theta=0.2, margin=0.5)
    xs, _ = random_streams(2, batch=1)
    learner.begin(1)
    sure = learner.network.scores(100 * xs).argmax(-1)
    for t in range(xs.shape[1]):
        learner.observe(100 * xs[:, t], sure[:, t])
    assert learner.memory.rows == 0


def test_a_rare_label_is_kept_however_often_others_are_written():
    learner = random_lmn(4, theta=0.5, margin=math.inf, cells=2)
    xs, _ = random_streams(4, batch=1, steps=1)
    learner.begin(1)
    learner.observe(xs[:, 0], torch.tensor([6]))
    kept = learner.memory.vectors[0, learner.memory.row_of[0, 6]].clone()
    others, _ = random_streams(5, batch=1, steps=200)
    for t in range(200):
        learner.observe(others[:, t], torch.tensor([t % 6]))
    assert torch.equal(learner.memory.vectors[0, learner.memory.row_of[0, 6]], kept)
    assert learner.memory.rows == 7


@given(seeds, st.sampled_from([-1.0, 0.0, 1.0]))
@random_cases(50)
def test_margin(seed, margin):
    p = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(5), 6))
    y = torch.arange(6) % 5
    for b in range(6):
        loss = -min(0, math.log(p[b, y[b]]) - max(math.log(p[b, z]) for z in range(5) if z != y[b]) - margin)
        assert margin_too_small(*own_and_best_other(p, y), margin)[b].item() == (loss > 0)


def test_errors():
    with pytest.raises(ValueError, match="theta weighs memory against network"):
        random_lmn(0, theta=1.5)
    with pytest.raises(ValueError, match="needs a margin above 0"):
        random_lmn(0, theta=1.0, margin=0.0)
    with pytest.raises(RuntimeError, match=r"call lmn\.begin"):
        random_lmn(0).predict(torch.zeros(1, WIDTH, dtype=torch.float64))
    for wrong, message in (({"cells": 0}, "at least one cell"), ({"cells": 2, "budget": 5}, "a budget of 5")):
        with pytest.raises(ValueError, match=message):
            random_lmn(0, **wrong).begin(1)
