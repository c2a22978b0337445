"""The recurrent network of tokens against naive NumPy, and its two views against each other."""

import jaxtyping
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines import sequence
from lib.baselines.sequence import (
    TokenNetwork,
    TokenNetworkConfig,
    larger_lstm,
    recurrent_parameters,
    score_in_chunks,
)
from lib.tasks.streams import score
from tests.cases import random_cases, seeds

cells = st.sampled_from(["gru", "lstm"])


def network_and_streams(seed, cell, batch=3, time=7, labels=6, embedding=3, hidden=4, **config):
    torch.manual_seed(seed)
    network = TokenNetwork(TokenNetworkConfig(labels, embedding, hidden, cell, **config)).double()
    return network, torch.randint(labels, (batch, time)), torch.randint(labels, (batch, time))


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def naive_logits(network, xs):
    """One stream, by the equations of the GRU and the LSTM, from PyTorch's own stacked weights."""
    own = {name: value.detach().numpy() for name, value in network.named_parameters()}
    from_input, from_state = own["recurrent.weight_ih_l0"], own["recurrent.weight_hh_l0"]
    input_bias, state_bias = own["recurrent.bias_ih_l0"], own["recurrent.bias_hh_l0"]
    hidden = cell = np.zeros(network.hidden_size)
    rows = []
    for x in xs:
        a = from_input @ own["embedding.weight"][x] + input_bias
        b = from_state @ hidden + state_bias
        if network.config.cell == "gru":
            (ra, za, na), (rb, zb, nb) = np.split(a, 3), np.split(b, 3)
            update = sigmoid(za + zb)
            hidden = (1 - update) * np.tanh(na + sigmoid(ra + rb) * nb) + update * hidden
        else:
            write, forget, new, out = np.split(a + b, 4)
            cell = sigmoid(forget) * cell + sigmoid(write) * np.tanh(new)
            hidden = sigmoid(out) * np.tanh(cell)
        rows.append(own["to_logits.weight"] @ hidden + own["to_logits.bias"])
    return np.array(rows)


@random_cases(30)
@given(seeds, cells, st.integers(1, 3), st.integers(1, 8), st.integers(1, 7))
def test_it_scores_as_the_equations_say(seed, cell, batch, time, labels):
    network, xs, ys = network_and_streams(seed, cell, batch, time, labels)
    found = network(xs, ys)
    for b in range(batch):
        logits = naive_logits(network, xs[b])
        for t, y in enumerate(ys[b]):
            likelihood = logits[t, y] - np.log(np.exp(logits[t]).sum())
            assert found.log_likelihood[b, t].item() == pytest.approx(likelihood, abs=1e-9)
            assert found.rank[b, t] == 1 + (logits[t] > logits[t, y]).sum()


@random_cases(20)
@given(seeds, cells)
def test_a_step_at_a_time_it_predicts_the_same(seed, cell):
    network, xs, ys = network_and_streams(seed, cell)
    whole = network(xs, ys)
    network.begin(len(xs))
    for t in range(xs.shape[1]):
        p = network.predict(xs[:, t])
        torch.testing.assert_close(p, network.predict(xs[:, t]), rtol=0, atol=0)
        torch.testing.assert_close(p.gather(1, ys[:, t, None])[:, 0].log(), whole.log_likelihood[:, t])
        network.observe(xs[:, t], ys[:, t])


@random_cases(20)
@given(seeds, cells, st.integers(1, 6))
def test_hidden_goes_on_where_it_stopped(seed, cell, cut):
    network, xs, _ = network_and_streams(seed, cell)
    whole, _ = network.hidden(xs)
    first, state = network.hidden(xs[:, :cut])
    rest, _ = network.hidden(xs[:, cut:], state)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    assert whole.shape == (*xs.shape, network.hidden_size)
    assert network.scores(whole).shape == (*xs.shape, network.labels)


@random_cases(20)
@given(seeds, st.integers(1, 60))
def test_chunks_give_the_scores_and_gradients_of_the_whole(seed, chunk_logits):
    network, xs, ys = network_and_streams(seed, "gru")
    weight = torch.randn(xs.shape, dtype=torch.float64)
    results = []
    for form in ("chunks", "whole"):
        hs, _ = network.hidden(xs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sequence, "CHUNK_LOGITS", chunk_logits)
            scored = score_in_chunks(network.scores, hs, ys, 6) if form == "chunks" else score(network.scores(hs), ys)
            gradients = torch.autograd.grad((scored.log_likelihood * weight).sum(), list(network.parameters()))
        results.append((*scored, *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_chunks_hold_no_more_than_their_own_logits(monkeypatch):
    """What autograd keeps from the forward pass, counted: with chunks, nothing of the size of a chunk's logits."""
    network, xs, ys = network_and_streams(0, "gru", batch=2, time=20, labels=500)
    hs, _ = network.hidden(xs)

    def most_kept():
        sizes = []

        def count(kept):
            sizes.append(kept.numel())
            return kept

        with torch.autograd.graph.saved_tensors_hooks(count, lambda kept: kept):
            score_in_chunks(lambda h: network.scores(h), hs.detach().requires_grad_(), ys, 500)
        return max(sizes, default=0)

    assert most_kept() >= xs.numel() * 500
    monkeypatch.setattr(sequence, "CHUNK_LOGITS", 2 * 500 * 4)
    assert most_kept() < 2 * 500 * 4


def test_dropout_acts_in_training_only():
    network, xs, ys = network_and_streams(0, "gru", dropout=0.5)
    assert not torch.equal(network(xs, ys).log_likelihood, network(xs, ys).log_likelihood)
    network.eval()
    torch.testing.assert_close(network(xs, ys).log_likelihood, network(xs, ys).log_likelihood, rtol=0, atol=0)


@random_cases(20)
@given(st.integers(1, 80), st.integers(1, 80), st.sampled_from([1, 2, 5, 10]))
def test_the_larger_lstm_has_the_nearest_number_of_recurrent_parameters(embedding, hidden, times):
    small = TokenNetworkConfig(labels=3, embedding=embedding, hidden=hidden)
    large = larger_lstm(4, small, times)
    assert (large.labels, large.embedding, large.cell) == (4, embedding, "lstm")

    def counted(width, kind):
        return sum(p.numel() for p in kind(embedding, width).parameters())

    target = times * counted(hidden, torch.nn.GRU)
    assert recurrent_parameters(small) * times == target
    assert recurrent_parameters(large) == counted(large.hidden, torch.nn.LSTM)
    off = [abs(4 * h * (embedding + h + 2) - target) for h in range(1, 400)]
    assert abs(recurrent_parameters(large) - target) == min(off)


def test_the_papers_larger_lstm():
    assert larger_lstm(5135, TokenNetworkConfig()).hidden == 115  # 76 820 recurrent parameters; 5 x 15 300 = 76 500


def test_wrong_use_is_refused():
    network, xs, ys = network_and_streams(0, "gru")
    with pytest.raises(ValueError, match="successors"):
        sequence.check_pairs(xs, ys[:, 1:])
    with pytest.raises(ValueError, match="successors"):
        sequence.check_pairs(xs[0], ys[0])
    with pytest.raises(RuntimeError, match="begin"):
        network.predict(xs[:, 0])
    with pytest.raises(RuntimeError, match="begin"):
        network.observe(xs[:, 0], ys[:, 0])
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="rnn"):
        TokenNetworkConfig(cell="rnn")
    with pytest.raises(ValueError, match="hidden"):
        TokenNetworkConfig(hidden=0)
