"""Episodes: who is in them, in which order, and that the order of the labels gives nothing away."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.tasks.episodes import EpisodeConfig, EpisodeSampler, instance_numbers
from lib.tasks.images import MAX_ANGLE, MAX_SHIFT, ImageBank
from lib.tasks.seeds import generator
from tests.cases import random_cases, seeds
from tests.tasks.drawings import strokes

CLASSES, DRAWINGS = 12, 20


class WatchedBank(ImageBank):
    """Remembers what was asked of it, and draws nothing: quick enough for thousands of episodes."""

    def draw(self, classes, drawings, quarter_turns=None, angles=None, shifts=None):
        self.asked = {
            "classes": classes,
            "drawings": drawings,
            "quarter_turns": quarter_turns,
            "angles": angles,
            "shifts": shifts,
        }
        return torch.zeros(*classes.shape, 400)


@pytest.fixture(scope="module")
def images():
    return strokes(CLASSES, DRAWINGS)


@pytest.fixture(scope="module")
def watched(images):
    return WatchedBank(images)


@pytest.fixture(scope="module")
def bank(images):
    return ImageBank(images)


def chi_square(counts) -> float:
    """Pearson's statistic against equal counts."""
    counts = np.asarray(counts, dtype=float).flatten()
    return float(((counts - counts.mean()) ** 2 / counts.mean()).sum())


def surely_not_by_chance(degrees: int) -> float:
    """What a chi-square statistic exceeds with a chance below about 1e-5 (Wilson and Hilferty's approximation)."""
    return degrees * (1 - 2 / (9 * degrees) + 4.3 * math.sqrt(2 / (9 * degrees))) ** 3


configs = st.builds(
    EpisodeConfig,
    classes=st.integers(1, 6),
    length=st.integers(1, 20),
    balanced=st.booleans(),
    quarter_turns=st.booleans(),
    jitter=st.booleans(),
).filter(lambda c: c.length % c.classes == 0 or not c.balanced)


