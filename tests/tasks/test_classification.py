"""The score by instance and the loss, against counting by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.tasks.classification import COUNTED_INSTANCES, ClassificationTask, InstanceTally
from lib.tasks.episodes import EpisodeConfig, Episodes, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.tasks.labels import OneHot
from tests.cases import random_cases, seeds


def batch_of(ys: torch.Tensor) -> Episodes:
    return Episodes(torch.zeros(*ys.shape, 400), ys, torch.zeros(len(ys), 5, dtype=torch.int64), ys)


@pytest.fixture(scope="module")
def task():
    def sampler(stream):
        bank = ImageBank(np.zeros((5, 20, 105, 105), dtype=np.uint8))
        return EpisodeSampler(bank, EpisodeConfig(), seed=0, stream=stream)

    return ClassificationTask(sampler("train"), sampler("validation"), sampler("test"), OneHot(5))


@random_cases(30)
@given(seeds, st.integers(1, 3), st.integers(1, 30), st.integers(2, 5), st.integers(1, 3))
def test_the_tally_agrees_with_counting(seed, size, length, classes, batches):
    random = torch.Generator().manual_seed(seed)
    tally, hits, counts, losses = InstanceTally.of(OneHot(classes)), [0] * 10, [0] * 10, []
    for _ in range(batches):
        ys = torch.randint(classes, (size, length), generator=random)
        logits, loss = torch.randn(size, length, classes, generator=random), torch.rand((), generator=random)
        tally.add(logits, batch_of(ys), loss)
        losses.append(loss.item())
        for b in range(size):
            seen = [0] * classes
            for t in range(length):
                label = ys[b, t].item()
                seen[label] += 1
                if seen[label] <= 10:
                    counts[seen[label] - 1] += 1
                    hits[seen[label] - 1] += logits[b, t].tolist().index(max(logits[b, t].tolist())) == label
    summary = tally.summary()
    assert summary["hits"] == hits
    assert summary["counts"] == counts
    assert summary["loss"] == pytest.approx(sum(losses) / batches, rel=1e-5)
    assert summary["accuracy"] == [h / c if c else None for h, c in zip(hits, counts, strict=True)]


def test_an_oracle_that_knows_only_what_it_was_told_scores_by_instance():
    """Answers class 0 until it has been told: wrong at first sight of the others, right from the second on."""
    ys = torch.tensor([[0, 1, 2, 0, 1, 2, 2]])
    answers = torch.tensor([[0, 0, 0, 0, 1, 2, 2]])
    tally = InstanceTally.of(OneHot(3))
    tally.add(torch.nn.functional.one_hot(answers, 3).float(), batch_of(ys), torch.tensor(0.5))
    summary = tally.summary()
    assert summary["accuracy"][:4] == [pytest.approx(1 / 3), 1.0, 1.0, None]
    assert summary["counts"][:4] == [3, 3, 1, 0]


def test_the_eleventh_instance_is_not_counted():
    tally = InstanceTally.of(OneHot(3))
    tally.add(torch.zeros(1, 15, 2), batch_of(torch.zeros(1, 15, dtype=torch.int64)), torch.tensor(0.0))
    assert COUNTED_INSTANCES == 10
    assert tally.summary()["counts"] == [1] * 10


def test_an_empty_tally_has_no_accuracy(task):
    summary = task.tally().summary()
    assert summary["accuracy"] == [None] * 10
    assert summary["loss"] == 0


def test_adding_to_one_tally_leaves_the_next_one_empty(task):
    task.tally().add(torch.zeros(1, 3, 2), batch_of(torch.tensor([[0, 1, 0]])), torch.tensor(1.0))
    assert task.tally().summary()["counts"] == [0] * 10
    first = InstanceTally.of(OneHot(3))
    first.add(torch.zeros(1, 3, 2), batch_of(torch.tensor([[1, 1, 1]])), torch.tensor(1.0))
    assert first.summary()["hits"] == [0] * 10  # counts and hits do not share memory


@random_cases(20)
@given(seeds, st.integers(1, 3), st.integers(1, 8))
def test_the_loss_is_the_mean_negative_log_probability(task, seed, size, length):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(size, length, 4, generator=random, dtype=torch.float64)
    ys = torch.randint(4, (size, length), generator=random)
    total = 0.0
    for b in range(size):
        for t in range(length):
            exponentials = [math.exp(v) for v in logits[b, t].tolist()]
            total -= math.log(exponentials[ys[b, t]] / sum(exponentials))
    assert task.loss(logits, batch_of(ys)).item() == pytest.approx(total / (size * length), rel=1e-9)


def test_chance_costs_the_logarithm_of_the_number_of_classes(task):
    ys = torch.randint(5, (4, 50), generator=torch.Generator().manual_seed(0))
    assert task.loss(torch.zeros(4, 50, 5), batch_of(ys)).item() == pytest.approx(math.log(5))


def test_a_task_knows_its_device(task):
    assert task.device == torch.device("cpu")
