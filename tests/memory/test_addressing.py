"""Content-based addressing against equations 2 to 4 in naive NumPy, and what it must mean."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.memory import addressing
from tests.cases import normal, random_cases, seeds
from tests.methods import reference_mann as reference

sizes = st.integers(1, 5)


def keys_and_memory(seed, batch, heads, slots, width, scale=1.0):
    """Random keys (B, R, M) and memory (B, N, M) with some empty slots and sometimes an empty key."""
    random = np.random.default_rng(seed)
    keys, memory = random.standard_normal((batch, heads, width)), random.standard_normal((batch, slots, width)) * scale
    memory[random.random((batch, slots)) < 0.3] = 0.0
    keys[random.random((batch, heads)) < 0.1] = 0.0
    return keys, memory


@random_cases(60)
@given(seeds, sizes, sizes, sizes, sizes, st.sampled_from([1e-6, 1e-3, 1.0, 1e4]))
def test_similarity_weights_and_read_agree_with_the_equations(seed, batch, heads, slots, width, scale):
    keys, memory = keys_and_memory(seed, batch, heads, slots, width, scale)
    similarity = addressing.cosine_similarity(torch.tensor(keys), torch.tensor(memory))
    weights = addressing.content_weights(torch.tensor(keys), torch.tensor(memory))
    vectors = addressing.read(weights, torch.tensor(memory))
    assert similarity.shape == weights.shape == (batch, heads, slots)
    assert vectors.shape == (batch, heads, width)
    for b in range(batch):
        for head in range(heads):
            expected = reference.read_weight(keys[b, head], memory[b])
            np.testing.assert_allclose(weights[b, head], expected, atol=1e-12)
            np.testing.assert_allclose(
                vectors[b, head], reference.read_vector(expected, memory[b]), atol=1e-12 * max(scale, 1)
            )
            for i in range(slots):
                naive = reference.cosine(keys[b, head], memory[b, i])
                np.testing.assert_allclose(similarity[b, head, i], naive, atol=1e-12)


@random_cases(20)
@given(seeds, sizes, sizes, sizes, sizes)
def test_read_agrees_with_equation_4_for_any_weights(seed, batch, heads, slots, width):
    weights, memory = normal(seed, batch, heads, slots), normal(seed + 1, batch, slots, width)
    vectors = addressing.read(torch.tensor(weights), torch.tensor(memory))
    for b in range(batch):
        for head in range(heads):
            np.testing.assert_allclose(vectors[b, head], reference.read_vector(weights[b, head], memory[b]), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_sum_to_one_and_similarities_stay_between_minus_one_and_one(dtype):
    keys, memory = (torch.tensor(a, dtype=dtype) for a in keys_and_memory(1, 4, 3, 50, 8, 1e3))
    weights = addressing.content_weights(keys, memory)
    assert weights.dtype == dtype
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 3, dtype=dtype))
    assert (weights > 0).all()
    assert addressing.cosine_similarity(keys, memory).abs().max() <= 1 + 1e-6


def test_an_empty_slot_has_similarity_zero_and_a_finite_gradient():
    keys = torch.tensor(normal(3, 1, 2, 4), dtype=torch.float32, requires_grad=True)
    memory = torch.zeros(1, 3, 4)
    memory[0, 1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    memory.requires_grad_()
    similarity = addressing.cosine_similarity(keys, memory)
    assert (similarity[:, :, [0, 2]] == 0).all()
    assert (similarity[:, :, 1].abs() > 1e-3).all()
    addressing.read(addressing.content_weights(keys, memory), memory).square().sum().backward()
    for gradient in (keys.grad, memory.grad):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


def test_an_empty_memory_is_read_evenly_and_gives_nothing():
    keys, memory = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 7, 4)
    weights = addressing.content_weights(keys, memory)
    torch.testing.assert_close(weights, torch.full((2, 3, 7), 1 / 7))
    assert (addressing.read(weights, memory) == 0).all()


def test_an_empty_key_reads_evenly_with_a_finite_gradient():
    keys = torch.zeros(1, 1, 4, requires_grad=True)
    memory = torch.tensor(normal(5, 1, 6, 4), dtype=torch.float32)
    weights = addressing.content_weights(keys, memory)
    torch.testing.assert_close(weights, torch.full((1, 1, 6), 1 / 6))
    weights[0, 0, 0].backward()
    assert torch.isfinite(keys.grad).all()


def test_the_direction_counts_and_not_the_length():
    keys, memory = torch.tensor(normal(7, 2, 3, 5)), torch.tensor(normal(8, 2, 4, 5))
    longer = addressing.content_weights(40 * keys, memory * torch.tensor([0.5, 2.0, 30.0, 1.0]).view(1, 4, 1).double())
    torch.testing.assert_close(longer, addressing.content_weights(keys, memory), atol=1e-6, rtol=0)


def test_the_slot_that_points_the_keys_way_gets_the_most_and_the_opposite_one_the_least():
    key = torch.tensor([[[1.0, 2.0]]])
    memory = torch.tensor([[[2.0, -1.0], [-3.0, -6.0], [0.1, 0.2], [1.0, 0.0]]])
    torch.testing.assert_close(
        addressing.cosine_similarity(key, memory), torch.tensor([[[0.0, -1.0, 1.0, 5**-0.5]]]), atol=1e-6, rtol=0
    )
    weights = addressing.content_weights(key, memory)[0, 0]
    assert weights.argmax() == 2
    assert weights.argmin() == 1
    # No sharpening: the best slot gets at most e^2 times what the worst one gets.
    torch.testing.assert_close(weights[2] / weights[1], torch.tensor(2.0).exp(), rtol=1e-5, atol=0)
