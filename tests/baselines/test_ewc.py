"""EWC: the Fisher information example by example, and a penalty that is the sum over tasks."""

import torch
from hypothesis import given
from torch import nn

from lib.baselines import ewc
from tests.cases import normal, random_cases, seeds


def make_network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed % 2**31)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def make_task(seed: int, examples: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(normal(seed, examples, 3)), torch.from_numpy(normal(seed + 1, examples) > 0).long()


@random_cases(30)
@given(seeds)
def test_the_information_is_the_mean_square_of_each_examples_gradient(seed):
    network, (xs, ys) = make_network(seed), make_task(seed)
    found = ewc.fisher(network, xs, ys)
    expected = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
    for x, y in zip(xs, ys, strict=True):
        network.zero_grad()
        torch.log_softmax(network(x), 0)[y].backward()
        for name, weight in network.named_parameters():
            expected[name] += weight.grad**2 / len(xs)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name])


def test_how_many_examples_are_done_at_once_does_not_matter(monkeypatch):
    network, (xs, ys) = make_network(0), make_task(0)
    whole = ewc.fisher(network, xs, ys)
    monkeypatch.setattr(ewc, "EXAMPLES_AT_ONCE", 2)
    pieces = ewc.fisher(network, xs, ys)
    assert all(torch.allclose(whole[name], pieces[name]) for name in whole)
    assert all(weight.grad is None and weight.requires_grad for weight in network.parameters())


@random_cases(30)
@given(seeds)
def test_the_penalty_is_the_sum_over_tasks(seed):
    network, kept = make_network(seed), []
    consolidation = ewc.Consolidation(network)
    assert consolidation.penalty(network, 5.0) == 0
    for task in range(3):
        network = make_network(seed + task)
        information = ewc.fisher(network, *make_task(seed + task))
        consolidation.add(network, information)
        kept.append((information, {name: weight.detach().clone() for name, weight in network.named_parameters()}))
    now = make_network(seed + 10)
    expected = sum(
        (information[name] * (weight - then[name]) ** 2).sum()
        for information, then in kept
        for name, weight in now.named_parameters()
    )
    penalty = consolidation.penalty(now, 3.0)
    torch.testing.assert_close(penalty, 1.5 * expected, check_dtype=False)
    penalty.backward()
    for name, weight in now.named_parameters():
        gradient = sum(3.0 * information[name] * (weight - then[name]) for information, then in kept)
        torch.testing.assert_close(weight.grad, gradient)
    assert consolidation.tasks == 3


def test_it_holds_back_what_mattered():
    """Of two weights, one of which the first task never used, only the other is held."""
    network = nn.Linear(2, 2, bias=False).double()
    xs, ys = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=torch.float64), torch.tensor([0, 1])
    information = ewc.fisher(network, xs, ys)["weight"]
    assert (information[:, 0] > 0).all() and (information[:, 1] == 0).all()
