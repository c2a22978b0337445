"""MbPA at some words of a text, with a descent in which the likely words alone move: against naive NumPy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib.methods import mbpa_likely
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_likely import fitted_at, neighbours_at
from tests.cases import random_cases, seeds
from tests.methods import reference_mbpa as reference

WORDS, WIDTH, LENGTH = 9, 4, 16


def make_text(seed: int, bias: bool = True) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed % 2**31)
    output = nn.Linear(WIDTH, WORDS, bias=bias).double()
    for weight in output.parameters():
        nn.init.normal_(weight)
    return output, torch.randn(LENGTH, WIDTH, dtype=torch.float64), torch.randint(WORDS, (LENGTH,))


def naive(output, hidden, words, t, size, fit, rate, steps, likely) -> float:
    """A copy of θ, of which the rows of the likely words take gradient steps."""
    theta = torch.cat([output.weight, output.bias.unsqueeze(1)], 1).detach().numpy()
    hs, own = hidden.numpy(), theta.copy()
    query, past = np.append(hs[t], 1.0), list(range(max(0, t - size), t))
    if past:
        at = [past[i] for i in reference.nearest(hs[t], hs[past], fit.neighbours)]
        values, weights = words[at].numpy(), reference.kernel_weights(hs[t], hs[at], fit.epsilon)
        by_likelihood = np.argsort(-(theta @ query))
        moving = list(dict.fromkeys([*values, *(w for w in by_likelihood if w not in values)]))[:likely]
        for _ in range(steps):
            gradient = np.zeros_like(theta)
            gradient[moving] = reference.gradients(own, hs[at], values, weights)[moving]
            own = own - rate * gradient - fit.prior * (own - theta)
    return np.log(reference.softmax(own @ query)[words[t]])


fits = st.builds(MbPAConfig, neighbours=st.integers(1, 8), prior=st.sampled_from([0.0, 0.2]))


@random_cases(60)
@given(
    seed=seeds,
    fit=fits,
    size=st.integers(1, 18),
    more=st.integers(0, 9),
    at=st.sets(st.integers(0, LENGTH - 1), min_size=1, max_size=5).map(sorted),
    together=st.sampled_from([1, 2, 64]),
)
def test_it_is_the_naive_descent_in_which_likely_words_alone_move(seed, fit, size, more, at, together):
    output, hidden, words = make_text(seed)
    # Where the past is shorter than K, the words that fill up the neighbours move, too, so the likely are all then.
    likely = fit.neighbours + more if at[0] >= fit.neighbours and size >= fit.neighbours else WORDS
    rates, steps = (0.05, 0.7), (1, 3, 4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mbpa_likely, "TOGETHER", together)
        patch.setattr(mbpa_likely, "C_AT_ONCE", 40)
        found = fitted_at(output, hidden, words, torch.tensor(at), size, fit, rates, steps, likely)
    assert found.shape == (len(at), 2, 3)
    for i, t in enumerate(at):
        for j, rate in enumerate(rates):
            for k, count in enumerate(steps):
                expected = naive(output, hidden, words, t, size, fit, rate, count, likely)
                assert found[i, j, k].item() == pytest.approx(expected, abs=1e-8)


@random_cases(20)
@given(seed=seeds, likely=st.integers(3, 9), bias=st.booleans())
def test_it_is_a_distribution_however_few_words_move(seed, likely, bias):
    output, hidden, words = make_text(seed, bias)
    fit, last = MbPAConfig(neighbours=3), torch.tensor([LENGTH - 1])
    p = 0.0
    for word in range(WORDS):
        words[-1] = word
        p += fitted_at(output, hidden, words, last, 20, fit, (0.5, 2.0), (1, 5), likely).exp()
    torch.testing.assert_close(p, torch.ones(1, 2, 2, dtype=torch.float64))


def test_the_first_word_has_no_past_and_what_has_left_the_memory_no_weight():
    output, hidden, words = make_text(1)
    found = fitted_at(output, hidden, words, torch.tensor([0]), 5, MbPAConfig(neighbours=2), (0.5,), (1,), WORDS)
    torch.testing.assert_close(found[0, 0], torch.log_softmax(output(hidden[0]), 0)[words[:1]].detach())
    at = torch.tensor([0, 1, 9])
    positions, weights = neighbours_at(hidden, at, 3, MbPAConfig(neighbours=5))
    assert weights[0].sum() == 0 and weights[1].max() == 1
    assert set(positions[2][weights[2] > 0].tolist()) == {6, 7, 8}
    torch.testing.assert_close(weights[1:].sum(1), torch.ones(2, dtype=torch.float64))


def test_what_cannot_be_is_refused():
    output, hidden, words = make_text(2)
    at = torch.tensor([9])
    with pytest.raises(ValueError, match="5 neighbours cannot all be among 4"):
        fitted_at(output, hidden, words, at, 9, MbPAConfig(neighbours=5), (0.5,), (1,), 4)
    with pytest.raises(ValueError, match="not adam"):
        fitted_at(output, hidden, words, at, 9, MbPAConfig(neighbours=5, optimizer="adam"), (0.5,), (1,), 9)
