"""The trade between calling a drawing new and calling it known, held to networks whose habits are known."""

import pytest
import torch
import torch.nn.functional as F

from lib.experiments.trade import trade, where_first_is
from lib.tasks.episodes import instance_numbers

CLASSES = 5


class Remembers:
    """Knows every class that it was told; takes a new drawing for one of the class told last."""

    def fast_unroll(self):
        return None

    def __call__(self, xs, ys, unroll):
        told = F.pad((F.one_hot(ys, CLASSES).cumsum(1) > 0)[:, :-1], (0, 0, 1, 0))
        last = F.pad(F.one_hot(ys, CLASSES)[:, :-1], (0, 0, 1, 0))
        known = told.gather(2, ys.unsqueeze(2))
        true = F.one_hot(ys, CLASSES)
        return torch.where(known, 3.0 * true, 1.0 * last + 0.1 * true)


@pytest.fixture
def episodes():
    random = torch.Generator().manual_seed(0)
    ys = torch.stack([torch.arange(50)[torch.randperm(50, generator=random)] % CLASSES for _ in range(40)])
    return torch.zeros(40, 50, 4), ys


def test_no_bias_is_the_network_as_it_is(episodes):
    (found,) = trade(Remembers(), *episodes, (1, 2, 10), (0.0,))
    right = Remembers()(*episodes, None).argmax(-1) == episodes[1]
    numbers = instance_numbers(episodes[1], CLASSES)
    assert found == {k: right[numbers == k].double().mean().item() for k in (1, 2, 10)}
    assert found[2] == found[10] == 1.0
    assert found[1] == pytest.approx(1 / CLASSES)  # the very first drawing alone, of which no class was told before


def test_who_calls_more_drawings_new_is_right_on_first_ones_and_wrong_on_known_ones(episodes):
    new, as_it_is, known = trade(Remembers(), *episodes, (1, 2, 10), (-1.0, 0.0, 1.0))
    assert new[1] == 1.0 and new[2] == 1.0, "a nat is enough for new ones, and not enough to doubt known ones"
    assert known == as_it_is
    (all_new,) = trade(Remembers(), *episodes, (1, 2, 10), (-4.0,))
    assert all_new[1] == 1.0
    assert all_new[2] < 0.6
    assert all_new[10] > 0.9, "late in an episode nothing is left to be called new"


def test_columns_are_compared_where_the_first_one_is_equal():
    points = [{1: 0.5, 2: 0.6}, {1: 0.4, 2: 0.8}, {1: 0.2, 2: 0.9}]
    assert where_first_is(0.4, points) == pytest.approx({1: 0.4, 2: 0.8})
    assert where_first_is(0.45, points) == pytest.approx({1: 0.45, 2: 0.7})
    assert where_first_is(0.3, points) == pytest.approx({1: 0.3, 2: 0.85})
    assert where_first_is(0.1, points) is None
    assert where_first_is(0.6, points) is None
