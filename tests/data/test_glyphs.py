"""The stand-in glyphs: what a reader may rely on, and the steps that make them."""

from pathlib import Path

import numpy as np
import pytest

from lib.data import Characters, glyphs, load_characters, load_glyphs
from lib.data.glyphs import ALIKE, distinct_skeletons, redraw, rotated_similarity
from lib.data.outlines import characters_of, fill, outline, thin
from lib.data.store import array_digest

# Made with the pinned fonts; another machine, thread count or library version must make the very same bits.
DIGEST = "b4183cfd084bd60d401f822827e7fe30b49f11670c91177c73f3b6fc4c6406fb"


@pytest.fixture(scope="module")
def chosen() -> tuple[np.ndarray, list[str]]:
    return distinct_skeletons()


@pytest.fixture(scope="module")
def skeletons(chosen: tuple[np.ndarray, list[str]]) -> np.ndarray:
    return chosen[0]


@pytest.fixture(scope="module")
def made(session_cache: Path, chosen: tuple[np.ndarray, list[str]]) -> Characters:
    """The glyphs, made once for all tests here and read back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOK_CACHE_DIR", str(session_cache))
        patch.setattr(glyphs, "distinct_skeletons", lambda: chosen)
        load_glyphs()
        return load_glyphs()


def test_they_are_the_same_everywhere(made: Characters):
    assert made.digest == array_digest(made.packed) == DIGEST


def test_they_say_that_they_are_a_stand_in_and_are_mapped_from_the_cache(made: Characters):
    assert made.is_standin and made.name == "glyphs" and isinstance(made.packed, np.memmap)


def test_enough_classes_of_enough_scripts(made: Characters):
    scripts = [name.rsplit(" U+", 1)[0] for name in made.class_names]
    assert len(made) >= 300 and made.drawers == 20
    assert len(set(made.class_names)) == len(made)
    assert len(set(scripts)) >= 8
    train, test = made.train_test_split()
    unseen = {scripts[index] for index in test} - {scripts[index] for index in train}
    assert len(unseen) >= 4


def test_drawings_are_centred_whole_and_all_different(made: Characters):
    images = made.images()
    ink = images.mean((2, 3))
    assert ink.min() > 0.005 and ink.max() < 0.3 and 0.05 < ink.mean() < 0.1  # Omniglot's mean is 0.08
    rows, columns = images.any(3), images.any(2)
    for filled in (rows, columns):
        first, last = filled.argmax(2), 104 - filled[:, :, ::-1].argmax(2)
        assert np.abs((first + last) / 2 - 52).max() < 20
    border = rows[:, :, 0] | rows[:, :, -1] | columns[:, :, 0] | columns[:, :, -1]
    assert border.mean() < 0.002
    assert np.maximum(rows.sum(2), columns.sum(2)).min() > 25
    assert len({drawing.tobytes() for drawing in made.packed.reshape(-1, 105 * 14)}) == len(made) * 20


def test_no_two_classes_look_alike_in_any_rotation(skeletons: np.ndarray):
    similarity = rotated_similarity(skeletons)
    assert (np.diag(similarity) == 1).all()
    assert similarity[~np.eye(len(similarity), dtype=bool)].max() < ALIKE


def test_mean_drawings_of_classes_differ_in_every_rotation(made: Characters):
    """Another measure than the one that chose the classes: correlation of the mean drawings at 21x21 pixels."""
    means = made.images().reshape(len(made), 20, 21, 5, 21, 5).mean((1, 3, 5))
    means -= means.mean((1, 2), keepdims=True)
    means /= np.sqrt((means**2).sum((1, 2), keepdims=True))
    flat = means.reshape(len(made), -1)
    for turns in range(4):
        correlation = np.rot90(means, turns, (1, 2)).reshape(len(made), -1) @ flat.T
        np.fill_diagonal(correlation, 0)
        assert correlation.max() < 0.95  # Omniglot's own closest pair: 0.97


def test_similarity_means_what_it_says(skeletons: np.ndarray):
    some = skeletons[:6]
    turned = np.stack([np.rot90(image, turns) for turns, image in enumerate(some)])
    both = rotated_similarity(np.concatenate([some, turned]))
    assert (np.diag(both[:6, 6:]) == 1).all()
    assert (both == both.T).all()
    shifted = np.concatenate([some, np.roll(some, (3, -3), (1, 2))])
    assert (np.diag(rotated_similarity(shifted)[:6, 6:]) == 1).all()


def test_look_alikes_of_other_scripts_are_left_out(made: Characters):
    codes = {name.rsplit("U+", 1)[1] for name in made.class_names}
    for alike in ({"0041", "0391", "0410"}, {"0042", "0392", "0412"}, {"1405", "1401", "140A", "0394"}):
        assert len(codes & alike) == 1


def test_drawers_differ_and_a_seed_repeats_them(skeletons: np.ndarray):
    first = redraw(skeletons[0], 5, np.random.default_rng(3))
    assert (first == redraw(skeletons[0], 5, np.random.default_rng(3))).all()
    assert (first != redraw(skeletons[0], 5, np.random.default_rng(4))).any()
    assert all((first[i] != first[j]).any() for i in range(5) for j in range(i))


def test_the_cache_follows_the_recipe(cache: Path, monkeypatch: pytest.MonkeyPatch, skeletons: np.ndarray):
    made = []

    def few():
        made.append(1)
        return np.packbits(redraw(skeletons[0], 20, np.random.default_rng(0))[None], axis=-1), ["Latin U+0041"]

    monkeypatch.setattr(glyphs, "make_glyphs", few)
    assert load_characters("glyphs").digest == load_glyphs().digest
    assert len(made) == 1
    monkeypatch.setattr(glyphs, "RECIPE", glyphs.RECIPE + 1)
    load_glyphs()
    assert len(made) == 2


def polygon(*corners: tuple[float, float]) -> np.ndarray:
    return np.array([(*a, *b) for a, b in zip(corners, corners[1:] + corners[:1], strict=True)], float)


def test_fill_a_square_and_one_with_a_hole():
    outer = polygon((0, 0), (0, 10), (10, 10), (10, 0))
    square = fill(outer, 20, 10)
    assert square[5:15, 5:15].all() and square.sum() == 100
    hole = np.concatenate([outer, polygon((3, 3), (7, 3), (7, 7), (3, 7))])  # runs the other way round
    assert fill(hole, 20, 10).sum() == 100 - 16 and not fill(hole, 20, 10)[9:11, 9:11].any()
    same_way = np.concatenate([outer, polygon((3, 3), (3, 7), (7, 7), (7, 3))])
    assert fill(same_way, 20, 10).sum() == 100  # nonzero winding: parts that overlap stay filled


def test_fill_keeps_proportions_and_the_right_way_up():
    tall = fill(polygon((0, 0), (0, 40), (10, 40), (10, 0)), 60, 40)
    assert (tall.any(1).sum(), tall.any(0).sum()) == (40, 10)
    pointing_up = fill(polygon((0, 0), (5, 10), (10, 0)), 30, 20)
    assert pointing_up[7].sum() < pointing_up[22].sum()


def test_a_blank_character_cannot_be_drawn():
    assert ord(" ") in characters_of("DejaVuSans")
    with pytest.raises(ValueError, match="blank"):
        fill(outline("DejaVuSans", ord(" ")), 105, 66)


def test_outlines_have_curves_and_composites():
    circle = fill(outline("DejaVuSans", ord("o")), 105, 66)
    assert not circle[52, 52] and circle[52].any()  # a ring
    plain, accented = (outline("DejaVuSans", ord(letter)) for letter in "eé")
    assert len(accented) > len(plain) > 20


def pieces(image: np.ndarray) -> int:
    """Number of 8-connected pieces of ink."""
    todo, count = set(map(tuple, np.argwhere(image))), 0
    while todo:
        count += 1
        border = [todo.pop()]
        while border:
            y, x = border.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            border += near
    return count


@pytest.mark.parametrize("letter", "AHOBi8ж")
def test_thinning_keeps_the_shape_in_one_pixel_lines(letter: str):
    shape = fill(outline("DejaVuSans", ord(letter)), 105, 66)
    skeleton = thin(shape[None])[0]
    assert (skeleton <= shape).all()
    assert pieces(skeleton) == pieces(shape)
    assert pieces(~np.pad(skeleton, 1)) >= 1
    blocks = skeleton[:-1, :-1] & skeleton[1:, :-1] & skeleton[:-1, 1:] & skeleton[1:, 1:]
    assert blocks.sum() <= 2 and skeleton.sum() < shape.sum() / 4
    assert (thin(skeleton[None])[0] == skeleton).all()
