"""MAML over many labels against plain gradient descent on a module and a layer of its own."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines import maml_fewshot
from lib.baselines.convnet import ConvNetConfig
from lib.baselines.maml_fewshot import HEAD, FewShotMAML, FewShotMAMLConfig
from lib.experiments.runs import fresh
from tests.cases import random_cases, seeds


def make(seed: int = 0, **settings) -> FewShotMAML:
    settings = {"steps": 3, "body_rate": 0.1, "head_rate": 3.0} | settings
    build = ConvNetConfig(labels=0, filters=4, width=6)
    return fresh(lambda: FewShotMAML(build, FewShotMAMLConfig(**settings)), seed).double()


def images(seed: int, labels: int, times: int) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    ys = torch.cat([torch.randperm(labels, generator=random) for _ in range(times)])
    looks = torch.rand(labels, 784, generator=random, dtype=torch.float64)
    return (looks[ys] + 0.3 * torch.rand(len(ys), 784, generator=random, dtype=torch.float64)).clamp(0, 1), ys


def by_descent(learner: FewShotMAML, xs, ys, labels: int, at_once: int = 512):
    """The network and the softmax layer after `steps` steps."""
    network = copy.deepcopy(learner.network.layers)
    head = torch.zeros(labels, 6, dtype=torch.float64, requires_grad=True)
    rates = learner.log_rates.exp().detach()
    for _ in range(learner.config.steps):
        network.zero_grad()
        head.grad = None
        for start in range(0, len(xs), at_once):
            hs = network(xs[start : start + at_once].view(-1, 1, 28, 28))
            for h, y in zip(hs, ys[start : start + at_once], strict=True):
                scores = head @ (h / h.norm())
                ((scores.logsumexp(0) - scores[y]) / len(ys)).backward(retain_graph=True)
        with torch.no_grad():
            for rate, weight in zip(rates, network.parameters(), strict=False):
                weight -= rate * weight.grad
            head -= labels * rates[-1] * head.grad
    return network, head.detach()


@given(seeds, st.integers(1, 4))
@random_cases(8)
def test_adapted_weights_are_those_of_gradient_descent(seed, steps):
    learner = make(seed, steps=steps).eval()
    xs, ys = images(seed, labels=5, times=2)
    network, head = by_descent(learner, xs, ys, 5)
    found = learner.adapted(xs, ys, 5)
    torch.testing.assert_close(found[HEAD], head)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(found[name], weight.detach())
    # While all rows are alike the network has no gradient.
    assert torch.equal(found["0.weight"], learner.network.layers[0].weight) == (steps == 1)


def test_many_images_are_normalised_and_learnt_in_pieces(monkeypatch):
    learner = make().eval()
    xs, ys = images(1, labels=5, times=3)
    network, head = by_descent(learner, xs, ys, 5, at_once=5)
    monkeypatch.setattr(maml_fewshot, "AT_ONCE", 7)  # 15 images in three pieces of 5
    found = learner.adapted(xs, ys, 5)
    torch.testing.assert_close(found[HEAD], head)
    for name, weight in network.named_parameters():
        torch.testing.assert_close(found[name], weight.detach())


def test_an_answer_is_the_label_of_the_highest_score():
    learner = make().eval()
    xs, ys = images(2, labels=5, times=3)
    network, head = by_descent(learner, xs[:10], ys[:10], 5)
    with torch.no_grad():
        wanted = (F.normalize(network(xs[10:].view(-1, 1, 28, 28)), dim=1) @ head.T).argmax(1) == ys[10:]
    found = learner.answer((xs[:10], ys[:10]), (xs[10:], ys[10:]), 5)
    assert found.tolist() == wanted.tolist() and found.any()


@pytest.mark.parametrize("order", [1, 2])
def test_the_meta_gradient(order):
    """Order 2: by differences of the loss. Order 1: the gradient where the descent ends, with respect to the ends."""
    learner = make(order=order)
    xs, ys = images(3, labels=4, times=2)
    ys = 10 * ys + 7  # labels of the space of training
    learner(xs, ys)[:, 0].mean().backward()
    weight, rates = learner.network.layers[0].weight, learner.log_rates

    def loss_at(tensor, at, by):
        with torch.no_grad():
            tensor[at] += by
            found = learner(xs, ys)[:, 0].mean()
            tensor[at] -= by
        return found.item()

    def slope(tensor, at):
        return (loss_at(tensor, at, 1e-5) - loss_at(tensor, at, -1e-5)) / 2e-5

    if order == 2:
        assert weight.grad[1, 0, 1, 2].item() == pytest.approx(slope(weight, (1, 0, 1, 2)), rel=1e-4)
        assert rates.grad[-1].item() == pytest.approx(slope(rates, -1), rel=1e-4)
        assert rates.grad[0].item() == pytest.approx(slope(rates, 0), rel=1e-3, abs=1e-9)
        return
    learner.zero_grad()
    _, places = ys.unique(return_inverse=True)
    ends = {name: each.detach().requires_grad_() for name, each in learner.adapted(xs[:4], places[:4], 4).items()}
    F.cross_entropy(learner.logits(ends, xs[4:]), places[4:]).backward()
    learner(xs, ys)[:, 0].mean().backward()
    torch.testing.assert_close(weight.grad, ends["0.weight"].grad)


def test_a_test_changes_nothing():
    learner = make().eval()
    before = {name: each.clone() for name, each in learner.state_dict().items()}
    xs, ys = images(5, labels=5, times=2)
    first, second = (learner.answer((xs[:5], ys[:5]), (xs[5:], ys[5:]), 5) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(each, before[name]) for name, each in learner.state_dict().items())


def test_an_episode_asks_for_each_round_after_those_before():
    learner = make()
    xs, ys = images(4, labels=4, times=3)
    outputs = learner(xs, ys * 3)
    wanted = []
    for start in (4, 8):
        logits = learner.logits(learner.adapted(xs[:start], ys[:start], 4), xs[start : start + 4])
        wanted.append((F.cross_entropy(logits, ys[start : start + 4], reduction="none"), logits.argmax(1)))
    torch.testing.assert_close(outputs[:, 0], torch.cat([loss for loss, _ in wanted]))
    assert outputs[:, 1].tolist() == (torch.cat([found for _, found in wanted]) == ys[4:]).tolist()


def test_no_steps():
    with pytest.raises(ValueError, match="steps must be 1 or more"):
        FewShotMAMLConfig(steps=0)
