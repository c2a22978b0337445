"""Nearest neighbours against scikit-learn's classifier, fitted anew at every step, and their accuracy by instance."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from lib.baselines.nearest_neighbour import knn_accuracy, nearest_labels
from lib.tasks.episodes import EpisodeConfig, EpisodeSampler
from lib.tasks.images import ImageBank
from lib.tasks.seeds import generator
from tests.cases import random_cases, seeds
from tests.tasks.drawings import strokes


def sampler(classes: int = 3, length: int = 30) -> EpisodeSampler:
    config = EpisodeConfig(classes=classes, length=length)
    return EpisodeSampler(ImageBank(strokes(6, 20)), config, seed=0, stream="test")


@random_cases(15)
@given(seeds, st.integers(1, 3), st.integers(1, 15), st.integers(2, 4), st.integers(1, 4))
def test_answers_are_scikit_learns_refitted_at_every_step(seed, batch, length, classes, neighbours):
    random = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, length, 3, generator=random)
    labels = torch.randint(classes, (batch, length), generator=random)
    guesses = torch.randint(classes, (batch,), generator=random)
    found = nearest_labels(features, labels, guesses, classes, neighbours)
    assert torch.equal(found[:, 0], guesses)
    for b in range(batch):
        for t in range(1, length):
            refitted = KNeighborsClassifier(min(neighbours, t), algorithm="brute")
            refitted.fit(features[b, :t].double().numpy(), labels[b, :t].numpy())
            assert found[b, t] == refitted.predict(features[b, t : t + 1].double().numpy())[0]


def test_an_image_as_near_as_another_but_seen_before_it_is_nearer():
    features = torch.tensor([[[0.0], [2.0], [1.0], [-1.0], [1.0]]])
    labels = torch.tensor([[2, 0, 1, 1, 0]])
    found = nearest_labels(features, labels, torch.tensor([1]), classes=3)
    assert found.tolist() == [[1, 2, 2, 2, 1]]


def test_no_answer_is_told_the_labels_that_come_after_it():
    random = torch.Generator().manual_seed(0)
    features, guesses = torch.randn(1, 12, 2, generator=random), torch.zeros(1, dtype=torch.int64)
    labels = torch.randint(4, (1, 12), generator=random)
    for t in range(12):
        others = labels.clone()
        others[:, t:] = (others[:, t:] + 1) % 4
        found, changed = (nearest_labels(features, ys, guesses, classes=4) for ys in (labels, others))
        assert torch.equal(found[:, : t + 1], changed[:, : t + 1])


def test_without_any_neighbour_there_is_no_answer():
    with pytest.raises(ValueError, match="at least one nearest neighbour"):
        nearest_labels(torch.zeros(1, 2, 1), torch.zeros(1, 2, dtype=torch.int64), torch.tensor([0]), 2, neighbours=0)


def test_first_instances_are_right_once_in_n_squared():
    found = knn_accuracy(sampler(), batches=10)
    first, count = found["hits"][0], found["counts"][0]
    assert count == 10 * 16 * 3  # each of the three classes comes in thirty images
    expected = count / 3**2
    assert abs(first - expected) < 4 * expected**0.5


def test_only_first_instances_are_wrong_where_characters_cannot_be_mixed_up():
    """All drawings of a character are one image, not turned: the nearest image is of the same character."""
    images = strokes(6, 20)
    images[:] = images[:, :1]
    config = EpisodeConfig(classes=3, length=30, quarter_turns=False, jitter=False)
    found = knn_accuracy(EpisodeSampler(ImageBank(images), config, seed=0, stream="test"), batches=3)
    assert found["accuracy"][1:] == [1.0] * 9
    assert found["accuracy"][0] < 0.5


def test_hits_agree_with_counting_by_hand():
    episodes = sampler(classes=4, length=40)
    found = knn_accuracy(episodes, batches=2, seed=3)
    hits, counts = [0] * 10, [0] * 10
    for index in range(2):
        batch = episodes.batch(index, 16)
        guesses = torch.randint(4, (16,), generator=generator(3, "first guess", index))
        answers = nearest_labels(batch.xs, batch.ys, guesses, 4)
        for labels, answered in zip(batch.ys.tolist(), answers.tolist(), strict=True):
            for t, label in enumerate(labels):
                instance = labels[: t + 1].count(label)
                if instance <= 10:
                    counts[instance - 1] += 1
                    hits[instance - 1] += answered[t] == label
    assert (found["hits"], found["counts"]) == (hits, counts)
    assert found["accuracy"] == [h / c for h, c in zip(hits, counts, strict=True)]
    assert knn_accuracy(episodes, batches=2, seed=3) == found


def test_instances_that_never_came_have_no_accuracy():
    found = knn_accuracy(sampler(classes=3, length=5), batches=1)
    assert found["accuracy"][5:] == [None] * 5
    assert found["counts"][5:] == [0] * 5


def test_the_encoder_makes_what_is_compared():
    episodes = sampler()
    blind = knn_accuracy(episodes, batches=2, encode=lambda xs: torch.zeros_like(xs[..., :1]))
    first_seen = 0  # to whom all images look alike, the first image's class is the answer to all
    for index in range(2):
        ys = episodes.batch(index, 16).ys
        first_seen += sum((labels == labels[0]).nonzero()[:10].numel() - 1 for labels in ys)
    assert sum(blind["hits"][1:]) == first_seen
