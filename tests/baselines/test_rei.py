"""Rei's learner against autograd in a plain loop, and its two views against each other."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.rei import Rei, ReiConfig
from tests.cases import random_cases, seeds

LABELS, TIME = 6, 11


def learner_and_streams(seed, batch=3, vector=2, **config):
    torch.manual_seed(seed)
    learner = Rei(ReiConfig(labels=LABELS, embedding=3, hidden=4, vector=vector, rate=0.5, **config)).double()
    with torch.no_grad():
        learner.start.copy_(torch.randn(vector))
    return learner, torch.randint(LABELS, (batch, TIME)), torch.randint(LABELS, (batch, TIME))


def naive(learner, xs, ys, through):
    """Log-likelihoods of one stream; the vector's gradient by autograd, the vector itself moved step by step."""
    vector, state, found = learner.start, None, []
    for x, y in zip(xs, ys, strict=True):
        h, state = learner.recurrent(learner.embedding(x)[None, None], state)
        h, rate = h[0, 0], learner.log_rate.exp()

        def loss(s, h=h, y=y):
            return F.cross_entropy(learner.to_logits(torch.cat([h, s])), y)

        now = vector if through else vector.detach().requires_grad_()
        (move,) = torch.autograd.grad(loss(now), now, create_graph=through, retain_graph=True)
        found.append(-loss(vector))
        vector = vector - rate * (move if through else move.detach())
    return torch.stack(found)


@random_cases(25)
@given(seeds, st.booleans(), st.booleans())
def test_scores_and_gradients_are_those_of_a_vector_moved_by_autograd(seed, through, learn_rate):
    learner, xs, ys = learner_and_streams(seed, through=through, learn_rate=learn_rate)
    weight = torch.randn(xs.shape, dtype=torch.float64)
    own = [p for p in learner.parameters() if p.requires_grad]
    assert len(own) == (9 if learn_rate else 8)
    found = learner(xs, ys).log_likelihood
    expected = torch.stack([naive(learner, *pair, through) for pair in zip(xs, ys, strict=True)])
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad((found * weight).sum(), own)
    for ours, theirs in zip(gradients, torch.autograd.grad((expected * weight).sum(), own), strict=True):
        torch.testing.assert_close(ours, theirs)


@random_cases(20)
@given(seeds)
def test_the_closed_form_is_the_gradient(seed):
    learner, _, ys = learner_and_streams(seed)
    h, moved = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    vector = (learner.start - learner.log_rate.exp() * moved).detach().requires_grad_()
    loss = F.cross_entropy(learner.to_logits(torch.cat([h, vector], -1)), ys[:, 0], reduction="sum")
    torch.testing.assert_close(learner.gradient(h, moved, ys[:, 0]), torch.autograd.grad(loss, vector)[0])


@random_cases(15)
@given(seeds, st.sampled_from(["learnt", "zero"]))
def test_a_step_at_a_time_it_predicts_the_same_and_no_weight_changes(seed, start):
    learner, xs, ys = learner_and_streams(seed, start=start)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    whole = learner(xs, ys)
    for _ in range(2):  # the second time from a fresh start again
        learner.begin(len(xs))
        for t in range(TIME):
            p = learner.predict(xs[:, t])
            torch.testing.assert_close(p, learner.predict(xs[:, t]), rtol=0, atol=0)
            torch.testing.assert_close(p.gather(1, ys[:, t, None])[:, 0].log(), whole.log_likelihood[:, t])
            learner.observe(xs[:, t], ys[:, t])
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_a_token_that_keeps_coming_true_becomes_likelier():
    learner, _, _ = learner_and_streams(0, vector=LABELS)
    xs, ys = torch.zeros(1, 300, dtype=torch.int64), torch.full((1, 300), 3)
    likelihood = learner(xs, ys).log_likelihood[0].exp()
    assert likelihood[-1] > 0.75 > 0.25 > likelihood[0]


def test_through_the_moves_there_is_another_gradient():
    gradients = []
    for through in (False, True):
        learner, xs, ys = learner_and_streams(0, through=through)
        learner(xs, ys).log_likelihood.sum().backward()
        gradients.append(learner.to_logits.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 0.01


def test_wrong_use_is_refused():
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="ones"):
        ReiConfig(start="ones")
    with pytest.raises(ValueError, match="rate"):
        ReiConfig(rate=0.0)
