"""Texts as streams, against loops that copy word by word."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.tasks.language import LanguageTask, TextBlocks, side_by_side
from tests.cases import random_cases


@random_cases(60)
@given(st.integers(2, 60), st.integers(1, 5), st.integers(1, 7), st.integers(0, 40))
def test_a_block_goes_on_where_the_last_one_of_its_row_ended(length, size, time, n):
    text = torch.arange(length) * 10
    blocks = TextBlocks(text, time)
    piece = (length - 1) // size
    if piece // time == 0:
        with pytest.raises(ValueError, match="no block|cut into"):
            blocks.batch(n, size)
        return
    assert blocks.count(size) == piece // time
    batch = blocks.batch(n, size)
    assert batch.xs.shape == batch.ys.shape == (size, time) and batch.mask.all()
    for row in range(size):
        for t in range(time):
            at = row * piece + n % (piece // time) * time + t
            assert batch.xs[row, t] == 10 * at and batch.ys[row, t] == 10 * (at + 1)


@random_cases(60)
@given(st.integers(2, 60), st.integers(1, 5))
def test_side_by_side_asks_for_each_word_once(length, size):
    text = torch.arange(length)
    if length - 1 < size:
        with pytest.raises(ValueError, match="cut into"):
            side_by_side(text, size)
        return
    xs, ys = side_by_side(text, size)
    assert torch.equal(ys, xs + 1)
    asked = ys.flatten().tolist()
    assert asked == list(range(1, len(asked) + 1)) and length - 1 - len(asked) < size


def test_a_block_has_a_word():
    with pytest.raises(ValueError, match="at least one word"):
        TextBlocks(torch.arange(10), 0)


def test_the_loss_is_the_mean_over_words_and_the_tally_the_mean_over_batches():
    text = torch.arange(21)
    task = LanguageTask(TextBlocks(text, 5), TextBlocks(text, 5))
    tally, batch = task.tally(), task.train.batch(0, 2)
    assert tally.summary() == {"loss": 0.0}
    for value in (1.0, 4.0):
        outputs = torch.full((2, 5), -value)
        outputs[0, 0] -= 5.0
        loss = task.loss(outputs, batch)
        assert loss.item() == pytest.approx(value + 0.5)
        tally.add(outputs, batch, loss)
    assert tally.summary()["loss"] == pytest.approx(3.0)
    tally.reset()
    assert tally.summary() == {"loss": 0.0}
