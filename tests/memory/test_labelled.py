"""The labelled memory: what its settings must mean. Its equations are tested with LMN, tests/methods/test_lmn.py."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.memory import labelled
from lib.memory.labelled import LabelledMemory
from tests.cases import random_cases, seeds

WIDTH = 3


def memory(**changes) -> LabelledMemory:
    settings = {"batch": 1, "labels": 50, "width": WIDTH, "cells": 1, "like": torch.zeros((), dtype=torch.float64)}
    return LabelledMemory(**(settings | changes))


def write(to: LabelledMemory, h, y: int, wrong: bool = False, loss: bool = True):
    hidden = torch.tensor([h], dtype=torch.float64)
    return to.write(hidden, torch.tensor([y]), torch.tensor([loss]), torch.tensor([wrong]), decay=0.5)


def cells_of(of: LabelledMemory, y: int) -> tuple[list, list]:
    row = of.row_of[0, y].item()
    count = of.count[0, row].item()
    return of.vectors[0, row, :count].tolist(), of.weights[0, row, :count].tolist()


def test_with_one_cell_a_label_it_adds_up_what_was_written_and_decays_the_weight():
    one = memory()
    write(one, [1.0, 0.0, 0.0], 7)
    write(one, [0.0, 2.0, 0.0], 7, wrong=True)
    assert cells_of(one, 7) == ([[1.0, 2.0, 0.0]], [1.5])


def test_an_error_takes_a_free_cell_then_the_least_weighted_of_the_same_label():
    two = memory(cells=2)
    write(two, [1.0, 0.0, 0.0], 7)
    write(two, [0.0, 1.0, 0.0], 7, wrong=True)
    # The one cell that was there takes all of h, although h is at a right angle to it; h also gets a cell of its own.
    assert cells_of(two, 7) == ([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]], [1.5, 1.0])
    write(two, [0.0, 0.0, 5.0], 7, wrong=True)
    vectors, weights = cells_of(two, 7)
    assert vectors[1] == [0.0, 0.0, 5.0] and weights[1] == 1.0
    assert weights[0] == pytest.approx(1.5 * 0.5 + 0.5)


def test_a_right_answer_with_a_small_margin_makes_no_new_cell():
    two = memory(cells=2)
    write(two, [1.0, 0.0, 0.0], 7)
    write(two, [1.0, 0.0, 0.0], 7, wrong=False)
    assert len(cells_of(two, 7)[0]) == 1


def test_without_loss_nothing_changes():
    one = memory()
    write(one, [1.0, 0.0, 0.0], 7)
    found = write(one, [0.0, 1.0, 0.0], 7, loss=False, wrong=True)
    assert cells_of(one, 7) == ([[1.0, 0.0, 0.0]], [1.0]) and found.replaced.item() == -1
    found = write(one, [0.0, 1.0, 0.0], 8, loss=False)
    assert one.rows == 1 and found.row.item() == -1 and not found.new_row.item()


def test_zeros_take_part_from_the_beginning():
    two = memory(cells=2, new_cells="zeros")
    write(two, [2.0, 0.0, 0.0], 7, wrong=True)  # figure 2 to the letter
    assert cells_of(two, 7) == ([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0]], [1.0, 0.5])


def test_writing_a_label_touches_no_other():
    one = memory()
    for y in range(20):
        write(one, [float(y), 1.0, 0.0], y)
    kept = {y: cells_of(one, y) for y in range(20)}
    write(one, [9.0, 9.0, 9.0], 4)
    assert all(cells_of(one, y) == kept[y] for y in range(20) if y != 4)


@given(seeds, st.integers(1, 3))
@random_cases(30)
def test_scores_are_a_distribution_over_the_labels_in_memory(seed, cells):
    random = torch.Generator().manual_seed(seed)
    many = memory(cells=cells)
    for y in torch.randint(50, (40,), generator=random).tolist():
        write(many, torch.randn(WIDTH, generator=random).tolist(), y, wrong=True)
    s = many.scores(torch.randn(1, WIDTH, generator=random, dtype=torch.float64), 4.0, 0.5)
    assert s.shape == (1, many.rows) and s.sum().item() == pytest.approx(1.0) and (s > 0).all()
    assert len(set(many.row_labels[0].tolist())) == many.rows


def test_an_empty_memory_has_no_opinion():
    assert memory().scores(torch.ones(1, WIDTH, dtype=torch.float64), 1.0, 1.0).shape == (1, 0)
    two = memory(batch=2)
    h = torch.ones(2, WIDTH, dtype=torch.float64)
    two.write(h, torch.tensor([3, 4]), torch.tensor([True, False]), torch.tensor([True, True]), decay=0.9)
    assert two.scores(h, 1.0, 1.0).tolist() == [[1.0], [0.0]]


def test_strength_zero_ignores_weights_and_a_large_one_the_most_written_label_wins():
    two = memory()
    for _ in range(5):
        write(two, [1.0, 0.0, 0.0], 1)
    write(two, [1.0, 0.0, 0.0], 2)
    h = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    assert two.scores(h, 1.0, 0.0).tolist() == [[0.5, 0.5]]
    assert two.scores(h, 1.0, 50.0)[0, 0] > 0.999


def test_scores_have_a_gradient_in_h_and_later_writes_do_not_spoil_it():
    two = memory(cells=2)
    for y, h in ((1, [1.0, 0.0, 0.5]), (2, [0.0, 1.0, 0.5]), (1, [1.0, 0.3, 0.0])):
        write(two, h, y, wrong=True)
    h = torch.tensor([[0.3, 0.8, 0.1]], dtype=torch.float64, requires_grad=True)

    def loss(h: torch.Tensor) -> torch.Tensor:
        return -two.scores(h, 3.0, 0.7)[0, 0].log()

    assert torch.autograd.gradcheck(loss, h)
    now = loss(h)
    write(two, [5.0, 5.0, 5.0], 1)
    now.backward()
    assert torch.isfinite(h.grad).all()


@pytest.mark.parametrize("evict, gone", [("least", 3), ("oldest", 1)])
def test_a_spent_budget(evict, gone):
    three = memory(budget=3, evict=evict)
    for y in (1, 2, 3, 2, 1, 2):  # weights: 1 and 2 more than once; 3 once; 3 unwritten for longest but written last
        write(three, [1.0, 0.0, 0.0], y)
    if evict == "oldest":
        for y in (2, 3):
            write(three, [1.0, 0.0, 0.0], y)
    write(three, [0.0, 1.0, 0.0], 9)
    assert set(three.row_labels[0].tolist()) == {1, 2, 3, 9} - {gone}
    assert three.row_of[0, gone].item() == -1 and cells_of(three, 9) == ([[0.0, 1.0, 0.0]], [1.0])
    assert three.vectors.shape[1] == 3


def test_forty_thousand_labels():
    large = LabelledMemory(1, 40_000, WIDTH, like=torch.zeros(()))
    order = torch.randperm(40_000, generator=torch.Generator().manual_seed(0))
    yes = torch.tensor([True])
    for y in order[:3000]:
        large.write(torch.randn(1, WIDTH), y.view(1), yes, yes, decay=0.99)
    assert large.rows == 3000 and torch.equal(large.row_labels[0], order[:3000])
    assert large.vectors.shape[1] < 2 * 3000 + 16  # room for what came, not for all labels


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cells": 0}, "at least one cell"),
        ({"new_cells": "never"}, "on demand or zeros"),
        ({"evict": "newest"}, "least or oldest"),
        ({"budget": 5, "cells": 2}, "a budget of 5 cells"),
    ],
)
def test_what_makes_no_sense_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        memory(**changes)


def test_cosine_of_a_zero_vector_is_zero():
    assert labelled.cosine(torch.ones(1, WIDTH), torch.zeros(1, 1, 1, WIDTH)).item() == 0
