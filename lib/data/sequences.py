"""Sequences of tokens to predict online (Shankar & Sarawagi 2018, table 1): visited places and clicked items.

`load_sequences` takes the first form of a data set that is in `BOOK_DATA_DIR`: the official files, else what others
have made of them; else what is in the cache; else a stand-in that it announces. See `lib.data.checkins` and
`lib.data.clicks` for what is kept of each.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32, Int64

from lib.data import checkins, clicks
from lib.data.raw_files import Form, Unit, decode_once, divide
from lib.data.store import DataMissing, StandInWarning, array_digest

FORMS: dict[str, tuple[Form, ...]] = {**checkins.FORMS, **clicks.FORMS}
NAMES = ("brightkite", "fsq-nyc", "fsq-tokyo", "geolife", "yoochoose", "diginetica")
VALIDATION_SHARE = 0.1  # of what would be trained on
RULES = 1  # to be raised when another thing is made of the same files, so that no old cache is taken for it
STANDIN_SEED, STANDIN_PEOPLE, STANDIN_LENGTH = 8001, (67, 20), 60  # of the people, a tenth of 67 to validate on
STANDIN_PLACES, FAVOURITES = 500, 6


@dataclass(frozen=True, eq=False)
class Part:
    """Some sequences of a data set; `part[i]` is one, int64 (length,), `len(part)` their number."""

    tokens: Int32[np.ndarray, " tokens"]
    """All of them, one after the other."""
    lengths: Int32[np.ndarray, " sequences"]

    @cached_property
    def offsets(self) -> Int64[np.ndarray, " borders"]:
        """Where each sequence begins, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Int64[np.ndarray, " length"]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"there are {len(self)} sequences, none of number {index}")
        start, end = self.offsets[index % len(self)], self.offsets[index % len(self) + 1]
        return self.tokens[start:end].astype(np.int64)

    def __iter__(self) -> Iterator[Int64[np.ndarray, " length"]]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, eq=False)
class Sequences:
    """A data set of token sequences, each of two tokens or more.

    train, validation, test: no person is in two of them; in validation a fixed tenth of what would be trained on.
    labels: number of distinct tokens, in all three together; tokens are 0 to labels - 1.
    digest: sha256 of the lengths and tokens. is_standin: true if it was made up.
    source: which form of the data it is. differs: in what it differs from the paper's.
    """

    name: str
    train: Part
    validation: Part
    test: Part
    labels: int
    digest: str
    is_standin: bool
    source: str
    differs: str


def load_sequences(name: str, source: Literal["auto", "real", "stand-in"] = "auto") -> Sequences:
    """A data set by name: brightkite, fsq-nyc, fsq-tokyo, geolife, yoochoose or diginetica.

    source: "auto" makes up a stand-in, with a StandInWarning, where the data is nowhere. Raises DataMissing if it is
    "real" and the data is nowhere, DataError if a file is damaged or the cache folder cannot be written, ValueError for
    another name or source.
    """
    if name not in NAMES:
        raise ValueError(f"there are no sequences {name!r}; known: {', '.join(NAMES)}")
    if source not in ("auto", "real", "stand-in"):
        raise ValueError(f'the source is "auto", "real" or "stand-in", not {source!r}')
    if source == "stand-in":
        return make_checkins(name)
    try:
        return _unpack(name, *decode_once(f"sequences-{name}", FORMS[name], RULES, pack))
    except DataMissing as missing:
        if source == "real":
            raise
        warnings.warn(f"Made-up check-ins stand in for {name}. {missing}", StandInWarning, stacklevel=2)
        return make_checkins(name)


def pack(divided: tuple[list[Unit], list[Unit]]) -> tuple[Int32[np.ndarray, " all"], dict[str, Any]]:
    """From units to train and to test on to one array: the lengths of all sequences, then their tokens, numbered from 0
    in the order of the old numbers. The details say how many are in train, validation and test (`sizes`), and `labels`.
    """
    train, test = divided
    parts = [
        [sequence for unit in part for sequence in unit if len(sequence) > 1]
        for part in (*divide(train, VALIDATION_SHARE), test)
    ]
    sequences = [sequence for part in parts for sequence in part]
    distinct, tokens = np.unique(np.concatenate(sequences), return_inverse=True)
    lengths = [len(sequence) for sequence in sequences]
    details = {"sizes": [len(part) for part in parts], "labels": len(distinct)}
    return np.concatenate([lengths, tokens]).astype(np.int32), details


def _unpack(name: str, array: Int32[np.ndarray, " all"], details: dict[str, Any]) -> Sequences:
    sizes = details["sizes"]
    lengths, tokens = np.split(array, [sum(sizes)])
    borders = np.cumsum([0, *sizes])
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[borders]
    parts = [
        Part(tokens[start:end], lengths[first:last])
        for (start, end), (first, last) in zip(pairwise(ends), pairwise(borders), strict=True)
    ]
    kept = ("labels", "digest", "is_standin", "source", "differs")
    return Sequences(name, *parts, **{key: details[key] for key in kept})


def make_checkins(name: str) -> Sequences:
    """The stand-in: made-up people who visit 500 places, 60 visits each; always the same, whatever the name.

    Places are popular by a power law. A person has a home and a few favourites, drawn by popularity, and habits: a
    Markov chain over them, which most steps follow. Now and then there is a novelty, visited again for a while.
    """
    rng = np.random.default_rng(STANDIN_SEED)
    popularity = 1 / np.arange(1, STANDIN_PLACES + 1) ** 0.8
    popularity /= popularity.sum()
    people = [[_visits(rng, popularity)] for _ in range(sum(STANDIN_PEOPLE))]
    array, details = pack((people[: STANDIN_PEOPLE[0]], people[STANDIN_PEOPLE[0] :]))
    details |= {"digest": array_digest(array), "is_standin": True}
    details |= {"source": "made up", "differs": "Made-up people: not the paper's data at all."}
    return _unpack(f"{name} stand-in", array, details)


def _visits(rng: np.random.Generator, popularity: np.ndarray) -> Int64[np.ndarray, " length"]:
    """One person's."""
    own = rng.choice(len(popularity), FAVOURITES, replace=False, p=popularity)  # the first is home
    habits = rng.dirichlet(np.full(FAVOURITES, 0.3), FAVOURITES)
    habits[1:, 0] += 0.5  # home again
    habits /= habits.sum(1, keepdims=True)
    visits, at, novelty = [own[0]], 0, own[0]
    for kind in rng.choice(3, STANDIN_LENGTH - 1, p=(0.75, 0.1, 0.15)):
        if kind == 0:
            at = rng.choice(FAVOURITES, p=habits[at])
            visits.append(own[at])
            continue
        if kind == 1:
            novelty = rng.choice(len(popularity))
        visits.append(novelty)
    return np.array(visits, np.int64)
