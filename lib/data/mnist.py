"""MNIST (LeCun, Cortes and Burges): 60 000 and 10 000 handwritten digits, and a stand-in for it drawn from fonts.

The four idx files are looked for in `$BOOK_DATA_DIR/MNIST/raw`, packed or not, which is only read; then among the
downloads; then downloaded by torchvision. The decoded arrays are checked, not the files.
"""

import gzip
import hashlib
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int64, UInt8

from lib.data.download import download_files, downloads_dir
from lib.data.glyphs import redraw
from lib.data.outlines import fill, outline, thin
from lib.data.store import IMAGE_SIZE, DataError, DataMissing, StandInWarning, data_dir

FOLDER = "MNIST/raw"  # torchvision's name for it
FACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSansMono", "STIXGeneral", "STIXGeneralItalic")
STANDIN = {"train": (40, 7001), "test": (10, 7002)}  # drawings per digit and face, seed


@dataclass(frozen=True, eq=False)
class Digits:
    """Grey images of digits and what they are.

    images: uint8 (N, 28, 28), 0 to 255, ink bright. labels: int64 (N,), 0 to 9.
    digest: sha256 of the bytes of the images, then of the labels as uint8.
    is_standin: true if this is not MNIST.
    """

    name: str
    images: UInt8[np.ndarray, "n 28 28"]
    labels: Int64[np.ndarray, "n"]
    digest: str
    is_standin: bool

    def __len__(self) -> int:
        """Number of images."""
        return len(self.images)


@dataclass(frozen=True)
class Part:
    """What a part of MNIST must be: its files' common prefix, number of images, and digest as in `Digits`."""

    prefix: str
    count: int
    digest: str

    @property
    def files(self) -> tuple[str, str]:
        """Names of the packed files of images and of labels."""
        return f"{self.prefix}-images-idx3-ubyte.gz", f"{self.prefix}-labels-idx1-ubyte.gz"


MNIST: Mapping[str, Part] = {
    "train": Part("train", 60_000, "edc0d1098aa497be14ace79ddd5171e5a3dcf9c4d196c015389203eb3ba1f59b"),
    "test": Part("t10k", 10_000, "c3f9adf9c66efb572b1f9326c3a511b45910c7173b97be66ceceeeeaef6b802b"),
}


def load_mnist(
    split: Literal["train", "test"],
    source: Literal["auto", "mnist", "glyphs"] = "auto",
    *,
    download: bool = True,
    release: Mapping[str, Part] = MNIST,
) -> Digits:
    """One part of MNIST from `source`; "auto" takes the stand-in, with a StandInWarning, where there is no MNIST.

    Raises DataMissing if "mnist" is asked for and is nowhere, DataError if a file is damaged, ValueError for another
    split or source.
    """
    if split not in STANDIN:
        raise ValueError(f'the split is "train" or "test", not {split!r}')
    if source not in ("auto", "mnist", "glyphs"):
        raise ValueError(f'the source is "auto", "mnist" or "glyphs", not {source!r}')
    if source == "glyphs":
        return make_digits(split)
    try:
        return _load(release, split, download)
    except DataMissing as missing:
        if source == "mnist":
            raise
        warnings.warn(f"Digits drawn from fonts stand in for MNIST. {missing}", StandInWarning, stacklevel=2)
        return make_digits(split)


def make_digits(split: Literal["train", "test"]) -> Digits:
    """The stand-in: digits of five typefaces, thinned and redrawn with distortion, 200 of each to train, 50 to test."""
    count, seed = STANDIN[split]
    rng = np.random.default_rng(seed)
    characters = [(face, digit) for face in FACES for digit in range(10)]
    shapes = np.stack([fill(outline(face, ord("0") + digit), IMAGE_SIZE, box=76) for face, digit in characters])
    drawings = np.concatenate([redraw(skeleton, count, rng, pen=4) for skeleton in thin(shapes)])
    margin = 4 * 28 - IMAGE_SIZE
    drawings = np.pad(drawings, ((0, 0), (margin // 2, margin - margin // 2), (margin // 2, margin - margin // 2)))
    images = drawings.reshape(-1, 28, 4, 28, 4).sum((2, 4)) * 255 // 16
    labels = np.repeat([digit for _, digit in characters], count)
    order = rng.permutation(len(labels))
    images, labels = images[order].astype(np.uint8), labels[order].astype(np.int64)
    return Digits("digit glyphs", images, labels, _digest(images, labels), is_standin=True)


def _load(release: Mapping[str, Part], split: str, download: bool) -> Digits:
    part = release[split]
    folder = _find(data_dir(), part) or _find(downloads_dir(), part)
    if folder is None:
        if not download:
            raise DataMissing(f"MNIST is not here; set BOOK_DATA_DIR to a folder that holds {FOLDER}/{part.files[0]}.")
        files = [f"{FOLDER}/{file}" for each in release.values() for file in each.files]
        download_files("MNIST", files, lambda datasets, root: datasets.MNIST(root, download=True))
        folder = downloads_dir() / FOLDER
    images_path, labels_path = (_packed_or_not(folder / file) for file in part.files)
    images = _read_idx(images_path, (part.count, 28, 28))
    labels = _read_idx(labels_path, (part.count,)).astype(np.int64)
    digest = _digest(images, labels)
    if digest != part.digest:
        raise DataError(
            f"{images_path} and {labels_path} are not MNIST's: expected sha256 {part.digest} of the decoded arrays, "
            f"found {digest}. Put the original files there."
        )
    return Digits("mnist", images, labels, digest, is_standin=False)


def _find(folder: Path | None, part: Part) -> Path | None:
    """The folder of idx files below `folder`, or None if there are none. Raises DataError if one of two is missing."""
    if folder is None:
        return None
    missing = [path for file in part.files if not _packed_or_not(path := folder / FOLDER / file).is_file()]
    if len(missing) == 1:
        raise DataError(f"{missing[0]} is missing, but its companion of MNIST is there. Put it there, too.")
    return None if missing else folder / FOLDER


def _packed_or_not(path: Path) -> Path:
    """The .gz file, or the unpacked one if only that is there."""
    return path.with_suffix("") if not path.is_file() and path.with_suffix("").is_file() else path


def _read_idx(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Array of an idx file of unsigned bytes, uint8 of the expected shape. Raises DataError if it holds another."""
    header = bytes((0, 0, 8, len(shape))) + b"".join(size.to_bytes(4, "big") for size in shape)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, "a file that can be unpacked", str(error)) from error
    if content[: len(header)] != header:
        raise _damaged(
            path, f"the idx header {header.hex()} (shape {shape})", content[: len(header)].hex() or "nothing"
        )
    expected, size = int(np.prod(shape)), len(content) - len(header)
    if size != expected:
        raise _damaged(path, f"{expected} bytes after the header", str(size))
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape).copy()


def _damaged(path: Path, expected: str, found: str) -> DataError:
    return DataError(
        f"{path} is damaged or is not MNIST: expected {expected}, found: {found}. "
        "Replace the file, or delete it and its companion to have them downloaded."
    )


def _digest(images: np.ndarray, labels: np.ndarray) -> str:
    return hashlib.sha256(images.tobytes() + labels.astype(np.uint8).tobytes()).hexdigest()
