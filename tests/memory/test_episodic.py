"""The circular buffer and its search against slow ones, and what they must mean."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import kernels
from lib.memory import episodic
from lib.memory.episodic import EpisodicMemory, ExactIndex, kernel_weights, nearest, nearest_earlier
from tests.cases import normal, random_cases, seeds
from tests.methods import reference_mbpa as reference


@random_cases(200)
@given(
    seeds,
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 30),
    st.integers(1, 5),
    st.sampled_from([1, 7, 40, 10_000]),
    st.sampled_from([1, 6, episodic.IN_CACHE]),
)
def test_the_nearest_are_those_of_looking_at_all(seed, asked, k, held, width, at_once, in_cache):
    keys, queries = torch.from_numpy(normal(seed, held, width)), torch.from_numpy(normal(seed + 1, asked, width))
    squares = keys.square().sum(1)
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(episodic, "IN_CACHE", in_cache)
        positions = ExactIndex(at_once).candidates(queries, keys, min(k, held), squares)
    found = nearest(queries, keys, k)
    for i, query in enumerate(queries.numpy()):
        expected = reference.nearest(query, keys.numpy(), k)
        assert positions[i].tolist() == expected
        assert found.positions[i].tolist() == expected
        distances = [((keys[j] - queries[i]) ** 2).sum() for j in expected]
        np.testing.assert_allclose(found.distances[i], distances, rtol=1e-12)


@pytest.mark.skipif(not kernels.compiler(), reason="needs a C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@random_cases(100)
@given(seeds, st.integers(1, 12), st.integers(1, 40), st.integers(1, 70), st.integers(1, 2))
def test_one_query_s_nearest_by_the_kernel(dtype, seed, k, held, width, threads):
    keys, query = normal(seed, held, width), normal(seed + 1, 1, width)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(episodic, "MANY", 1)
        smaller.setattr(episodic.ExactIndex, "candidates", None)  # it would fail
        try:
            torch.set_num_threads(threads)
            found = nearest(torch.from_numpy(query).to(dtype), torch.from_numpy(keys).to(dtype), k)
        finally:
            torch.set_num_threads(before)
    expected = reference.nearest(query[0], keys, k)
    assert found.positions[0].tolist() == expected
    distances = ((keys[expected] - query) ** 2).sum(1)
    np.testing.assert_allclose(found.distances[0], distances, rtol=1e-12 if dtype == torch.float64 else 1e-4)


def test_where_there_is_no_kernel_one_query_has_the_same_nearest(monkeypatch):
    keys, query = torch.randn(200, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    expected = nearest(query, keys, 9)  # too few for a kernel
    monkeypatch.setattr(episodic, "MANY", 1)
    columns = keys.T.contiguous().T
    monkeypatch.setattr(kernels, "available", lambda *which: False)
    for own in (keys, columns):
        torch.testing.assert_close(nearest(query, own, 9), expected)
    monkeypatch.undo()
    monkeypatch.setattr(episodic, "MANY", 1)
    monkeypatch.setattr(kernels, "load", None)  # what is not in rows is not given to it
    torch.testing.assert_close(nearest(query, columns, 9), expected)
    assert nearest(query.bfloat16(), keys.bfloat16(), 9).positions.shape == expected.positions.shape


@random_cases(50)
@given(seeds, st.integers(1, 9))
def test_weights_of_the_kernel(seed, k):
    keys, query = normal(seed, k, 3), normal(seed + 1, 3)
    distances = torch.from_numpy(((keys - query) ** 2).sum(1)).unsqueeze(0)
    expected = reference.kernel_weights(query, keys, 0.01)
    np.testing.assert_allclose(kernel_weights(distances, 0.01)[0], expected, rtol=1e-12)


def test_a_key_that_is_the_query_itself_takes_nearly_all():
    keys = torch.tensor([[1000.0, 0.0], [1001.0, 0.0], [1000.01, 0.0]])
    found = nearest(keys[:1], keys, 3)
    assert found.positions[0].tolist() == [0, 2, 1]
    assert found.distances[0, 0] == 0, "differences, not products, which have no digit left here"
    assert found.distances[0, 1] == pytest.approx(1e-4, rel=0.01)
    assert kernel_weights(found.distances, 1e-6)[0, 0] > 0.98


@random_cases(100)
@given(seeds, st.integers(1, 6), st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_the_oldest_is_overwritten_first(seed, capacity, sizes):
    memory = EpisodicMemory(capacity, 2, like=torch.zeros((), dtype=torch.float64))
    written = []
    for i, size in enumerate(sizes):
        keys = torch.from_numpy(normal(seed + i, size, 2))
        values = torch.arange(len(written), len(written) + size)
        at = memory.append(keys, values)
        written += list(zip(keys.tolist(), values.tolist(), strict=True))
        assert len(at) == min(size, capacity) and memory.values[at].tolist() == values[size - len(at) :].tolist()
    kept = written[-capacity:]
    assert len(memory) == len(kept) and memory.written == len(written)
    order = memory.in_order()
    assert memory.values[order].tolist() == [value for _, value in kept]
    assert memory.keys[order].tolist() == [key for key, _ in kept]
    np.testing.assert_allclose(memory._squares[: len(memory)], memory.keys.square().sum(1))


@pytest.mark.parametrize("written", [3, 4, 7])
def test_one_pair_is_forgotten_and_the_rest_go_on_in_order(written):
    memory = EpisodicMemory(4, 1, like=torch.zeros(()))
    memory.append(torch.arange(written).float().unsqueeze(1), torch.arange(written))
    kept = memory.values[memory.in_order()].tolist()
    gone = memory.values[1].item()
    memory.remove(1)
    kept.remove(gone)
    assert memory.values[memory.in_order()].tolist() == kept
    memory.append(torch.tensor([[50.0], [51.0], [52.0]]), torch.tensor([50, 51, 52]))
    assert memory.values[memory.in_order()].tolist() == (kept + [50, 51, 52])[-4:]
    with pytest.raises(ValueError, match="there is no pair 4: the memory holds 4"):
        memory.remove(4)


def test_context_of_numbers_and_of_classes():
    memory = EpisodicMemory(5, 2, (3,), like=torch.zeros(()))
    memory.append(torch.eye(2), torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    context = memory.context(torch.tensor([[0.9, 0.0]]), 10, 1e-3)
    assert context.values.tolist() == [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]] and context.keys.shape == (1, 2, 2)
    assert context.weights.sum() == pytest.approx(1) and context.weights[0, 0] > 0.98
    assert EpisodicMemory(5, 2, like=torch.zeros(())).values.dtype == torch.int64


@random_cases(100)
@given(
    seeds,
    st.integers(1, 12),
    st.integers(1, 30),
    st.sets(st.integers(0, 19), min_size=1, max_size=6).map(sorted),
)
def test_the_nearest_earlier_steps_are_those_of_looking_at_all(seed, k, size, at):
    hidden = torch.from_numpy(normal(seed, 20, 3))
    found = nearest_earlier(hidden, torch.tensor(at), size, k, 0.01)
    for i, t in enumerate(at):
        first = max(0, t - size)
        expected = reference.nearest(hidden[t].numpy(), hidden[first:t].numpy(), k) if t else []
        there = found.weights[i] > 0
        near = [first + each for each in expected]
        assert found.positions[i][there].tolist() == near
        np.testing.assert_allclose(found.products[i][there], hidden[near] @ hidden[t], atol=1e-12)
        if near:
            weights = reference.kernel_weights(hidden[t].numpy(), hidden[near].numpy(), 0.01)
            np.testing.assert_allclose(found.weights[i][there], weights, rtol=1e-9)


@pytest.mark.parametrize("held", [255, 256, 700, 1024])
def test_one_query_meets_stacks_of_keys_and_the_rest(held):
    keys, query = torch.from_numpy(normal(3, held, 5)), torch.from_numpy(normal(4, 1, 5))
    found = nearest(query, keys, held)
    assert found.positions[0].tolist() == reference.nearest(query[0].numpy(), keys.numpy(), held)


@pytest.mark.parametrize("asked", [1, 2])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_keys_and_queries_may_have_gradients_and_few_digits(kind, asked):
    keys = torch.arange(12.0).view(6, 2).to(kind).requires_grad_()
    queries = torch.tensor([[5.0, 6.0], [0.0, 1.5]], dtype=kind, requires_grad=True)
    found = nearest(queries[:asked], keys, 2)
    assert found.positions.sort(1).values.tolist() == [[2, 3], [0, 1]][:asked]
    found.distances.sum().backward()  # of what was found, not of the search
    for i, at in enumerate(found.positions):
        np.testing.assert_allclose(
            queries.grad[i].float(), (2 * (queries[i] - keys[at])).sum(0).detach().float(), rtol=1e-2
        )


@pytest.mark.parametrize("spread", [1e-3, 0.03, 1.0])
@pytest.mark.parametrize("at_once", [episodic.DISTANCES_AT_ONCE, 1])
def test_weights_keep_their_digits_where_steps_are_much_nearer_than_their_size(monkeypatch, spread, at_once):
    monkeypatch.setattr(episodic, "DISTANCES_AT_ONCE", at_once)
    hidden = torch.from_numpy(normal(5, 1, 40) + spread * normal(6, 60, 40)).float()
    found = nearest_earlier(hidden, torch.arange(40, 60), 30, 8, 1e-3)
    differences = hidden.double()[found.positions] - hidden.double()[40:].unsqueeze(1)
    expected = kernel_weights(differences.square().sum(2), 1e-3)
    np.testing.assert_allclose(found.weights, expected, rtol=2e-5)


def test_no_query_has_no_neighbours():
    memory = EpisodicMemory(5, 2, like=torch.zeros(()))
    memory.append(torch.eye(2), torch.arange(2))
    context = memory.context(torch.zeros(0, 2), 4, 1e-3)
    assert context.keys.shape == (0, 2, 2) and context.values.shape == context.weights.shape == (0, 2)


def test_an_empty_memory_has_no_neighbours():
    memory = EpisodicMemory(5, 2, like=torch.zeros(()))
    context = memory.context(torch.zeros(3, 2), 4, 1e-3)
    assert context.keys.shape == (3, 0, 2) and context.weights.shape == (3, 0)


def test_another_index_is_asked_and_its_misses_are_accepted():
    class FirstTwo:
        def candidates(self, queries, keys, k):
            return torch.tensor([[1, 0]]).expand(len(queries), 2)

    memory = EpisodicMemory(5, 1, like=torch.zeros(()), index=FirstTwo())
    memory.append(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 2]))
    assert memory.nearest(torch.tensor([[2.0]]), 2).positions.tolist() == [[1, 0]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="room for at least one key, not 0"):
        EpisodicMemory(0, 2, like=torch.zeros(()))
    memory = EpisodicMemory(3, 2, like=torch.zeros(()))
    for keys, values in ((torch.zeros(1, 3), torch.zeros(1).long()), (torch.zeros(2, 2), torch.zeros(1).long())):
        with pytest.raises(ValueError, match=r"expected keys \(some, 2\)"):
            memory.append(keys, values)
    with pytest.raises(ValueError, match="at least one neighbour"):
        memory.nearest(torch.zeros(1, 2), 0)


def test_blocks_are_bounded(monkeypatch):
    """No product of queries and keys is larger than what may be held at once."""
    sizes, add = [], torch.add

    def counted(norms, products, alpha, out):
        sizes.append(products.numel())
        assert out.untyped_storage().nbytes() <= 4 * 3200
        return add(norms, products, alpha=alpha, out=out)

    monkeypatch.setattr(episodic.torch, "add", counted)
    keys = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    found = ExactIndex(at_once=3200).candidates(keys[:100], keys, 5, keys.square().sum(1))
    assert 3200 - 100 < max(sizes) <= 3200 and found[:, 0].tolist() == list(range(100))


def test_distances_a_few_queries_at_a_time(monkeypatch):
    keys, queries = torch.from_numpy(normal(1, 9, 3)), torch.from_numpy(normal(2, 4, 3))
    whole = nearest(queries, keys, 5)
    monkeypatch.setattr(episodic, "IN_CACHE", 1)
    torch.testing.assert_close(nearest(queries, keys, 5), whole)
