"""Labels, drawings and orders of the image tasks: who sees what, and what comes when."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from PIL import Image

from lib.tasks.online_images import (
    FewShotConfig,
    FewShotLabels,
    LabelledImages,
    OnlineConfig,
    OnlineLabels,
    OnlineSequences,
    SmallImages,
    occurrence_numbers,
)
from lib.tasks.online_tasks import SequenceTask
from lib.tasks.streams import Scored
from tests.cases import random_cases, seeds
from tests.experiments.made_up import made_up_characters

SMALL = OnlineConfig(seen=20, unseen=8)
CHARACTERS = made_up_characters()


@pytest.fixture(scope="module")
def labels():
    return OnlineLabels(SMALL, CHARACTERS)


@pytest.fixture(scope="module")
def few_shot():
    return FewShotLabels(FewShotConfig(validation_characters=200), CHARACTERS)


def sequences(labels, part, seed=0):
    return OnlineSequences(labels, part, seed=seed, stream=part)


def test_an_image_is_shrunk_as_pillow_does_and_turned_as_numpy_does():
    images = CHARACTERS.images([0, 1, 2])
    bank = SmallImages(images)
    for turn in range(4):
        found = bank.draw(torch.tensor([0, 2]), torch.tensor([3, 5]), torch.tensor([turn, turn])).view(2, 28, 28)
        for image, drawn in zip((images[0, 3], images[2, 5]), found, strict=True):
            page = Image.fromarray(image * np.uint8(255)).resize((28, 28), Image.Resampling.BILINEAR)
            expected = np.rot90(np.asarray(page) / 255, turn)
            assert np.abs(expected - drawn.numpy()).max() < 0.01
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    assert bank.draw(zeros, zeros, zeros).shape == (2, 3, 784)


def test_no_drawing_serves_two_parts(labels):
    parts = [
        labels.network_drawings,
        labels.train_drawings,
        labels.validation_drawings,
        labels.test_drawings,
    ]
    assert [len(part) for part in parts] == [10, 4, 2, 4]
    assert sorted(torch.cat(parts).tolist()) == list(range(20))


def test_labels_are_the_same_each_time_and_the_paper_has_350():
    a, b = OnlineLabels(SMALL, CHARACTERS), OnlineLabels(SMALL, CHARACTERS)
    assert torch.equal(a.bank.pixels, b.bank.pixels)
    assert torch.equal(a.turns, b.turns)
    assert set(a.turns.tolist()) == {0, 1, 2, 3}
    assert OnlineConfig().all_labels == 350


def test_a_sequence_shows_each_of_its_labels_twice_and_no_drawing_again(labels):
    seen = Counter()
    for index in range(20):
        batch = sequences(labels, "test").batch(index, 5)
        assert batch.xs.images.shape == (5, 10, 784)
        for images, ys, occurrence in zip(batch.xs.images, batch.ys, batch.occurrence, strict=True):
            assert sorted(Counter(ys.tolist()).values()) == [2] * 5
            assert occurrence.tolist() == [ys[: t + 1].tolist().count(int(y)) for t, y in enumerate(ys)]
            assert len({image.numpy().tobytes() for image in images}) == 10
        assert torch.equal(batch.new, batch.ys >= SMALL.seen)
        seen.update(batch.ys.flatten().tolist())
    assert set(seen) == set(range(28))  # new labels come as often as others
    new = sum(count for label, count in seen.items() if label >= SMALL.seen) / seen.total()
    assert new == pytest.approx(8 / 28, abs=0.08)


def test_training_shows_seen_labels_alone_and_lets_some_play_new_ones(labels):
    known_ones = set()
    for index in range(20):
        batch = sequences(labels, "train").batch(index, 5)
        assert batch.ys.max() < SMALL.seen
        known = batch.xs.known
        assert known.sum() == SMALL.seen - round(SMALL.seen * SMALL.unseen / SMALL.all_labels)
        assert not known[SMALL.seen :].any()
        assert torch.equal(batch.new, ~known[batch.ys])
        known_ones.add(tuple(known.tolist()))
    assert len(known_ones) > 15
    test = sequences(labels, "test").batch(0, 1).xs.known
    assert test.tolist() == [True] * SMALL.seen + [False] * SMALL.unseen


def test_images_are_those_of_the_part_and_the_label(labels):
    for part, drawings in (("train", labels.train_drawings), ("test", labels.test_drawings)):
        batch = sequences(labels, part).batch(0, 4)
        for image, y in zip(batch.xs.images.flatten(0, 1), batch.ys.flatten(), strict=True):
            own = labels.bank.draw(
                labels.characters[y].expand(len(drawings)), drawings, labels.turns[y].expand(len(drawings))
            )
            assert (own == image).all(1).any()


def test_batches_are_functions_of_seed_and_index(labels):
    a, b = sequences(labels, "train"), sequences(labels, "train")
    a.batch(4, 3)
    assert torch.equal(a.batch(7, 3).xs.images, b.batch(7, 3).xs.images)
    assert not torch.equal(a.batch(7, 3).ys, a.batch(8, 3).ys)
    assert not torch.equal(a.batch(7, 3).ys, sequences(labels, "train", seed=1).batch(7, 3).ys)
    images = labels.images(labels.network_drawings, seed=0, stream="network")
    assert torch.equal(images.batch(1, 8).xs, images.batch(1, 8).xs)
    assert images.batch(1, 64).ys.max() < SMALL.seen


def test_too_few_characters_or_drawings_are_refused():
    with pytest.raises(ValueError, match="32 characters"):
        OnlineLabels(OnlineConfig(), CHARACTERS)
    with pytest.raises(ValueError, match="20 drawings"):
        OnlineLabels(OnlineConfig(seen=20, unseen=8, network_drawings=14), CHARACTERS)


@random_cases(10)
@given(seeds)
def test_a_batch_of_passes_shows_each_label_once_a_pass_by_different_drawings(seed):
    bank = SmallImages(CHARACTERS.images([0, 1, 2]))
    turned = torch.arange(12)
    images = LabelledImages(bank, turned // 4, turned % 4, torch.arange(20), seed=seed, stream="passes", times=2)
    batch = images.batch(0, 14)
    first, second = batch.ys.split(7)
    assert len(set(first.tolist())) == 7
    assert sorted(first.tolist()) == sorted(second.tolist())
    for y in first:
        a, b = batch.xs[batch.ys == y]
        assert not torch.equal(a, b)
    for wrong in (13, 26):
        with pytest.raises(ValueError, match="12 labels"):
            images.batch(0, wrong)


def test_parts_of_the_label_space_share_no_character(few_shot):
    counts = [few_shot.train_labels, few_shot.count["validation"], few_shot.count["test"]]
    assert counts == [24, 16, 88]  # of 32 characters, in proportion
    parts = [few_shot.characters[: counts[0]]]
    for part in ("validation", "test"):
        first = few_shot.first[part]
        parts.append(few_shot.characters[first : first + few_shot.count[part]])
    assert sorted(c for part in parts for c in set(part.tolist())) == list(range(32))


@pytest.mark.parametrize(("order", "times"), [("passes", 4), ("mixed", 10)])
def test_a_stream_shows_each_label_so_many_times_by_different_drawings(few_shot, order, times):
    stream = few_shot.stream("test", order, 0)
    count = few_shot.count["test"]
    assert Counter(stream.ys.tolist()) == {label: times for label in range(count)}
    assert len(set(zip(stream.ys.tolist(), stream.drawings.tolist(), strict=True))) == times * count
    seen = Counter()
    for y, occurrence in zip(stream.ys.tolist(), stream.occurrence.tolist(), strict=True):
        seen[y] += 1
        assert occurrence == seen[y]
    in_passes = (stream.occurrence.diff() >= 0).all()
    assert bool(in_passes) == (order == "passes")
    assert torch.equal(stream.ys, few_shot.stream("test", order, 0).ys)
    assert not torch.equal(stream.ys, few_shot.stream("test", order, 1).ys)


def test_another_order_is_refused(few_shot):
    with pytest.raises(ValueError, match="known: passes, mixed"):
        few_shot.stream("test", "sorted", 0)


@random_cases(20)
@given(seeds)
def test_occurrences_are_counted_from_1(seed):
    ys = torch.randint(4, (30,), generator=torch.Generator().manual_seed(seed))
    assert occurrence_numbers(ys).tolist() == [ys[: t + 1].tolist().count(int(y)) for t, y in enumerate(ys)]


def test_only_second_occurrences_count_and_by_kind(labels):
    task = SequenceTask(*(sequences(labels, part) for part in ("train", "validation", "test")))
    batch, tally = task.test.batch(0, 6), task.tally()
    second = batch.occurrence == 2
    rank = torch.where(second & batch.new, 1.0, torch.where(second, 1.5, 1.0))  # a tie is not right
    scored = Scored(torch.full(rank.shape, -0.5), rank)
    loss = task.loss(scored, batch)
    assert loss == pytest.approx(0.5)
    tally.add(scored, batch, loss)
    summary, new = tally.summary(), int((second & batch.new).sum())
    assert summary["counts"] == [30, new, 30 - new]
    assert summary["hits"] == [new, new, 0]
    assert summary["loss"] == pytest.approx(0.5)
    tally.reset()
    assert tally.summary()["accuracy"] == [None] * 3
