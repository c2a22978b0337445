"""Old and new classes: who is held out, what a split is, and how pictures are moved."""

import pytest
import torch

from lib.tasks import incremental
from lib.tasks.incremental import ClassPictures, PictureSet, as_floats, picture_set, split_classes
from tests.experiments.made_up import made_up_characters


def tiny_set(mirrored=True, classes=4, each=6, size=5) -> PictureSet:
    random = torch.Generator().manual_seed(3)
    images = torch.randint(1, 256, (classes * each, 3, size, size), generator=random).to(torch.uint8)
    labels = torch.arange(classes).repeat_interleave(each)
    at = torch.arange(len(labels))
    parts = {"train": at[at % each < 4], "validation": at[at % each == 4], "test": at[at % each == 5]}
    return PictureSet(images, labels, parts, tuple("abcd"), mirrored, {})


@pytest.mark.parametrize("classes", [2, 7, 100])
def test_a_split_is_two_halves_of_all_classes(classes):
    splits = [split_classes(classes, number) for number in range(5)]
    for old, new in splits:
        assert len(old) == classes // 2
        assert sorted(old.tolist() + new.tolist()) == list(range(classes))
        assert old.tolist() == sorted(old.tolist()) and new.tolist() == sorted(new.tolist())
    assert len({tuple(old.tolist()) for old, _ in splits}) > 1
    assert torch.equal(split_classes(classes, 3)[0], splits[3][0]), "the same each time"


def test_each_class_has_its_share_of_pictures_held_out_and_no_picture_is_in_two_parts():
    pictures = picture_set("stand-in", 16, 0.2)
    everything = torch.cat([pictures.of(part) for part in incremental.PARTS])
    assert sorted(everything.tolist()) == list(range(len(pictures.labels)))
    for label in range(pictures.classes):
        counts = [len(pictures.of(part, torch.tensor([label]))) for part in incremental.PARTS]
        assert counts == [80, 20, 20]
    assert pictures.data["is_standin"] and not pictures.mirrored, "a mirrored letter is another one"
    again = picture_set("stand-in", 16, 0.2)
    assert torch.equal(again.of("validation"), pictures.of("validation"))


def test_omniglots_last_drawers_are_the_test(monkeypatch):
    characters = made_up_characters(classes=6)
    monkeypatch.setattr(incremental, "load_characters", lambda: characters)
    pictures = picture_set("omniglot", 28, 0.125)
    assert pictures.images.shape == (120, 1, 28, 28)
    assert pictures.classes == 6 and pictures.data["sha256"] == characters.digest
    drawer = pictures.of("test") % 20
    assert set(drawer.tolist()) == {16, 17, 18, 19}
    assert len(pictures.of("validation")) == 6 * 2 and len(pictures.of("train")) == 6 * 14


def is_moved(shown, picture, shift, mirrored) -> bool:
    """Whether a picture was moved by so many pixels at most, zero where nothing was."""
    size = picture.shape[-1]
    padded = torch.zeros(3, size + 2 * shift, size + 2 * shift)
    for source in (picture, picture.flip(2)) if mirrored else (picture,):
        padded[:, shift : shift + size, shift : shift + size] = source
        for row in range(2 * shift + 1):
            for column in range(2 * shift + 1):
                if torch.equal(padded[:, row : row + size, column : column + size], shown):
                    return True
    return False


@pytest.mark.parametrize("mirrored", [True, False])
def test_a_batch_shows_moved_pictures_of_its_classes(mirrored):
    pictures, classes = tiny_set(mirrored), torch.tensor([1, 3])
    shown = ClassPictures(pictures, "train", classes, seed=0, shift=2)
    batch = shown.batch(1, 40)
    assert set(batch.ys.tolist()) == {0, 1}
    plain = as_floats(pictures.images)
    for x, y in zip(batch.xs, batch.ys, strict=True):
        own = pictures.of("train", classes[y].view(1))
        assert any(is_moved(x, plain[at], 2, mirrored) for at in own)
    if mirrored:
        unmirrored = [any(is_moved(x, plain[at], 2, False) for at in pictures.of("train", classes)) for x in batch.xs]
        assert 0 < sum(unmirrored) < 40


def test_the_nth_batch_depends_on_seed_and_n_alone():
    pictures, classes = tiny_set(), torch.tensor([0, 2])
    one, other = (ClassPictures(pictures, "train", classes, seed, 1) for seed in (0, 1))
    one.batch(5, 8)
    assert torch.equal(one.batch(2, 8).xs, ClassPictures(pictures, "train", classes, 0, 1).batch(2, 8).xs)
    assert not torch.equal(one.batch(2, 8).xs, one.batch(3, 8).xs)
    assert not torch.equal(one.batch(2, 8).xs, other.batch(2, 8).xs)


def test_held_out_pictures_come_as_they_are_and_each_once():
    pictures, classes = tiny_set(), torch.tensor([0, 2, 3])
    held_out = ClassPictures(pictures, "validation", classes, None)
    batches = [held_out.batch(n, 2) for n in range(2)]
    xs = torch.cat([batch.xs for batch in batches])
    plain = as_floats(pictures.images[pictures.of("validation", classes)])
    found = [next(i for i, picture in enumerate(plain) if torch.equal(x, picture)) for x in xs]
    assert len(set(found)) >= 3, "all three, before any comes again"
    assert [int(y) for batch in batches for y in batch.ys] == found
