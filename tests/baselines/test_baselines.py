"""The baselines against naive NumPy: equations 9 to 15 for the LSTM, two layers for the feed-forward network."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.feedforward import FeedForward, FeedForwardConfig
from lib.baselines.lstm import LSTM, LSTMConfig
from tests.cases import random_cases, seeds
from tests.methods import reference_mann as reference

sizes = st.integers(1, 5)


def random_weights(learner, seed):
    learner.double()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return learner


def episodes(seed, batch, length, features, classes):
    random = torch.Generator().manual_seed(seed)
    xs = torch.randn(batch, length, features, generator=random, dtype=torch.float64)
    return xs, torch.randint(classes, (batch, length), generator=random)


def inputs_of(xs, ys, classes, b, t):
    """(x_t, y_{t-1}) with a null label at the first step."""
    label = np.zeros(classes)
    if t > 0:
        label[ys[b, t - 1]] = 1.0
    return np.concatenate([xs[b, t].numpy(), label])


def lstm_gates(learner: LSTM) -> dict:
    """PyTorch stacks the gates in the order input, forget, update (its «g»), output, and has two biases that add up."""
    own = {name: value.detach().numpy() for name, value in learner.lstm.named_parameters()}
    matrix = np.concatenate([own["weight_ih_l0"], own["weight_hh_l0"]], axis=1)
    bias = own["bias_ih_l0"] + own["bias_hh_l0"]
    names = ("input", "forget", "update", "output")
    return dict(zip(names, zip(np.split(matrix, 4), np.split(bias, 4), strict=True), strict=True))


@random_cases(30)
@given(seeds, sizes, st.integers(2, 4), sizes, st.integers(1, 3), st.integers(1, 12))
def test_lstm_agrees_with_equations_9_to_15(seed, features, classes, hidden_size, batch, length):
    learner = random_weights(LSTM(LSTMConfig(features, classes, hidden_size)), seed)
    xs, ys = episodes(seed + 1, batch, length, features, classes)
    found = learner(xs, ys).detach()
    output_matrix, output_bias = learner.to_logits.weight.detach().numpy(), learner.to_logits.bias.detach().numpy()
    learner.begin(batch)
    hidden, cell = np.zeros((batch, hidden_size)), np.zeros((batch, hidden_size))
    for t in range(length):
        learner.observe(xs[:, t], ys[:, t])
        for b in range(batch):
            inputs = inputs_of(xs, ys, classes, b, t)
            hidden[b], cell[b] = reference.lstm_step(lstm_gates(learner), inputs, hidden[b], cell[b])
            np.testing.assert_allclose(found[b, t], output_matrix @ hidden[b] + output_bias, atol=1e-9)
        np.testing.assert_allclose(learner.state.hidden, hidden, atol=1e-9)
        np.testing.assert_allclose(learner.state.cell, cell, atol=1e-9)


@random_cases(20)
@given(seeds, sizes, st.integers(2, 4), sizes, st.integers(1, 3), st.integers(1, 12))
def test_feedforward_agrees_with_two_layers_by_hand(seed, features, classes, hidden_size, batch, length):
    learner = random_weights(FeedForward(FeedForwardConfig(features, classes, hidden_size)), seed)
    xs, ys = episodes(seed + 1, batch, length, features, classes)
    found = learner(xs, ys).detach()
    own = [p.detach().numpy() for p in learner.parameters()]
    assert len(own) == 4
    for b in range(batch):
        for t in range(length):
            hidden = np.tanh(own[0] @ inputs_of(xs, ys, classes, b, t) + own[1])
            np.testing.assert_allclose(found[b, t], own[2] @ hidden + own[3], atol=1e-9)


def test_the_lstm_baseline_is_as_wide_as_manns_controller():
    assert LSTMConfig().hidden == 200
    assert LSTM(LSTMConfig()).lstm.input_size == 405
