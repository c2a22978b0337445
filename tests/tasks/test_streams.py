"""Streams of tokens: batches that depend on their number alone, padding that counts for nothing, ranks, sums."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.tasks.streams import Scored, StreamSampler, StreamTally, StreamTask, WholeStreams, padded, rank_of, score
from tests.cases import random_cases, seeds

SEQUENCES = [np.arange(start, start + length) for start, length in ((0, 4), (100, 30), (200, 2), (300, 11))]


def sampler(**changes) -> StreamSampler:
    return StreamSampler(**({"sequences": SEQUENCES, "steps": 7, "seed": 3, "stream": "train"} | changes))


def test_a_batch_is_a_function_of_seed_stream_and_number():
    first, again = sampler().batch(5, 8), sampler().batch(5, 8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (sampler(seed=4).batch(5, 8), sampler(stream="test").batch(5, 8), sampler().batch(6, 8)):
        assert not torch.equal(first.xs, other.xs)


@given(seeds, st.integers(1, 40))
@random_cases(40)
def test_windows_are_consecutive_tokens_of_one_sequence(seed, steps):
    batch = sampler(seed=seed, steps=steps).batch(0, 6)
    for xs, ys, mask in zip(*batch, strict=True):
        length = int(mask.sum())
        assert mask[:length].all() and not xs[length:].any() and not ys[length:].any()
        sequence = next(each for each in SEQUENCES if xs[0] in each)
        assert length == min(steps, len(sequence) - 1)
        assert torch.equal(xs[:length], torch.arange(int(xs[0]), int(xs[0]) + length))
        assert torch.equal(ys[:length], xs[:length] + 1) and int(ys[length - 1]) in sequence


def test_long_sequences_are_entered_anywhere():
    starts = {int(row[0]) for n in range(300) for row in sampler().batch(n, 4).xs if row[0] >= 100 and row[0] < 200}
    assert starts == set(range(100, 100 + 30 - 7))


def test_whole_streams_are_all_of_them_once_the_like_together():
    whole = WholeStreams(SEQUENCES)
    batches = [whole.batch(index, 3) for index in range(whole.batches(3))]
    assert [batch.mask.sum(1).tolist() for batch in batches] == [[1, 3, 10], [29]]
    assert sorted(int(xs[0]) for batch in batches for xs in batch.xs) == [0, 100, 200, 300]
    assert WholeStreams(SEQUENCES, steps=5).batch(1, 3).mask.sum(1).tolist() == [5]


@given(seeds)
@random_cases(60)
def test_ranks_and_likelihoods_are_those_of_sorting(seed):
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.integers(0, 4, (2, 3, 5)).astype(float))  # with ties
    ys = torch.from_numpy(random.integers(0, 5, (2, 3)))
    scored = score(logits, ys)
    for b in range(2):
        for t in range(3):
            z, y = logits[b, t].numpy(), ys[b, t].item()
            places = [place for place, value in enumerate(sorted(z, reverse=True), 1) if value == z[y]]
            assert scored.rank[b, t] == pytest.approx(sum(places) / len(places))
            assert scored.log_likelihood[b, t] == pytest.approx(z[y] - math.log(sum(np.exp(z))))


def test_equal_chances_share_the_middle_rank():
    assert rank_of(torch.zeros(9), torch.zeros(1)).item() == 5


@given(seeds)
@random_cases(30)
def test_tally_and_loss_count_each_token_alike_and_no_padding(seed):
    random = np.random.default_rng(seed)
    task, tally = StreamTask(sampler(), WholeStreams(SEQUENCES), WholeStreams(SEQUENCES)), None
    tally, log_likelihoods, ranks = task.tally(), [], []
    for index in range(2):
        batch = task.train.batch(index, 3)
        scored = Scored(
            torch.from_numpy(-random.exponential(1, batch.xs.shape)),
            torch.from_numpy(random.integers(1, 9, batch.xs.shape).astype(np.float32)),
        )
        loss = task.loss(scored, batch)
        assert loss.item() == pytest.approx(-scored.log_likelihood[batch.mask].mean().item())
        tally.add(scored, batch, loss)
        log_likelihoods += scored.log_likelihood[batch.mask].tolist()
        ranks += scored.rank[batch.mask].tolist()
    found = tally.summary()
    assert found["log_perplexity"] == pytest.approx(-np.mean(log_likelihoods))
    assert found["mrr"] == pytest.approx(np.mean(1 / np.array(ranks)))
    assert found["tokens"] == len(ranks)
    assert sum(n for *_, n in found["by_step"]) == len(ranks)
    tally.reset()
    assert tally.summary()["tokens"] == 0 and StreamTally.empty().summary()["mrr"] == 0


def test_scores_by_how_far_in_its_stream_a_token_came():
    steps = 5000
    batch = padded([np.zeros(steps + 1, np.int64)])
    scored = Scored(-torch.arange(1.0, steps + 1).unsqueeze(0), torch.ones(1, steps))
    tally = StreamTally.empty()
    tally.add(scored, batch, torch.zeros(()))
    by_step = tally.summary()["by_step"]
    for k, (nll, rank, count) in enumerate(by_step):
        last = min(2 ** (k + 1), steps + 1) if k < 11 else steps + 1
        assert count == last - 2**k and rank == 1
        assert nll == pytest.approx(np.mean(np.arange(2**k, last)), rel=1e-6)


def test_padding_is_told_from_token_zero():
    batch = padded([np.array([0, 0, 0]), np.array([0, 1])])
    assert batch.mask.tolist() == [[True, True], [True, False]]