@random_cases(40)
@given(configs, seeds, st.integers(1, 4))
def test_every_episode_is_well_made(config, seed, size):
    bank = WatchedBank(np.zeros((CLASSES, DRAWINGS, 105, 105), dtype=np.uint8))
    batch = EpisodeSampler(bank, config, seed=seed, stream="train").batch(3, size)
    assert batch.xs.shape == (size, config.length, 400)
    assert batch.ys.shape == (size, config.length)
    assert batch.ys.dtype == torch.int64
    assert batch.characters.shape == (size, config.classes)
    assert ((batch.ys >= 0) & (batch.ys < config.classes)).all()
    assert ((batch.characters >= 0) & (batch.characters < CLASSES)).all()
    asked = bank.asked
    # The image shown is of the character that bears the label.
    assert torch.equal(asked["classes"], batch.characters.gather(1, batch.ys))
    for b in range(size):
        assert len(set(batch.characters[b].tolist())) == config.classes
        shown = list(zip(asked["classes"][b].tolist(), asked["drawings"][b].tolist(), strict=True))
        assert len(set(shown)) == config.length  # no drawing twice
        assert all(0 <= drawing < DRAWINGS for _, drawing in shown)
        if config.balanced:
            assert (
                torch.bincount(batch.ys[b], minlength=config.classes).tolist()
                == [config.length // config.classes] * config.classes
            )
        if config.quarter_turns:
            # One turn for each class of the episode, whatever the drawing.
            turns = {}
            for label, turn in zip(batch.ys[b].tolist(), asked["quarter_turns"][b].tolist(), strict=True):
                assert turns.setdefault(label, turn) == turn
                assert turn in (0, 1, 2, 3)
    assert (asked["quarter_turns"] is None) is not config.quarter_turns
    assert (asked["angles"] is None) is not config.jitter
    assert (asked["shifts"] is None) is not config.jitter


def test_the_defaults_are_the_papers():
    config = EpisodeConfig()
    assert (config.classes, config.length, config.balanced) == (5, 50, False)
    assert math.pi / 16 == MAX_ANGLE
    assert MAX_SHIFT == 10


def test_unbalanced_counts_are_those_of_drawing_without_replacement(watched):
    ys = EpisodeSampler(watched, EpisodeConfig(), seed=1, stream="train").batch(0, 4000).ys
    counts = torch.nn.functional.one_hot(ys, 5).sum(1).double()
    # Hypergeometric: 50 of 100 drawings, 20 of each class.
    torch.testing.assert_close(counts.mean(0), torch.full((5,), 10.0).double(), atol=0.15, rtol=0)
    torch.testing.assert_close(counts.var(0), torch.full((5,), 50 * 0.2 * 0.8 * 50 / 99).double(), atol=0.4, rtol=0)


@pytest.mark.parametrize(("balanced", "same"), [(False, 19 / 99), (True, 9 / 49)])
def test_a_label_tells_of_the_next_only_what_drawing_without_replacement_does(watched, balanced, same):
    """A network without memory sees the last label: with it no guess beats 20.5%."""
    ys = EpisodeSampler(watched, EpisodeConfig(balanced=balanced), seed=2, stream="train").batch(0, 4000).ys
    last, now = ys[:, :-1].flatten(), ys[:, 1:].flatten()
    repeated = (last == now).double().mean().item()
    assert repeated == pytest.approx(same, abs=4.5 * math.sqrt(0.16 / len(now)))
    follows = torch.zeros(5, 5).index_put((last, now), torch.ones(()), accumulate=True)
    assert (follows / follows.sum(1, keepdim=True)).max() < 0.21


@pytest.mark.parametrize("balanced", [False, True])
def test_every_label_is_as_likely_at_every_step(watched, balanced):
    ys = EpisodeSampler(watched, EpisodeConfig(balanced=balanced), seed=3, stream="train").batch(0, 4000).ys
    for t in range(50):
        assert chi_square(torch.bincount(ys[:, t], minlength=5)) < surely_not_by_chance(4), t


def test_the_check_of_the_label_order_would_catch_a_sorted_one(watched):
    ys = EpisodeSampler(watched, EpisodeConfig(), seed=3, stream="train").batch(0, 200).ys.sort(dim=1).values
    assert chi_square(torch.bincount(ys[:, 0], minlength=5)) > surely_not_by_chance(4)
    assert (ys[:, 1:] == ys[:, :-1]).double().mean() > 0.9


def test_characters_get_any_label_and_any_turn_alike(watched):
    batch = EpisodeSampler(watched, EpisodeConfig(), seed=4, stream="train").batch(0, 6000)
    bears = np.zeros((CLASSES, 5))
    for label in range(5):
        bears[:, label] = torch.bincount(batch.characters[:, label], minlength=CLASSES)
    assert bears.sum() == 30_000
    # Which characters are drawn, and with which label: all alike. (A character is in an episode at most once.)
    assert chi_square(bears) < surely_not_by_chance(CLASSES * 5 - 1)
    assert chi_square(bears.sum(1)) < surely_not_by_chance(CLASSES - 1)
    turned = torch.zeros(CLASSES, 4).index_put(
        (watched.asked["classes"][:, 0], watched.asked["quarter_turns"][:, 0]), torch.ones(()), accumulate=True
    )
    assert chi_square(turned) < surely_not_by_chance(CLASSES * 4 - 1)


def test_the_order_of_the_drawings_gives_no_label_away(watched):
    batch = EpisodeSampler(watched, EpisodeConfig(), seed=5, stream="train").batch(0, 3000)
    both = torch.zeros(DRAWINGS, 5).index_put(
        (watched.asked["drawings"].flatten(), batch.ys.flatten()), torch.ones(()), accumulate=True
    )
    assert chi_square(both) < surely_not_by_chance(DRAWINGS * 5 - 1)


def test_jitter_is_uniform_within_the_papers_bounds_and_new_for_each_image(watched):
    EpisodeSampler(watched, EpisodeConfig(), seed=6, stream="train").batch(0, 400)
    angles, shifts = watched.asked["angles"], watched.asked["shifts"]
    for values, bound in ((angles, math.pi / 16), (shifts[..., 0], 10.0), (shifts[..., 1], 10.0)):
        assert values.abs().max() <= bound
        shares = torch.histc(values / bound, bins=10, min=-1, max=1)
        assert chi_square(shares) < surely_not_by_chance(9)
        assert len(values.unique()) > 0.99 * values.numel()
    assert abs(np.corrcoef(shifts[..., 0].flatten(), shifts[..., 1].flatten())[0, 1]) < 0.03
    assert abs(np.corrcoef(angles.flatten(), shifts[..., 1].flatten())[0, 1]) < 0.03


def test_a_batch_depends_on_seed_stream_and_number_alone(bank):
    config = EpisodeConfig(length=10)

    def batch(index, seed=7, stream="train", sampler=None):
        return (sampler or EpisodeSampler(bank, config, seed=seed, stream=stream)).batch(index, 3)

    used = EpisodeSampler(bank, config, seed=7, stream="train")
    first = batch(5)
    for index in (0, 9, 4):
        batch(index, sampler=used)
    torch.rand(100)  # the global generator has no part in it
    for again in (batch(5, sampler=used), batch(5, sampler=used), batch(5)):
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (batch(6), batch(5, seed=8), batch(5, stream="test")):
        assert not torch.equal(first.characters, other.characters)
        assert not torch.equal(first.ys, other.ys)
        assert not torch.equal(first.xs, other.xs)


def test_batches_of_a_run_differ(watched):
    sampler = EpisodeSampler(watched, EpisodeConfig(), seed=0, stream="train")
    orders = {tuple(sampler.batch(index, 1).ys[0].tolist()) for index in range(300)}
    assert len(orders) == 300


def test_episodes_of_a_batch_have_their_own_characters_and_orders(watched):
    batch = EpisodeSampler(watched, EpisodeConfig(), seed=9, stream="train").batch(0, 16)
    assert len({tuple(row) for row in batch.characters.tolist()}) > 10
    assert len({tuple(row) for row in batch.ys.tolist()}) == 16


def test_drawing_leaves_the_global_generator_alone(bank):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    EpisodeSampler(bank, EpisodeConfig(length=5), seed=0, stream="train").batch(0, 2)
    assert torch.equal(torch.rand(3), expected)


def test_the_images_shown_are_those_of_the_bank(bank):
    config = EpisodeConfig(length=20, quarter_turns=False, jitter=False)
    batch = EpisodeSampler(bank, config, seed=10, stream="train").batch(0, 2)
    all_drawings = bank.draw(
        *(index.flatten() for index in torch.meshgrid(torch.arange(CLASSES), torch.arange(DRAWINGS), indexing="ij"))
    )
    for b in range(2):
        for t in range(20):
            distances = (all_drawings - batch.xs[b, t]).abs().sum(1)
            assert distances.min() == 0
            assert distances.argmin() // DRAWINGS == batch.characters[b, batch.ys[b, t]]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EpisodeConfig(classes=5, length=52, balanced=True), "52 images"),
        (EpisodeConfig(classes=CLASSES + 1, length=CLASSES + 1), f"bank has {CLASSES}"),
        (EpisodeConfig(classes=2, length=2 * DRAWINGS + 2, balanced=True), f"bank has {DRAWINGS} of each"),
        (EpisodeConfig(classes=2, length=2 * DRAWINGS + 1), f"bank has {DRAWINGS} of each"),
    ],
)
def test_what_the_bank_cannot_give_is_refused_at_once(watched, config, message):
    with pytest.raises(ValueError, match=message):
        EpisodeSampler(watched, config, seed=0, stream="train")


