"""What every data set shares: where files are looked for, the cache of decoded arrays, and the errors.

A decoded data set is one `.npy` file, named by its own sha256, and a small JSON file that points to it. The JSON file
is written last: without it there is no cache. No array is ever overwritten by another, so several processes may build
the same data set at once.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int64, UInt8

from lib import atomic

IMAGE_SIZE = 105  # pixels a side, both of Omniglot and of the glyphs
OMNIGLOT_CLASSES, TRAINING_CLASSES = 1623, 1200  # Santoro et al. 2016, section 4.1


class DataError(RuntimeError):
    """A data file or the cache folder is not as it must be; the message names it and says what to do."""


class DataMissing(DataError):
    """The data set is nowhere to be found (as opposed to found and damaged)."""


class StandInWarning(UserWarning):
    """A stand-in takes the place of the paper's data."""


class CacheWarning(UserWarning):
    """A cached file was damaged and is made anew."""


@dataclass(frozen=True, eq=False)
class Characters:
    """Binary drawings of characters: the same number of drawers for each class.

    packed: uint8 (classes, drawers, 105, 14), the 105x105 images' bits (`numpy.packbits` along the last axis), ink = 1.
    class_names: such as "Greek/character03" (Omniglot) or "Greek U+03B1" (glyphs).
    digest: sha256 of the bytes of `packed`.
    is_standin: true if these are not the data that the papers used.
    """

    name: str
    packed: UInt8[np.ndarray, "classes drawers 105 14"]
    class_names: tuple[str, ...]
    digest: str
    is_standin: bool

    def __len__(self) -> int:
        """Number of classes."""
        return len(self.packed)

    @property
    def drawers(self) -> int:
        """Drawings per class."""
        return self.packed.shape[1]

    def train_test_split(
        self, training: int = TRAINING_CLASSES, shuffled: bool = False
    ) -> tuple[Int64[np.ndarray, "train"], Int64[np.ndarray, "test"]]:
        """Class indices, int64, to train and to test on: Omniglot's first `training` and the others, glyphs in
        proportion. shuffled: in one random order, always the same, which puts characters of one alphabet in both."""
        split, order = round(len(self) * training / OMNIGLOT_CLASSES), np.arange(len(self))
        if shuffled:
            order = np.random.default_rng(0).permutation(order)
        return order[:split], order[split:]

    def images(self, classes: np.ndarray | list[int] | None = None) -> UInt8[np.ndarray, "n drawers 105 105"]:
        """Unpacked drawings, uint8 in {0, 1} (n, drawers, 105, 105), ink = 1, of the given class indices or of all."""
        packed = self.packed if classes is None else self.packed[classes]
        return np.unpackbits(packed, axis=-1, count=IMAGE_SIZE)


def data_dir() -> Path | None:
    """The folder that `BOOK_DATA_DIR` names, or None if it is not set. Raises DataError if it is not a folder."""
    value = os.environ.get("BOOK_DATA_DIR")
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_dir():
        raise DataError(
            f"BOOK_DATA_DIR is {path}, which is not a folder. Set it to the folder of the data, or unset it."
        )
    return path


def cache_dir() -> Path:
    """Where decoded data and downloads are kept: `BOOK_CACHE_DIR`, else a folder in the user's cache."""
    if value := os.environ.get("BOOK_CACHE_DIR"):
        return Path(value).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "networks-that-remember"


def array_digest(array: np.ndarray) -> str:
    """sha256 of an array's bytes in C order, as 64 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def make_cache_folder(folder: Path) -> Path:
    """Create `folder` with its parents. Raises DataError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cache_error(folder, error) from error
    return folder


def cache_error(folder: Path, error: OSError) -> DataError:
    """The error to raise when the cache folder cannot be written."""
    reason = error.strerror or str(error)
    return DataError(
        f"The cache folder {folder} cannot be written: {reason}. "
        "Make room in it or make it writable, or set BOOK_CACHE_DIR to a folder that has 100 MB free."
    )


def write_atomically(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """`lib.atomic.write_atomically` into the cache folder. Raises DataError if it cannot be written."""
    try:
        atomic.write_atomically(path, write)
    except OSError as error:
        raise cache_error(path.parent, error) from error


def save_array(name: str, array: np.ndarray, details: dict[str, Any]) -> str:
    """Cache `array` and JSON `details` under `name`; returns the array's digest. Raises DataError."""
    digest = array_digest(array)
    array_file = f"{name}-{digest[:16]}.npy"
    array = np.ascontiguousarray(array)
    record = {"array": array_file, "digest": digest, "layout": _layout(array), **details}

    def write_array(file: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)  # numpy's own tofile would hide why a write failed

    write_atomically(cache_dir() / array_file, write_array)
    write_atomically(cache_dir() / f"{name}.json", lambda file: file.write(json.dumps(record, indent=1).encode()))
    return digest


def load_array(
    name: str, expected_digest: str | None = None, matches: Callable[[dict[str, Any]], bool] = lambda record: True
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """The read-only memory-mapped array cached under `name` and its record, or None if there is none.

    A record that `matches` refuses counts as none (made from something else). A damaged one, whose bytes do not have
    the recorded or the expected digest, is deleted with a CacheWarning and counts as none.
    """
    record_path = cache_dir() / f"{name}.json"
    array_path = None
    try:
        record = json.loads(record_path.read_bytes())
        if not matches(record):
            return None
        array_path = record_path.with_name(Path(record["array"]).name)
        array = np.lib.format.open_memmap(array_path, mode="r")
        found, expected = array_digest(array), expected_digest or record["digest"]
        if not found == expected == record["digest"]:
            raise ValueError(f"its sha256 is {found}, expected {expected}")
        if _layout(array) != record["layout"]:
            raise ValueError(f"it holds {_layout(array)}, expected {record['layout']}")
        return array, record
    except (FileNotFoundError, NotADirectoryError) as error:
        if array_path is None:
            return None
        problem = error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as error:
        problem = error
    damaged = array_path or record_path
    warnings.warn(f"The cached file {damaged} is damaged ({problem}); it is made anew.", CacheWarning, stacklevel=2)
    try:
        for path in (record_path, damaged):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise cache_error(cache_dir(), error) from error
    return None


def _layout(array: np.ndarray) -> list[Any]:
    """Type and shape, as JSON keeps them."""
    return [array.dtype.str, *array.shape]


def file_stamps(paths: list[Path]) -> list[list[Any]]:
    """Name, size in bytes and time of change of each file: tells whether a cache was made from these very files."""
    stats = [path.stat() for path in paths]
    return [[path.name, stat.st_size, stat.st_mtime_ns] for path, stat in zip(paths, stats, strict=True)]
