"""Online MAML: both forms against plain loops of autograd and against finite differences; the two views."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.maml import MAML, MAMLConfig, gates_gradient
from lib.methods.controller import lstm_cell
from tests.cases import random_cases, seeds

LABELS, TIME = 5, 7
orders, forms = st.sampled_from([1, 2]), st.sampled_from([None, "plain"])


def learner_and_streams(seed, batch=3, time=TIME, **config):
    torch.manual_seed(seed)
    sizes = {"labels": LABELS, "embedding": 3, "hidden": 4, "rate": 0.7}
    learner = MAML(MAMLConfig(**{**sizes, **config})).double()
    return learner, torch.randint(LABELS, (batch, time)), torch.randint(LABELS, (batch, time))


def trained_parts(learner):
    return [each for each in learner.parameters() if each.requires_grad]


def naive(learner, xs, ys):
    """Log-likelihoods of one stream: weights one by one, and autograd for their gradients."""
    config, own = learner.config, list(learner.network.parameters())
    hidden = cell = torch.zeros(config.hidden, dtype=torch.float64)
    weights, found = own, []
    for t, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if t > 0 and t % config.window == 0:
            hidden, cell = hidden.detach(), cell.detach()
            weights = [w + (now - w).detach() for w, now in zip(own, weights, strict=True)]

        def step(weights, hidden, cell, x=x, y=y):
            rows, gate_matrix, gate_bias, matrix, bias = weights
            gates = gate_matrix @ torch.cat([rows[x], hidden]) + gate_bias
            forget, write, out, update = gates.chunk(4)
            cell = forget.sigmoid() * cell + write.sigmoid() * update.tanh()
            hidden = out.sigmoid() * cell.tanh()
            return (matrix @ hidden + bias).log_softmax(0)[y], hidden, cell

        copies = [w.clone() for w in weights]
        if config.order == 1:
            copies = [w.detach().requires_grad_() for w in weights]
        moves = torch.autograd.grad(-step(copies, hidden, cell)[0], copies, create_graph=config.order == 2)
        log_likelihood, hidden, cell = step(weights, hidden, cell)
        found.append(log_likelihood)
        weights = [w - learner.log_rate.exp() * move for w, move in zip(weights, moves, strict=True)]
    return torch.stack(found)


@random_cases(40)
@given(seeds, orders, forms, st.integers(1, 9), st.booleans())
def test_scores_and_meta_gradients_are_those_of_a_plain_loop(seed, order, form, window, learn_rate):
    learner, xs, ys = learner_and_streams(seed, order=order, window=window, learn_rate=learn_rate)
    ys[:, ::2] = xs[:, ::2]  # so that tokens come back, and their changed rows are used
    weight = torch.randn(xs.shape, dtype=torch.float64)
    own = trained_parts(learner)
    assert len(own) == 5 + learn_rate
    found = learner(xs, ys, form).log_likelihood
    expected = torch.stack([naive(learner, *pair) for pair in zip(xs, ys, strict=True)])
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad((found * weight).sum(), own)
    theirs = torch.autograd.grad((expected * weight).sum(), own, materialize_grads=True)
    for one, other in zip(gradients, theirs, strict=True):
        torch.testing.assert_close(one, other)


@random_cases(10)
@given(seeds, forms)
def test_the_second_order_gradient_is_the_slope_of_the_meta_loss(seed, form):
    """In one window nothing is truncated, so it must be the true derivative; that of first order is not."""
    slopes = {}
    for order in (1, 2):
        learner, xs, ys = learner_and_streams(seed, order=order, window=TIME, learn_rate=True)
        learner(xs, ys, form).log_likelihood.sum().backward()
        torch.manual_seed(seed)
        ways = [torch.randn_like(each) for each in trained_parts(learner)]
        slopes[order] = sum((each.grad * way).sum() for each, way in zip(trained_parts(learner), ways, strict=True))
    with torch.no_grad():
        values = []
        for step in (1e-5, -2e-5):
            for each, way in zip(trained_parts(learner), ways, strict=True):
                each += step * way
            values.append(learner(xs, ys, form).log_likelihood.sum())
    true = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close(slopes[2], true, rtol=1e-6, atol=1e-6)
    assert abs(slopes[1] - true) > 1e-4


@random_cases(15)
@given(seeds, orders, st.integers(1, 9))
def test_a_step_at_a_time_it_predicts_the_same_and_forgets_afterwards(seed, order, window):
    learner, xs, ys = learner_and_streams(seed, order=order, window=window)
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    whole = learner(xs, ys)
    for _ in range(2):  # the second time from fresh weights again
        learner.begin(len(xs))
        for t in range(TIME):
            p = learner.predict(xs[:, t])
            torch.testing.assert_close(p, learner.predict(xs[:, t]), rtol=0, atol=0)
            chosen = p.gather(1, ys[:, t, None])
            torch.testing.assert_close(chosen[:, 0].log(), whole.log_likelihood[:, t])
            torch.testing.assert_close((p > chosen).sum(1) + 1.0, whole.rank[:, t])
            learner.observe(xs[:, t], ys[:, t])
    for name, value in learner.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


@random_cases(10)
@given(seeds)
def test_streams_do_not_disturb_each_other(seed):
    learner, xs, ys = learner_and_streams(seed)
    together = learner(xs, ys).log_likelihood
    for b in range(len(xs)):
        torch.testing.assert_close(learner(xs[b : b + 1], ys[b : b + 1]).log_likelihood[0], together[b])


@random_cases(10)
@given(seeds)
def test_what_is_masked_has_no_part_in_the_gradient(seed):
    gradients = []
    for padding in (0, 3):
        learner, xs, ys = learner_and_streams(seed)
        xs, ys = F.pad(xs, (0, padding)), F.pad(ys, (0, padding))
        learner(xs, ys).log_likelihood[:, :TIME].sum().backward()
        gradients.append([each.grad for each in trained_parts(learner)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_what_came_true_becomes_likelier():
    learner, _, _ = learner_and_streams(0)
    xs, ys = torch.zeros(1, 40, dtype=torch.int64), torch.full((1, 40), 3)
    likelihood = learner(xs, ys).log_likelihood[0].exp()
    assert likelihood[-1] > 0.9 > 0.5 > likelihood[0]


def test_weights_changed_between_the_scores_and_their_gradient_are_an_error():
    learner, xs, ys = learner_and_streams(0)
    scored = learner(xs, ys)
    with torch.no_grad():
        learner.network.to_logits.bias += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        scored.log_likelihood.sum().backward()


@random_cases(20)
@given(seeds)
def test_the_gates_gradient_is_autograds(seed):
    torch.manual_seed(seed)
    gates = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    cell, to_hidden = torch.randn(3, 4, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    hidden, next_cell = lstm_cell(gates, cell)
    (expected,) = torch.autograd.grad(hidden, gates, to_hidden)
    torch.testing.assert_close(gates_gradient(gates, cell, next_cell, to_hidden), expected)


def test_wrong_use_is_refused():
    learner, xs, ys = learner_and_streams(0)
    with pytest.raises(ValueError, match="no form"):
        learner(xs, ys, "fast")
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="3"):
        MAMLConfig(order=3)
    with pytest.raises(ValueError, match="rate"):
        MAMLConfig(rate=0.0)
    with pytest.raises(ValueError, match="window"):
        MAMLConfig(window=0)