def test_all_drawings_of_all_classes_can_be_asked_for(watched):
    config = EpisodeConfig(classes=CLASSES, length=CLASSES * DRAWINGS)
    ys = EpisodeSampler(watched, config, seed=0, stream="train").batch(0, 2).ys
    assert torch.equal(torch.nn.functional.one_hot(ys, CLASSES).sum(1), torch.full((2, CLASSES), DRAWINGS))


@random_cases(40)
@given(seeds, st.integers(1, 4), st.integers(1, 30), st.integers(1, 6))
def test_instance_numbers_agree_with_counting(seed, batch, length, classes):
    ys = torch.randint(classes, (batch, length), generator=torch.Generator().manual_seed(seed))
    found = instance_numbers(ys, classes)
    for b in range(batch):
        seen = [0] * classes
        for t in range(length):
            seen[ys[b, t]] += 1
            assert found[b, t] == seen[ys[b, t]]


@random_cases(30)
@given(seeds, st.sampled_from(["train", "test", "weights"]), st.integers(0, 10**6))
def test_a_generator_can_be_entered_anywhere(seed, stream, index):
    def draw(*where):
        return torch.rand(4, generator=generator(*where)).tolist()

    assert draw(seed, stream, index) == draw(seed, stream, index)
    neighbours = [(seed + 1, stream, index), (seed, stream + "!", index), (seed, stream, index + 1)]
    assert all(draw(*where) != draw(seed, stream, index) for where in neighbours)


def test_streams_cannot_be_confused_by_how_their_names_are_joined():
    assert generator(1, "a", 12).initial_seed() != generator(1, "a/1", 2).initial_seed()
    assert generator(11, "a", 1).initial_seed() != generator(1, "1/a", 1).initial_seed()


def test_string_labels_change_the_labels_and_nothing_else(watched):
    plain, spelt = (
        EpisodeSampler(watched, EpisodeConfig(strings=strings), seed=2, stream="s").batch(4, 64)
        for strings in (False, True)
    )
    assert torch.equal(plain.members, plain.ys)
    assert torch.equal(spelt.members, plain.members)
    assert torch.equal(spelt.characters, plain.characters)
    # All images of a class bear one string, and over many episodes strings are spread over all that there are.
    for b in range(64):
        assert len({(int(m), int(y)) for m, y in zip(spelt.members[b], spelt.ys[b], strict=True)}) <= 5
    shares = torch.bincount(spelt.ys.flatten() // 625, minlength=5) / spelt.ys.numel()
    assert (shares - 0.2).abs().max() < 0.08
    assert spelt.ys.min() >= 0 and spelt.ys.max() < 3125
