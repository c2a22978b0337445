"""Online MAML of a network of images against a loop that copies the network for each sequence."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from lib.baselines.convnet import ConvNet, ConvNetConfig
from lib.baselines.maml_images import ImageMAML, ImageMAMLConfig
from lib.experiments.runs import fresh
from lib.tasks.online_images import Shown
from tests.cases import random_cases, seeds

LABELS, SEEN = 5, 3


def small_learner(seed: int, order: int) -> ImageMAML:
    network = fresh(lambda: ConvNet(ConvNetConfig(labels=LABELS, filters=3, modules=2)), seed).double()
    network(torch.rand(6, 784, generator=torch.Generator().manual_seed(seed)).double())  # moves the statistics
    return ImageMAML(network, SEEN, ImageMAMLConfig(body_rate=0.05, head_rate=0.3, order=order)).double()


def sequences(seed: int, batch: int = 2, time: int = 4):
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(batch, time, 784, generator=random).double()
    known = torch.tensor([True, seed % 2 == 0, True, False, False])
    return Shown(images, known), torch.randint(LABELS, (batch, time), generator=random)


def naive(learner: ImageMAML, xs: Shown, ys: torch.Tensor, order: int) -> torch.Tensor:
    """Log-likelihoods (batch, time), one sequence and one step after another."""
    network, rows = learner.network, []
    rates = learner.log_rates.exp()
    for images, labels in zip(xs.images, ys, strict=True):
        weights = dict(network.named_parameters())
        for name in ("to_logits.weight", "to_logits.bias"):
            new = weights[name][SEEN:].mean(0)
            weights[name] = torch.stack([w if k else new for w, k in zip(weights[name], xs.known, strict=True)])
        row = []
        for x, y in zip(images, labels, strict=True):
            logits = functional_call(network, weights, (x.unsqueeze(0),))
            loss = F.cross_entropy(logits, y.unsqueeze(0))
            row.append(-loss)
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            gradients = [g if order == 2 else g.detach() for g in gradients]
            weights = {n: w - r * g for (n, w), r, g in zip(weights.items(), rates, gradients, strict=True)}
        rows.append(torch.stack(row))
    return torch.stack(rows)


@random_cases(6)
@given(seeds, st.sampled_from([1, 2]))
def test_scores_and_gradients_are_those_of_one_sequence_after_another(seed, order):
    learner = small_learner(seed, order).train()
    xs, ys = sequences(seed)
    found, expected = learner(xs, ys).log_likelihood, naive(learner, xs, ys, order)
    torch.testing.assert_close(found, expected)
    own = torch.autograd.grad(found.mean(), list(learner.parameters()))
    right = torch.autograd.grad(expected.mean(), list(learner.parameters()))
    for a, b in zip(own, right, strict=True):
        torch.testing.assert_close(a, b)
    assert own[-1].abs().min() > 0 or own[0].abs().max() > 0


def test_one_step_at_a_time_gives_the_same_and_leaves_the_network_as_it_was():
    learner = small_learner(0, 1).eval()
    before = copy.deepcopy(learner.state_dict())
    xs, ys = sequences(3)
    xs = Shown(xs.images, torch.arange(LABELS) < SEEN)
    expected = learner(xs, ys).log_likelihood
    learner.begin(2)
    for t in range(ys.shape[1]):
        p = learner.predict(xs.images[:, t])
        torch.testing.assert_close(p, learner.predict(xs.images[:, t]))
        torch.testing.assert_close(p.gather(1, ys[:, t : t + 1]).log().squeeze(1), expected[:, t])
        learner.observe(xs.images[:, t], ys[:, t])
    for name, value in learner.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_new_label_begins_with_nothing_of_its_own():
    learner = small_learner(1, 1)
    known = torch.tensor([True, False, True, False, False])
    head = learner.start(2, known)["to_logits.weight"]
    own = learner.network.to_logits.weight
    assert torch.equal(head[1, 0], own[0])
    for label in (1, 3, 4):
        torch.testing.assert_close(head[0, label], own[SEEN:].mean(0))


def test_batch_statistics_stay_and_a_stream_must_begin():
    learner = small_learner(2, 2).train()
    assert not learner.network.training
    with pytest.raises(RuntimeError, match="begin"):
        learner.predict(torch.zeros(1, 784).double())
    with pytest.raises(RuntimeError, match="begin"):
        learner.observe(torch.zeros(1, 784).double(), torch.zeros(1, dtype=torch.int64))
