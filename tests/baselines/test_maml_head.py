"""Gradient descent on a softmax layer over many labels against autograd, step by step."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines import maml_head
from lib.baselines.convnet import ConvNetConfig
from lib.baselines.maml_head import HeadMAML
from lib.experiments.runs import fresh
from tests.cases import normal, random_cases, seeds


def stream(seed: int, labels: int, steps: int, width: int):
    random = torch.Generator().manual_seed(seed)
    ys = torch.randint(labels, (steps,), generator=random)
    return torch.tensor(normal(seed, labels, width))[ys] + 0.7 * torch.tensor(normal(seed + 1, steps, width)), ys


def by_autograd(hidden, ys, labels, rate, start=0.0):
    """All logits, before each label is revealed; every row begins at `start`."""
    matrix, found = torch.full((labels, hidden.shape[1]), start, dtype=hidden.dtype), []
    for h, y in zip(hidden, ys, strict=True):
        matrix = matrix.detach().requires_grad_()
        logits = matrix @ h
        found.append(logits.detach())
        (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y), matrix)
        matrix = matrix - rate * gradient
    return torch.stack(found)


@random_cases(10)
@given(seeds, st.sampled_from([0.1, 2.0]))
def test_online_answers_are_those_of_gradient_descent(seed, rate):
    hidden, ys = stream(seed, labels=7, steps=150, width=4)
    logits = by_autograd(hidden, ys, 7, rate)
    own = logits.gather(1, ys.unsqueeze(1)).squeeze(1)
    best_other = logits.scatter(1, ys.unsqueeze(1), -torch.inf).amax(1)
    found = maml_head.answer_online(hidden, ys, 7, rate)
    assert found.tolist() == (own > best_other).tolist()
    assert 20 < found.sum() < 150


def test_it_does_not_matter_with_which_row_all_labels_begin():
    hidden, ys = stream(0, labels=5, steps=30, width=4)
    a, b = (by_autograd(hidden, ys, 5, 1.0, start).softmax(1) for start in (0.0, 3.0))
    torch.testing.assert_close(a, b)


def test_an_episode_scores_its_second_half_and_learns_through_the_first():
    learner = fresh(lambda: HeadMAML(ConvNetConfig(labels=0, filters=4, width=6), rate=2.0), 0)
    images = torch.rand(8, 784, generator=torch.Generator().manual_seed(0))
    ys = torch.tensor([30, 10, 20, 40, 20, 40, 10, 30])
    outputs = learner(images, ys)
    hidden, places = learner.eval().train().embed(images), torch.tensor([2, 0, 1, 3, 1, 3, 0, 2])
    logits = by_autograd(hidden.detach(), places, 4, 2.0)[4:]
    torch.testing.assert_close(outputs[:, 0], F.cross_entropy(logits, places[4:], reduction="none"))
    assert outputs[:, 1].tolist() == (logits.argmax(1) == places[4:]).float().tolist()
    outputs[:, 0].mean().backward()
    assert learner.log_rate.grad.abs() > 0
    assert next(learner.network.parameters()).grad.abs().sum() > 0
    assert learner.rate == pytest.approx(2.0)


def test_vectors_have_length_1():
    learner = fresh(lambda: HeadMAML(ConvNetConfig(labels=0, filters=4, width=6)), 0).eval()
    assert learner.embed(torch.rand(3, 784)).norm(dim=1).tolist() == pytest.approx([1.0] * 3)
