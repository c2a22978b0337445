"""The search by faiss: what it finds, that it follows the memory, and what it says where faiss is missing."""

import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.memory.episodic import EpisodicMemory, ExactIndex, Index
from lib.memory.faiss_index import FaissIndex, recall
from lib.tasks.seeds import generator
from tests.cases import random_cases, seeds


def in_clusters(count: int, stream: str) -> torch.Tensor:
    """Keys around 30 centres, so far from them that clusters overlap."""
    centres = torch.randn(30, 16, generator=generator(0, "centres", 0))
    random = generator(0, stream, 0)
    return centres[torch.randint(30, (count,), generator=random)] + torch.randn(count, 16, generator=random)


@given(seeds, st.integers(1, 40), st.integers(1, 5))
@random_cases(20)
def test_all_lists_together_hold_all_that_is_nearest(seed, held, asked):
    pytest.importorskip("faiss")
    keys = torch.randn(held, 4, generator=generator(seed, "keys", 0))
    queries = torch.randn(asked, 4, generator=generator(seed, "queries", 0))
    found = FaissIndex(probes=held).candidates(queries, keys, min(3, held))
    assert recall(found, ExactIndex().candidates(queries, keys, min(3, held))) == 1


def test_few_lists_find_some_and_more_lists_find_more():
    pytest.importorskip("faiss")
    keys, queries = in_clusters(3000, "keys"), in_clusters(100, "queries")
    true = ExactIndex().candidates(queries, keys, 20)
    found = [recall(FaissIndex(probes).candidates(queries, keys, 20), true) for probes in (1, 4, 16)]
    assert 0.3 < found[0] < found[1] < found[2] and found[2] > 0.95


def test_it_is_built_anew_when_the_memory_was_written_to():
    pytest.importorskip("faiss")
    index = FaissIndex()
    assert isinstance(index, Index)
    memory = EpisodicMemory(200, 16, like=torch.zeros(()), index=index)
    memory.append(in_clusters(150, "keys"), torch.zeros(150).long())
    query = torch.full((1, 16), 9.0)
    memory.nearest(query, 1)
    built = index._index
    memory.nearest(query, 2)
    assert index._index is built
    for step in range(3):  # the last one overwrites the first keys of a memory that is full
        at = memory.append(torch.cat([in_clusters(49, "more"), query + step]), torch.zeros(50).long())
        assert memory.nearest(query + step, 1).positions.item() == at[-1].item()
        assert index._index is not built


def test_a_query_with_too_few_keys_in_its_lists_is_answered_all_the_same():
    pytest.importorskip("faiss")
    keys = torch.cat([torch.zeros(2, 3), torch.ones(20, 3)]) + torch.arange(22).unsqueeze(1) * 1e-3
    found = FaissIndex(probes=1, lists=2).candidates(torch.zeros(1, 3), keys, 5)
    assert found[0].tolist() == [0, 1, 2, 3, 4]


def test_recall_counts_whatever_the_order():
    true = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert recall(torch.tensor([[3, 1, 2], [4, 9, 8]]), true) == pytest.approx(4 / 6)


def test_what_cannot_be_is_refused(monkeypatch):
    with monkeypatch.context() as missing:
        missing.setitem(sys.modules, "faiss", None)
        with pytest.raises(ValueError, match=r"pip install -r requirements-faiss\.txt"):
            FaissIndex()
    pytest.importorskip("faiss")
    for wrong in ({"probes": 0}, {"lists": 0}):
        with pytest.raises(ValueError, match="at least one list"):
            FaissIndex(**wrong)
