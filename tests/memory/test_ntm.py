"""The access of a Neural Turing Machine against loops over its equations, and what its settings must mean."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.memory import ntm
from tests.cases import random_cases, seeds

SIZES = (st.integers(1, 3), st.integers(1, 3), st.integers(3, 7), st.integers(1, 5))


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@random_cases(40)
@given(seeds, *SIZES)
def test_each_function_is_its_equation(seed, batch, heads, slots, width):
    memory, keys = draw(seed, batch, slots, width), draw(seed + 1, batch, heads, width)
    strength, gate = draw(seed + 2, batch, heads, 1).exp(), draw(seed + 3, batch, heads, 1).sigmoid()
    before = draw(seed + 4, batch, heads, slots).softmax(-1)
    by, power = draw(seed + 5, batch, heads, 3).softmax(-1), 1 + draw(seed + 6, batch, heads, 1).exp()
    erase, add = draw(seed + 7, batch, heads, width).sigmoid(), draw(seed + 8, batch, heads, width)

    content = ntm.focus_by_content(keys, strength, memory)
    gated = ntm.interpolate(gate, content, before)
    shifted = ntm.shift(gated, by)
    sharp = ntm.sharpen(shifted, power)
    written = ntm.erase_and_add(memory, sharp, erase, add)
    for b in range(batch):
        expected = memory[b].tolist()
        for h in range(heads):
            scores = []
            for i in range(slots):
                dot = sum(keys[b, h, w].item() * memory[b, i, w].item() for w in range(width))
                lengths = math.hypot(*keys[b, h].tolist()) * math.hypot(*memory[b, i].tolist())
                scores.append(math.exp(strength[b, h, 0].item() * dot / lengths))
            g, s, p = gate[b, h, 0].item(), by[b, h].tolist(), power[b, h, 0].item()
            mixed = [g * x / sum(scores) + (1 - g) * before[b, h, i].item() for i, x in enumerate(scores)]
            moved = [sum(s[j] * mixed[(i - ntm.SHIFTS[j]) % slots] for j in range(3)) for i in range(slots)]
            raised = [m**p for m in moved]
            for i in range(slots):
                assert abs(sharp[b, h, i].item() - raised[i] / sum(raised)) < 1e-4
                for w in range(width):
                    expected[i][w] *= 1 - sharp[b, h, i].item() * erase[b, h, w].item()
        for i in range(slots):
            for w in range(width):
                added = sum(sharp[b, h, i].item() * add[b, h, w].item() for h in range(heads))
                assert abs(written[b, i, w].item() - expected[i][w] - added) < 1e-9


def test_a_shift_fully_on_moves_the_head_by_one_slot_around_the_end():
    weights = torch.tensor([[[0.0, 0.0, 1.0]]])
    assert ntm.shift(weights, torch.tensor([[[0.0, 0.0, 1.0]]])).tolist() == [[[1.0, 0.0, 0.0]]]
    assert ntm.shift(weights, torch.tensor([[[1.0, 0.0, 0.0]]])).tolist() == [[[0.0, 1.0, 0.0]]]
    assert ntm.shift(weights, torch.tensor([[[0.0, 1.0, 0.0]]])).tolist() == weights.tolist()


def test_a_high_power_leaves_one_slot():
    weights = ntm.sharpen(torch.tensor([[[0.3, 0.4, 0.3]]]), torch.tensor([[[50.0]]]))
    torch.testing.assert_close(weights, torch.tensor([[[0.0, 1.0, 0.0]]]), atol=1e-5, rtol=0)


def test_an_empty_slot_is_far_from_every_key_and_has_a_finite_gradient():
    memory = torch.zeros(1, 3, 2, requires_grad=True)
    weights = ntm.focus_by_content(torch.ones(1, 1, 2), torch.full((1, 1, 1), 5.0), memory)
    torch.testing.assert_close(weights, torch.full((1, 1, 3), 1 / 3))
    weights[0, 0, 0].backward()
    assert memory.grad.isfinite().all()


def test_erasing_and_adding_fully_at_one_slot_replaces_its_row():
    memory = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    written = ntm.erase_and_add(memory, torch.tensor([[[0.0, 1.0]]]), torch.ones(1, 1, 2), torch.tensor([[[7.0, 8.0]]]))
    assert written.tolist() == [[[1.0, 2.0], [7.0, 8.0]]]


def test_a_great_power_leaves_the_greatest_weights_and_no_nan():
    even = torch.full((1, 1, 128), 1 / 128)
    torch.testing.assert_close(ntm.sharpen(even, torch.full((1, 1, 1), 500.0)), even)
