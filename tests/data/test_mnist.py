"""MNIST from idx files, packed or not, and the digits that stand in for it."""

import gzip
import hashlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from lib.data import DataError, DataMissing, StandInWarning, load_mnist
from lib.data.mnist import MNIST, Part, make_digits
from lib.data.torchvision_import import import_torchvision


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


class SmallMNIST:
    """Seven and three random images in the files that the real ones have."""

    def __init__(self, folder: Path):
        self.folder = folder / "MNIST" / "raw"
        rng = np.random.default_rng(2)
        self.arrays, self.release = {}, {}
        for split, prefix, count in (("train", "train", 7), ("test", "t10k", 3)):
            images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = rng.integers(0, 10, count, dtype=np.uint8)
            self.arrays[split] = images, labels
            self.release[split] = Part(prefix, count, hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest())

    def write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for split, part in self.release.items():
            for file, array in zip(part.files, self.arrays[split], strict=True):
                (self.folder / file).write_bytes(gzip.compress(idx(array)))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallMNIST:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("BOOK_DATA_DIR", str(tmp_path / "data"))
    small = SmallMNIST(tmp_path / "data")
    small.write()
    return small


def load(small: SmallMNIST, split: str = "train", **options):
    return load_mnist(split, release=small.release, **{"download": False} | options)


@pytest.mark.parametrize("split", ["train", "test"])
def test_round_trip_without_a_change_to_the_folder(small: SmallMNIST, split: str):
    before = {path.name: path.read_bytes() for path in small.folder.iterdir()}
    digits = load(small, split)
    images, labels = small.arrays[split]
    assert (digits.images == images).all() and (digits.labels == labels).all()
    assert digits.labels.dtype == np.int64 and len(digits) == len(labels)
    assert digits.digest == small.release[split].digest and not digits.is_standin
    assert {path.name: path.read_bytes() for path in small.folder.iterdir()} == before


def test_unpacked_files_do_as_well(small: SmallMNIST):
    for path in list(small.folder.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert (load(small).images == small.arrays["train"][0]).all()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"garbage", "can be unpacked"),
        (b"", "idx header"),
        (gzip.compress(idx(np.zeros((7, 28, 28), np.uint8)))[:40], "can be unpacked"),
        (gzip.compress(idx(np.zeros((6, 28, 28), np.uint8))), "idx header"),
        (gzip.compress(idx(np.zeros((7, 28, 28), np.uint8))[:-1]), "5488 bytes after the header, found: 5487"),
    ],
    ids=["garbage", "empty", "truncated", "count", "short"],
)
def test_damaged_files(small: SmallMNIST, content: bytes, expected: str):
    path = small.folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    for source in ("mnist", "auto"):  # damage is not absence: no stand-in
        with pytest.raises(DataError, match=f"{path} is damaged.*{expected}") as caught:
            load(small, source=source)
        assert not isinstance(caught.value, DataMissing)


def test_other_pixels(small: SmallMNIST):
    path = small.folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((3, 28, 28), np.uint8))))
    with pytest.raises(DataError, match=f"{path}.*expected sha256 {small.release['test'].digest}"):
        load(small, "test")


def test_a_missing_companion(small: SmallMNIST):
    (small.folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="train-labels-idx1-ubyte.gz is missing"):
        load(small)


def test_download_by_torchvision(small: SmallMNIST, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def download(root: str, download: bool) -> None:
        copy = SmallMNIST(Path(root))
        copy.write()
        (copy.folder / "train-images-idx3-ubyte").write_bytes(b"unpacked")

    monkeypatch.delenv("BOOK_DATA_DIR")
    monkeypatch.setattr(import_torchvision().datasets, "MNIST", download)
    assert (load(small, download=True).images == small.arrays["train"][0]).all()
    assert len(list((cache / "downloads" / "MNIST" / "raw").iterdir())) == 4
    assert (load(small, "test").images == small.arrays["test"][0]).all()  # downloaded with the other


def test_nothing_there_and_no_network(small: SmallMNIST, monkeypatch: pytest.MonkeyPatch):
    def download(root: str, download: bool) -> None:
        raise URLError("Name or service not known")

    monkeypatch.delenv("BOOK_DATA_DIR")
    monkeypatch.setattr(import_torchvision().datasets, "MNIST", download)
    with pytest.raises(DataMissing, match="MNIST is not here and could not be downloaded"):
        load(small, source="mnist", download=True)
    with pytest.warns(StandInWarning, match="stand in for MNIST"):
        assert load(small, "test", download=True).is_standin


@pytest.mark.parametrize(("split", "source"), [("valid", "auto"), ("train", "omniglot")])
def test_other_splits_and_sources_are_refused(split: str, source: str):
    with pytest.raises((ValueError, TypeError)):
        load_mnist(split, source)


def test_the_stand_in_is_ten_digits_in_mnists_form():
    train, test = make_digits("train"), load_mnist("test", "glyphs")
    assert train.images.shape == (2000, 28, 28) and test.images.shape == (500, 28, 28)
    assert (np.bincount(train.labels) == 200).all() and (np.bincount(test.labels) == 50).all()
    assert train.is_standin and test.digest == make_digits("test").digest != train.digest
    assert train.images.max() == 255 and 15 < train.images.mean() < 45  # MNIST's mean is 33
    flat, queries = (digits.images.reshape(len(digits), -1).astype(float) for digits in (train, test))
    nearest = ((flat**2).sum(1) - 2 * queries @ flat.T).argmin(1)
    assert (train.labels[nearest] == test.labels).mean() > 0.8


def test_real_mnist(real_data: Path | None, small: SmallMNIST, monkeypatch: pytest.MonkeyPatch):
    """On the real files where there are some, else on the small ones."""
    release = small.release
    if real_data and (real_data / "MNIST" / "raw").is_dir():
        monkeypatch.setenv("BOOK_DATA_DIR", str(real_data))
        release = MNIST
    digits = load_mnist("test", "mnist", download=False, release=release)
    assert digits.digest == release["test"].digest and len(digits) == release["test"].count
    if release is MNIST:
        assert np.bincount(digits.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
