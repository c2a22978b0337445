"""Kinds of labels, against counting and summing by hand."""

import math

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.tasks.labels import CHARACTERS, LETTERS, SMALLEST_VARIANCE, STRINGS, OneHot, Real, Strings, make_labels
from tests.cases import random_cases, seeds


def spelt(y: int) -> list[int]:
    """The five digits to the base five, the highest first."""
    digits = []
    for _ in range(5):
        y, digit = divmod(y, 5)
        digits.insert(0, digit)
    return digits


@random_cases(30)
@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_strings_are_five_one_hot_letters(seed, size, length):
    ys = torch.randint(STRINGS, (size, length), generator=torch.Generator().manual_seed(seed))
    encoded = Strings().encode(ys)
    assert encoded.shape == (size, length, 25)
    for b in range(size):
        for t in range(length):
            letters = spelt(int(ys[b, t]))
            expected = [float(letters[i // 5] == i % 5) for i in range(25)]
            assert encoded[b, t].tolist() == expected


def test_every_string_is_another_one():
    encoded = Strings().encode(torch.arange(STRINGS))
    assert len({tuple(row) for row in encoded.tolist()}) == STRINGS == 3125


@random_cases(30)
@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_the_loss_of_strings_is_equation_26(seed, size, length):
    random = torch.Generator().manual_seed(seed)
    ys = torch.randint(STRINGS, (size, length), generator=random)
    outputs = torch.randn(size, length, 25, generator=random, dtype=torch.float64)
    total = 0.0
    for b in range(size):
        for t in range(length):
            for place, letter in enumerate(spelt(int(ys[b, t]))):
                logits = outputs[b, t, 5 * place : 5 * place + 5].tolist()
                total -= logits[letter] - math.log(sum(math.exp(v) for v in logits))
    assert Strings().loss(outputs, ys).item() == pytest.approx(total / (size * length), rel=1e-9)


@random_cases(30)
@given(seeds)
def test_a_string_is_right_only_if_all_five_letters_are(seed):
    random = torch.Generator().manual_seed(seed)
    ys = torch.randint(STRINGS, (6,), generator=random)
    labels = Strings()
    outputs = labels.encode(ys) + 0.3 * torch.rand(6, 25, generator=random)
    assert labels.right(outputs, ys).all()
    for place in range(CHARACTERS):
        wrong = outputs.clone()
        wrong[:, LETTERS * place : LETTERS * (place + 1)] *= -1
        assert not labels.right(wrong, ys).any()


def test_predictions_of_strings_are_five_distributions():
    predicted = Strings().predict(torch.randn(3, 25, generator=torch.Generator().manual_seed(0)))
    assert predicted.shape == (3, 5, 5)
    torch.testing.assert_close(predicted.sum(-1), torch.ones(3, 5))


def test_one_hot_labels_are_the_classes():
    labels = OneHot(3)
    assert labels.encode(torch.tensor([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert labels.right(torch.tensor([[0.0, 1.0, 0.5], [0.0, 1.0, 0.5]]), torch.tensor([1, 2])).tolist() == [
        True,
        False,
    ]
    assert (labels.width, labels.outputs) == (3, 3)


@random_cases(30)
@given(seeds, st.integers(1, 4), st.integers(1, 5))
def test_the_loss_of_numbers_is_minus_the_log_of_the_normal_density(seed, size, length):
    random = torch.Generator().manual_seed(seed)
    outputs = 3 * torch.randn(size, length, 2, generator=random, dtype=torch.float64)
    ys = torch.randn(size, length, generator=random, dtype=torch.float64)
    labels, total = Real(), 0.0
    found = labels.negative_log_likelihood(outputs, ys)
    for b in range(size):
        for t in range(length):
            mean, raw = outputs[b, t].tolist()
            variance = math.log1p(math.exp(raw)) + SMALLEST_VARIANCE
            density = math.exp(-((ys[b, t].item() - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
            if density > 1e-300:
                assert found[b, t].item() == pytest.approx(-math.log(density), rel=1e-9, abs=1e-9)
            total += found[b, t].item()
    assert labels.loss(outputs, ys).item() == pytest.approx(total / (size * length), rel=1e-9)


def test_predictions_of_numbers_are_a_mean_and_a_variance_above_0():
    outputs = torch.tensor([[0.5, -200.0], [-2.0, 0.0], [0.0, 200.0]])
    mean, variance = Real().predict(outputs).unbind(-1)
    assert mean.tolist() == [0.5, -2.0, 0.0]
    assert variance.tolist() == pytest.approx([SMALLEST_VARIANCE, math.log(2) + SMALLEST_VARIANCE, 200.0001])


def test_a_number_is_told_as_it_is():
    labels = make_labels("real", 9)
    assert (labels, labels.width, labels.outputs) == (Real(), 1, 2)
    assert labels.encode(torch.tensor([[0.5, -2.0]])).tolist() == [[[0.5], [-2.0]]]


def test_labels_of_a_kind_that_does_not_exist_are_an_error_that_lists_those_that_do():
    assert make_labels("strings", 9) == Strings()
    assert make_labels("one-hot", 9) == OneHot(9)
    jaxtyping.config.update("jaxtyping_disable", True)  # else the annotation speaks first
    try:
        with pytest.raises(ValueError, match=r"kind 'words'; known: one-hot, strings, real"):
            make_labels("words", 9)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
