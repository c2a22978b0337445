"""Raw files of token streams and text: how they are found, read, and decoded once, whatever they hold.

A file is read as it is or gzipped. What is not as it must be raises DataError with the file and the line.
"""

import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from lib.data.store import (
    DataError,
    DataMissing,
    cache_dir,
    data_dir,
    file_stamps,
    load_array,
    make_cache_folder,
    save_array,
)

Unit = list[np.ndarray]
"""Token sequences that belong together, those of one person: never divided between training and test."""
VISITS = np.dtype([("who", np.int64), ("when", np.int64), ("what", np.int64)])
SPLIT_SEED = 0  # of the permutation that divides; the same for all runs


@dataclass(frozen=True)
class Form:
    """One form in which a data set may be at hand."""

    source: str
    """A word or two for it."""
    differs: str
    """In what it differs from the data of the paper."""
    places: tuple[str, ...]
    """What it needs, relative to the folder of data: files, or folders if there is a `/` at the end. A `*` stands for
    any name; `.gz` may be missing or be there."""
    read: Callable[[list[Path]], Any]
    """From the files to what they hold."""
    is_standin: bool = False

    def find(self, folder: Path | None) -> list[Path] | None:
        """The files in `folder`, or None if none is there. Raises DataError if only some are."""
        if folder is None:
            return None
        found = {place: _matches(folder, place) for place in self.places}
        missing = [place for place, paths in found.items() if not paths]
        if len(missing) == len(found):
            return None
        if missing:
            raise DataError(f"{folder / missing[0]} is missing, but its companion is there. Put it there, too.")
        return [path for paths in found.values() for path in paths]


def _matches(folder: Path, place: str) -> list[Path]:
    plain = place.removesuffix(".gz")
    if place.endswith("/"):
        return sorted(path for path in folder.glob(plain) if path.is_dir())
    found = (sorted(path for path in folder.glob(name) if path.is_file()) for name in (plain, f"{plain}.gz"))
    return next((paths for paths in found if paths), [])


def decode_once(
    name: str, forms: Iterable[Form], rules: int, pack: Callable[[Any], tuple[np.ndarray, dict[str, Any]]]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The first of these forms that is in the folder of data, as an array and its details, from the cache if it was
    made from the same files by the same `rules`; where there is none, what is in the cache.

    pack: from what a form reads to an array and details to be kept with it. To these are added the `source` of the
    form, what `differs`, `is_standin` and the `digest` of the array. Raises DataMissing if there is nothing, DataError
    if a file is damaged or the cache folder cannot be written.
    """
    forms, folder = tuple(forms), data_dir()
    form, paths = next(((form, found) for form in forms if (found := form.find(folder))), (None, None))
    stamps = file_stamps(paths) if paths else None
    cached = load_array(name, matches=lambda record: record["rules"] == rules and stamps in (None, record["files"]))
    if cached:
        return cached
    if form is None:
        places = " or ".join(each.places[0] for each in forms)
        raise DataMissing(f"Set BOOK_DATA_DIR to a folder that holds {places}.")
    make_cache_folder(cache_dir())  # fail before the work, not after it
    array, details = pack(form.read(paths))
    details |= {"rules": rules, "files": stamps, "source": form.source, "differs": form.differs}
    details |= {"is_standin": form.is_standin}
    return array, details | {"digest": save_array(name, array, details)}


def damaged(path: Path, expected: str, found: str, line: int | None = None) -> DataError:
    """The error to raise for a file whose content is not as it must be."""
    where = "" if line is None else f" in line {line}"
    return DataError(
        f"{path} is damaged or in another format: expected {expected}{where}, found: {found[:100]!r}. "
        "Replace the file by the original, or remove it."
    )


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """The lines of a text file, gzipped if its name ends in `.gz`, without their ends. Raises DataError."""
    opener: Callable[..., Any] = gzip.open if path.suffix == ".gz" else open
    count = 0
    try:
        with opener(path, "rt", encoding=encoding, newline="\n") as file:
            for line in file:
                count += 1
                yield line.rstrip("\r\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise damaged(path, f"{encoding} text that can be read", str(error), count + 1) from error


def read_rows(
    path: Path,
    expected: str,
    convert: Callable[[list[str]], Any],
    separator: str | None = None,
    header: int = 0,
    encoding: str = "utf-8",
) -> Iterator[Any]:
    """`convert` of the fields of each line after so many lines of header; blank lines are passed over.

    separator: None for any white space. Raises DataError, which says what was `expected` of a line, where `convert`
    raises ValueError, KeyError, TypeError or IndexError.
    """
    for number, line in enumerate(read_lines(path, encoding), 1):
        if number > header and line.strip():
            try:
                yield convert(line.split(separator))
            except (ValueError, KeyError, TypeError, IndexError) as error:
                raise damaged(path, expected, line, number) from error


def read_visits(path: Path, rows: Iterator[tuple[int, int, int]]) -> Shaped[np.ndarray, " visits"]:
    """Rows of (who, when, what) as an array of VISITS. Raises DataError if there is none."""
    visits = np.fromiter(rows, VISITS)
    if not len(visits):
        raise damaged(path, "lines of data", "none")
    return visits


class Codes(dict):
    """Names to numbers, 0, 1, 2 ... in the order in which they are first asked for."""

    def __missing__(self, name: str) -> int:
        return self.setdefault(name, len(self))


def keep_frequent(visits: Shaped[np.ndarray, " visits"], at_least: int) -> Shaped[np.ndarray, " kept"]:
    """The visits to what is visited at least so many times."""
    _, inverse, counts = np.unique(visits["what"], return_inverse=True, return_counts=True)
    return visits[counts[inverse] >= at_least]


def in_time_order(visits: Shaped[np.ndarray, " visits"]) -> list[np.ndarray]:
    """Each one's tokens in order of time, sorted by `who`; of equal times, in the order given."""
    if not len(visits):
        return []
    ordered = visits[np.lexsort((visits["when"], visits["who"]))]
    borders = np.flatnonzero(np.diff(ordered["who"])) + 1
    return np.split(ordered["what"], borders)


def alone(sequences: list[np.ndarray]) -> list[Unit]:
    """Each sequence as a unit of its own."""
    return [[sequence] for sequence in sequences]


def divide(units: list[Unit], share: float) -> tuple[list[Unit], list[Unit]]:
    """(the others, those taken): whole units, in the order given, with nearly a `share` of all sequences, at least one.

    Units are taken in the order of a permutation that is always the same, passing over those that would be too many.
    """
    wanted = max(1, round(share * sum(len(unit) for unit in units)))
    taken: set[int] = set()
    for index in np.random.default_rng(SPLIT_SEED).permutation(len(units)):
        if len(units[index]) <= wanted:
            taken.add(int(index))
            wanted -= len(units[index])
    if not taken:
        taken.add(min(range(len(units)), key=lambda index: len(units[index])))
    return (
        [unit for index, unit in enumerate(units) if index not in taken],
        [unit for index, unit in enumerate(units) if index in taken],
    )


def cut(sequence: Int[np.ndarray, " length"], longest: int) -> Unit:
    """A sequence in pieces of `longest` tokens and what is left."""
    return [sequence[start : start + longest] for start in range(0, len(sequence), longest)]
