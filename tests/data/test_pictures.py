"""Pictures by class: folders, archives, sizes, the cache, the stand-in, and what is damaged."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from lib.data import pictures
from lib.data.pictures import load_pictures, make_pictures
from lib.data.store import DataError, StandInWarning

COLOURS = {"n02": (250, 0, 0), "n01": (0, 250, 0)}


def png(colour: tuple[int, int, int], size: tuple[int, int] = (8, 8)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def members() -> dict[str, bytes]:
    """Two pictures of each class to train on, one to test on, and what is no picture."""
    found = {"set/train/n01/readme.txt": b"no picture"}
    for folder, colour in COLOURS.items():
        for i in range(2):
            found[f"set/train/{folder}/images/{folder}_{i}.png"] = png(tuple(max(c - i, 0) for c in colour))
        found[f"set/val/{folder}/val_{folder}.PNG"] = png(colour)
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BOOK_CACHE_DIR", str(tmp_path / "cache"))
    root = tmp_path / "data" / "some"
    root.mkdir(parents=True)
    return root


def unpack(root, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name.removeprefix("set/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def pack(path, files: dict[str, bytes], mode: str = "w:xz") -> None:
    with tarfile.open(path, mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def check(found: pictures.Pictures, names=("n01", "n02")) -> None:
    assert (found.name, found.training, found.is_standin, found.class_names) == ("some", 4, False, names)
    expected = [sorted(COLOURS)[number] for number in (0, 0, 1, 1, 0, 1)]
    assert [names[label] for label in found.labels] == [
        dict(zip(sorted(COLOURS), names, strict=True))[f] for f in expected
    ]
    assert found.images.shape == (6, 8, 8, 3)
    assert found.images[:, 0, 0].tolist() == [
        [0, 250, 0],
        [0, 249, 0],
        [250, 0, 0],
        [249, 0, 0],
        [0, 250, 0],
        [250, 0, 0],
    ]


@pytest.mark.parametrize("packed", [None, "w:xz", "w"])
def test_folders_and_archives_give_the_same(folder, packed):
    if packed is None:
        unpack(folder, members())
    else:
        train = {name: content for name, content in members().items() if "/train/" in name}
        pack(folder / f"a.tar{'.xz' if packed == 'w:xz' else ''}", train, packed)
        pack(folder / "b.tar", {n: c for n, c in members().items() if n not in train}, "w")
    first = load_pictures("some", 8)
    check(first)
    again = load_pictures("some", 8)
    check(again)
    assert isinstance(again.images, np.memmap) and again.digest == first.digest


def test_classes_are_numbered_and_named_as_listed(folder):
    unpack(folder, members())
    (folder / "classes.tsv").write_text("1\tn01\tgreen things\n0\tn02\tred things\n")
    found = load_pictures("some", 8)
    assert found.class_names == ("red things", "green things") and found.labels.tolist() == [1, 1, 0, 0, 1, 0]


def test_other_sizes_are_scaled_and_cut_around_their_middle(folder):
    files = members()
    wide = Image.new("RGB", (32, 16), (0, 0, 250))
    wide.paste((250, 250, 250), (8, 0, 24, 16))
    file = io.BytesIO()
    wide.save(file, "PNG")
    files["set/train/n01/images/n01_0.png"] = file.getvalue()
    unpack(folder, files)
    assert (load_pictures("some", 8).images[0, :, 1:-1] == 250).all()
    assert load_pictures("some", 4).images.shape == (6, 4, 4, 3)


def test_a_changed_archive_is_decoded_anew(folder):
    pack(folder / "all.tar", members(), "w")
    first = load_pictures("some", 8)
    files = members() | {"set/val/n01/val_n01.PNG": png((1, 2, 3))}
    pack(folder / "all.tar", files, "w")
    assert load_pictures("some", 8).digest != first.digest


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"set/train/n01/images/n01_0.png": b"\x89PNG"}, "n01_0.png in .* is not a picture that can be decoded"),
        ({"set/val/n01/val_n01.PNG": None}, "has no pictures in val of 1 classes, such as n01"),
        ({"set/classes.tsv": b"zero\tn01\tgreen\n"}, "classes.tsv is no list of number, folder and words"),
        ({"set/classes.tsv": b"0\tn01\tgreen\n"}, "does not number the classes"),
    ],
)
def test_what_is_damaged_or_missing_is_named(folder, files, message):
    wrong = {name: content for name, content in (members() | files).items() if content is not None}
    unpack(folder, wrong)
    with pytest.raises(DataError, match=message):
        load_pictures("some", 8)


def test_a_damaged_archive_is_named(folder):
    pack(folder / "all.tar.xz", members())
    content = (folder / "all.tar.xz").read_bytes()
    (folder / "all.tar.xz").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="all.tar.xz is damaged"):
        load_pictures("some", 8)


def test_letters_stand_in_where_there_are_no_pictures(folder):
    with pytest.warns(StandInWarning, match="Letters drawn in colours stand in for some"):
        found = load_pictures("some", 16)
    assert found.is_standin and found.images.shape == (2400, 16, 16, 3) and found.training == 2000
    assert np.bincount(found.labels[:2000]).tolist() == [100] * 20
    assert np.bincount(found.labels[2000:]).tolist() == [20] * 20
    assert make_pictures(16).digest == found.digest
    with pytest.warns(StandInWarning, match="neither a folder train nor a tar archive"):
        load_pictures("some", 16)
    with pytest.warns(StandInWarning, match="BOOK_DATA_DIR"):
        load_pictures("another", 16)
