"""Pictures by class: folders, archives, sizes, the cache, the stand-in, and what is damaged."""

import io
import tarfile
import zipfile

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


def official(path, damage: str = "") -> None:
    """Tiny ImageNet's archive in small: four classes, the pictures to test on in one folder, with a list."""
    names, annotations = {}, []
    for number in range(4):
        folder = f"n{number}"
        for i in range(2):
            names[f"tiny-imagenet-200/train/{folder}/images/{folder}_{i}.png"] = png((50 * number, i, 0))
        annotations.append(f"val_{number}.png\t{folder}\t0\t0\t7\t7")
        names[f"tiny-imagenet-200/val/images/val_{number}.png"] = png((50 * number, 9, 0))
        names[f"tiny-imagenet-200/train/{folder}/{folder}_boxes.txt"] = b"no picture"
    names["tiny-imagenet-200/test/images/test_0.png"] = png((1, 1, 1))
    names["tiny-imagenet-200/val/val_annotations.txt"] = "\n".join(annotations).encode()
    names["tiny-imagenet-200/words.txt"] = b"n0\tnought\nn1\tone, unity\nn2\ttwo\nn3\tthree\nn9\tnine\n"
    names.pop(f"tiny-imagenet-200/{damage}", None)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)


def test_the_published_archive_of_tiny_imagenet_gives_what_sorted_folders_give(folder, monkeypatch):
    monkeypatch.setattr(pictures, "CHOSEN", 3)
    official(folder.parent / "tiny-imagenet-200.zip")
    found = load_pictures(pictures.TINY, 8)
    order = np.random.RandomState(1993).permutation(4)[:3]
    assert found.class_names == tuple(["nought", "one, unity", "two", "three"][at] for at in order)
    assert found.training == 6 and len(found) == 9
    for image, label in zip(found.images[:, 0, 0], found.labels, strict=True):
        assert image[0] == 50 * order[label]
    assert (found.images[6:, 0, 0, 1] == 9).all()
    root = folder.parent / pictures.TINY
    lines = [f"{number}\tn{at}\t{name}" for number, (at, name) in enumerate(zip(order, found.class_names, strict=True))]
    for at in order:
        for i in range(2):
            unpack(root, {f"set/train/n{at}/images/n{at}_{i}.png": png((50 * int(at), i, 0))})
        unpack(root, {f"set/val/n{at}/images/val_{at}.png": png((50 * int(at), 9, 0))})
    (root / "classes.tsv").write_text("\n".join(lines))
    by_folder = load_pictures(pictures.TINY, 8)
    assert by_folder.digest == found.digest and by_folder.class_names == found.class_names


@pytest.mark.parametrize("damage", ["words.txt", "val/val_annotations.txt"])
def test_another_archive_under_that_name_is_refused(folder, damage):
    official(folder.parent / "tiny-imagenet-200.zip", damage)
    with pytest.raises(DataError, match="is not the published archive"):
        load_pictures(pictures.TINY, 8)


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
