"""Kaiser et al.'s memory against a list of slots whose ages are counted up one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines import kaiser
from lib.baselines.convnet import ConvNetConfig
from lib.baselines.kaiser import KaiserEmbedding, KaiserMemory
from lib.experiments.runs import fresh
from tests.cases import normal, random_cases, seeds


def unit(vector):
    return vector / np.linalg.norm(vector)


class Naive:
    """Slots as the paper tells them, in plain Python."""

    def __init__(self, slots, width):
        self.keys, self.values, self.ages = [np.zeros(width)] * slots, [None] * slots, [10**6] * slots

    def nearest(self, query):
        cosines = [-np.inf if v is None else k @ query for k, v in zip(self.keys, self.values, strict=True)]
        return int(np.argmax(cosines))

    def answer(self, query):
        return self.values[self.nearest(query)]

    def write(self, query, y):
        slot = self.nearest(query)
        if self.values[slot] == y:
            key = unit(self.keys[slot] + query)
        else:
            slot = int(np.argmax(self.ages))
            key = query
        self.ages = [age + 1 for age in self.ages]
        self.keys[slot], self.values[slot], self.ages[slot] = key, y, 0


def stream(seed, labels=6, steps=90, width=5):
    """Steps of labels whose vectors spread about a direction each, hard enough for errors."""
    random = np.random.default_rng(seed)
    ys = random.integers(labels, size=steps)
    return normal(seed, labels, width)[ys] + 0.7 * normal(seed + 1, steps, width), ys


@random_cases(20)
@given(seeds, st.integers(1, 9))
def test_online_answers_are_those_of_the_naive_memory(seed, slots):
    hidden, ys = stream(seed)
    naive, expected = Naive(slots, hidden.shape[1]), []
    for h, y in zip(hidden, ys, strict=True):
        expected.append(naive.answer(unit(h)) == y)
        naive.write(unit(h), y)
    found = kaiser.answer_online(torch.tensor(hidden), torch.tensor(ys), slots)
    assert found.tolist() == expected


@random_cases(20)
@given(seeds, st.integers(1, 9))
def test_one_step_at_a_time_gives_the_naive_memory(seed, slots):
    hidden, ys = stream(seed, steps=40)
    naive, memory = Naive(slots, hidden.shape[1]), kaiser.empty_memory(slots, hidden.shape[1], torch.tensor(hidden))
    for h, y in zip(hidden, ys, strict=True):
        query = torch.tensor(unit(h)).unsqueeze(0)
        nearest, found = kaiser.answers(kaiser.similarities(query, memory), memory)
        memory = kaiser.written(memory, query, torch.tensor([y]), nearest, found == y)
        naive.write(unit(h), y)
    np.testing.assert_allclose(memory.keys, np.stack(naive.keys), atol=1e-12)
    assert memory.values.tolist() == [-1 if value is None else value for value in naive.values]
    written = [age < 10**6 for age in naive.ages]
    now = int(memory.touched.max())
    assert [now - t for t, w in zip(memory.touched.tolist(), written, strict=True) if w] == [
        age for age, w in zip(naive.ages, written, strict=True) if w
    ]


def test_a_batch_goes_to_slots_of_its_own():
    """Two right ones move their keys, two wrong ones take the two oldest slots, the lower first; the rest stays."""
    keys = torch.eye(6, dtype=torch.float64)
    memory = KaiserMemory(keys, torch.tensor([0, 1, 2, 3, 4, -1]), torch.tensor([3, 1, 5, 2, 4, 0]))
    queries = torch.nn.functional.normalize(torch.eye(6, dtype=torch.float64)[:4] + 0.1, dim=1)
    ys = torch.tensor([0, 7, 2, 8])
    nearest, found = kaiser.answers(kaiser.similarities(queries, memory), memory)
    after = kaiser.written(memory, queries, ys, nearest, found == ys)
    assert nearest.tolist() == [0, 1, 2, 3]
    assert after.values.tolist() == [0, 8, 2, 3, 4, 7]
    assert after.touched.tolist() == [6, 6, 6, 2, 4, 6]
    torch.testing.assert_close(after.keys[0], torch.nn.functional.normalize(keys[0] + queries[0], dim=0))
    torch.testing.assert_close(after.keys[5], queries[1])
    assert torch.equal(after.keys[[3, 4]], keys[[3, 4]])
    assert memory.values.tolist() == [0, 1, 2, 3, 4, -1]  # the memory before is left as it was


@random_cases(20)
@given(seeds)
def test_the_loss_is_the_margin_of_the_nearest_right_over_the_nearest_wrong_key(seed):
    random = np.random.default_rng(seed)
    keys = np.stack([unit(k) for k in normal(seed, 8, 3)])
    values = random.integers(-1, 4, 8)
    queries, ys = np.stack([unit(q) for q in normal(seed + 1, 5, 3)]), random.integers(0, 5, 5)
    expected = []
    for query, y in zip(queries, ys, strict=True):
        right = [k @ query for k, v in zip(keys, values, strict=True) if v == y]
        wrong = [k @ query for k, v in zip(keys, values, strict=True) if v not in (y, -1)]
        expected.append(max(0, max(wrong) - max(right) + 0.1) if right and wrong else 0)
    memory = KaiserMemory(torch.tensor(keys), torch.tensor(values), torch.zeros(8, dtype=torch.int64))
    queries = torch.tensor(queries, requires_grad=True)
    found = kaiser.memory_loss(kaiser.similarities(queries, memory), memory, torch.tensor(ys), 0.1)
    np.testing.assert_allclose(found.detach(), expected, atol=1e-12)
    found.sum().backward()
    assert torch.isfinite(queries.grad).all()


def test_an_embedding_writes_while_it_trains_and_not_while_it_is_tested():
    learner = fresh(lambda: KaiserEmbedding(ConvNetConfig(labels=0, filters=4, width=8), 5, cells=2, margin=3.0), 0)
    images = torch.rand(5, 784, generator=torch.Generator().manual_seed(1))
    ys = torch.arange(5)
    outputs = learner(images, ys)
    assert outputs.tolist() == [[0.0, 0.0]] * 5  # nothing to compare with, and nothing found
    assert learner.values.tolist() == [0, 1, 2, 3, 4] + [-1] * 5
    outputs = learner(images, ys)
    assert outputs[:, 1].tolist() == [1.0] * 5
    outputs[:, 0].sum().backward()
    assert next(learner.network.parameters()).grad.abs().sum() > 0
    before = learner.touched.clone()
    learner.eval()(images, ys)
    assert torch.equal(learner.touched, before)
    again = fresh(lambda: KaiserEmbedding(ConvNetConfig(labels=0, filters=4, width=8), 5, cells=2, margin=3.0), 1)
    again.load_state_dict(learner.state_dict())  # a checkpoint holds the memory, too
    assert torch.equal(again.eval()(images, ys), learner(images, ys))


def test_an_empty_memory_has_no_answer():
    memory = kaiser.empty_memory(3, 2, torch.zeros(()))
    similar = kaiser.similarities(torch.tensor([[1.0, 0.0]]), memory)
    assert similar.max() == -torch.inf
    assert kaiser.answers(similar, memory)[1].tolist() == [-1]
    assert kaiser.memory_loss(similar, memory, torch.tensor([0]), 0.1).tolist() == [0.0]
    assert kaiser.answer_online(torch.ones(1, 2), torch.tensor([0]), 3).tolist() == [False]
    assert pytest.approx(0) == memory.keys.abs().sum()
