"""Least recently used access against equations 5 to 8 in naive NumPy, and what it must mean."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.memory import lrua
from tests.cases import normal, random_cases, seeds
from tests.methods import reference_mann as reference

sizes = st.integers(1, 4)
slot_counts = st.integers(4, 9)


def shares(seed, *shape):
    """Random weights that sum to 1 along the last axis."""
    random = np.random.default_rng(seed).random(shape)
    return random / random.sum(-1, keepdims=True)


def usage_with_ties(seed, batch, slots):
    """Usages of which many are equal."""
    return np.random.default_rng(seed).integers(0, 3, (batch, slots)) / 2


@random_cases(40)
@given(seeds, sizes, sizes, slot_counts, st.floats(0, 1))
def test_usage_agrees_with_equation_5(seed, batch, heads, slots, decay):
    usage, reads, writes = (
        shares(seed, batch, slots),
        shares(seed + 1, batch, heads, slots),
        shares(seed + 2, batch, heads, slots),
    )
    found = lrua.update_usage(torch.tensor(usage), torch.tensor(reads), torch.tensor(writes), decay)
    for b in range(batch):
        np.testing.assert_allclose(found[b], reference.next_usage(usage[b], reads[b], writes[b], decay), atol=1e-13)


def test_usage_decays_where_nothing_is_read_or_written():
    usage, nothing = torch.tensor([[4.0, 1.0, 0.0]]), torch.zeros(1, 2, 3)
    torch.testing.assert_close(lrua.update_usage(usage, nothing, nothing, 0.99), torch.tensor([[3.96, 0.99, 0.0]]))
    one_read = nothing.clone()
    one_read[0, 1, 2] = 1.0
    assert lrua.update_usage(usage, one_read, nothing, 0.99)[0, 2] == 1
    assert lrua.update_usage(usage, nothing, one_read, 0.99)[0, 2] == 1


@random_cases(60)
@given(seeds, sizes, st.integers(1, 4), slot_counts)
def test_least_used_slots_agree_with_equation_6_with_ties_broken(seed, batch, count, slots):
    usage = usage_with_ties(seed, batch, slots)
    rows = lrua.least_used_slots(torch.tensor(usage), count)
    assert rows.shape == (batch, count, slots)
    for b in range(batch):
        expected = np.zeros((count, slots))
        for j, slot in enumerate(reference.least_used_slots(usage[b], count)):
            expected[j, slot] = 1.0
        np.testing.assert_array_equal(rows[b], expected)
        # As the paper puts it: what is marked is used at most as much as the n-th smallest, the rest at least as much.
        marked = rows[b].sum(0).bool().numpy()
        nth_smallest = np.sort(usage[b])[count - 1]
        assert (usage[b][marked] <= nth_smallest).all()
        assert (usage[b][~marked] >= nth_smallest).all()


@random_cases(30)
@given(seeds, st.integers(1, 4), slot_counts)
def test_exactly_so_many_distinct_slots_are_marked_and_the_lowest_index_wins_a_tie(seed, count, slots):
    usage = torch.tensor(usage_with_ties(seed, 3, slots), dtype=torch.float32)
    rows = lrua.least_used_slots(usage, count)
    assert ((rows == 0) | (rows == 1)).all()
    assert (rows.sum(-1) == 1).all()
    assert (rows.sum(1) <= 1).all()
    chosen = rows.argmax(-1)
    by_usage_then_index = [sorted(range(slots), key=lambda i: (u[i].item(), i))[:count] for u in usage]
    assert chosen.tolist() == by_usage_then_index


def test_an_untouched_memory_gives_the_first_slots():
    rows = lrua.least_used_slots(torch.zeros(3, 10), 4)
    assert rows.argmax(-1).tolist() == [[0, 1, 2, 3]] * 3


def test_each_episode_of_a_batch_has_its_own_least_used_slots():
    rows = lrua.least_used_slots(torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]), 1)
    assert rows.argmax(-1).tolist() == [[0], [2]]


def test_no_gradient_enters_the_choice_and_the_usage_is_left_alone():
    usage = torch.tensor([[3.0, 1.0, 2.0]])
    rows = lrua.least_used_slots(usage, 2)
    assert not rows.requires_grad
    assert usage.tolist() == [[3.0, 1.0, 2.0]]


@random_cases(40)
@given(seeds, sizes, sizes, slot_counts, st.booleans())
def test_write_weights_agree_with_equation_7(seed, batch, heads, slots, shared):
    alpha, reads = normal(seed, batch, heads, scale=3), shares(seed + 1, batch, heads, slots)
    least_used = shares(seed + 2, batch, 1 if shared else heads, slots)
    gate = torch.sigmoid(torch.tensor(alpha)).unsqueeze(2)
    found = lrua.write_weights(gate, torch.tensor(reads), torch.tensor(least_used))
    assert found.shape == (batch, heads, slots)
    for b in range(batch):
        for head in range(heads):
            expected = reference.write_weight(alpha[b, head], reads[b, head], least_used[b, 0 if shared else head])
            np.testing.assert_allclose(found[b, head], expected, atol=1e-13)


def test_an_open_gate_writes_where_was_read_and_a_closed_one_to_the_least_used_slots():
    reads = torch.tensor([[[0.7, 0.2, 0.1]]])
    least_used = lrua.least_used_slots(torch.tensor([[2.0, 1.0, 3.0]]), 1)
    torch.testing.assert_close(lrua.write_weights(torch.ones(1, 1, 1), reads, least_used), reads)
    assert lrua.write_weights(torch.zeros(1, 1, 1), reads, least_used).tolist() == [[[0.0, 1.0, 0.0]]]


@random_cases(40)
@given(seeds, sizes, st.integers(1, 3), slot_counts, sizes)
def test_write_agrees_with_equation_8(seed, batch, heads, slots, width):
    memory, keys = normal(seed, batch, slots, width), normal(seed + 1, batch, heads, width)
    weights, usage = shares(seed + 2, batch, heads, slots), usage_with_ties(seed + 3, batch, slots)
    least_used = lrua.least_used_slots(torch.tensor(usage), heads)
    before = torch.tensor(memory)
    found = lrua.write(before, least_used, torch.tensor(weights), torch.tensor(keys))
    np.testing.assert_array_equal(before, memory)  # nothing is changed in place
    for b in range(batch):
        erased = reference.erase(memory[b], reference.least_used_slots(usage[b], heads))
        np.testing.assert_allclose(found[b], reference.write(erased, weights[b], keys[b]), atol=1e-13)


@pytest.mark.parametrize("heads", [1, 3])
def test_the_least_used_slots_are_zeroed_even_if_nothing_is_written_and_no_other_slot_is(heads):
    memory = torch.tensor(normal(1, 2, 6, 3))
    usage = torch.tensor(np.random.default_rng(0).random((2, 6)))
    least_used = lrua.least_used_slots(usage, heads)
    nothing = torch.zeros(2, heads, 6, dtype=torch.float64)
    after = lrua.write(memory, least_used, nothing, torch.ones(2, heads, 3, dtype=torch.float64))
    marked = least_used.sum(1).bool()
    assert marked.sum() == 2 * heads
    assert (after[marked] == 0).all()
    assert torch.equal(after[~marked], memory[~marked])


def test_a_slot_that_was_zeroed_holds_nothing_but_the_new_key():
    memory, keys = torch.tensor(normal(2, 1, 4, 3)), torch.tensor(normal(3, 1, 2, 3))
    least_used = lrua.least_used_slots(torch.tensor([[5.0, 0.0, 4.0, 1.0]]).double(), 2)
    closed = lrua.write_weights(torch.zeros(1, 2, 1).double(), torch.full((1, 2, 4), 0.25).double(), least_used)
    after = lrua.write(memory, least_used, closed, keys)
    torch.testing.assert_close(after[0, 1], keys[0, 0])  # head 0 writes to the least used slot
    torch.testing.assert_close(after[0, 3], keys[0, 1])  # head 1 to the second least used
    assert torch.equal(after[0, [0, 2]], memory[0, [0, 2]])
