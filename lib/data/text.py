"""Text to model word by word: WikiText-2, Penn Treebank, text8 (Shankar & Sarawagi 2018, table 5; Sprechmann et al.
2018, table 2).

`load_corpus` looks for the files in `BOOK_DATA_DIR`, then in the cache. Where there is no text8, a sample of Wikipedia
in its form stands in for it, where there is nothing at all, made-up text; both are announced.
"""

import gzip
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32

from lib.data.raw_files import Codes, Form, damaged, decode_once, read_lines
from lib.data.store import DataError, DataMissing, StandInWarning, array_digest

UNKNOWN, END_OF_LINE = "<unk>", "<eos>"
RULES = 1  # to be raised when another thing is made of the same files, so that no old cache is taken for it
TOKENS = {  # of train, validation and test, with <eos>, and distinct words: of the original files
    "wikitext-2": ([2_088_628, 217_646, 245_569], 33_278),
    "ptb": ([929_589, 73_760, 82_430], 10_000),
}
TEXT8_BYTES = 100_000_000
SHARES = 0.90, 0.95  # of text8's characters: where validation and test begin
LEAST_COUNT = 10  # of a word of text8 in training; others are <unk>. Grave et al. 2017, whose vocabulary has 44 000
STANDIN_SEED, STANDIN_DOCUMENTS = 8101, (300, 30, 30)  # of about 170 words


@dataclass(frozen=True, eq=False)
class Corpus:
    """A text in three parts, as word numbers.

    words: what the numbers stand for; the most frequent in train first. digest: sha256 of the three parts together.
    is_standin: true if this is not the corpus of that name. source: which form of the data it is. differs: in what it
    differs from the paper's.
    """

    name: str
    train: Int32[np.ndarray, " train"]
    validation: Int32[np.ndarray, " validation"]
    test: Int32[np.ndarray, " test"]
    words: tuple[str, ...]
    digest: str
    is_standin: bool
    source: str
    differs: str


def load_corpus(
    name: Literal["wikitext-2", "ptb", "text8"], source: Literal["auto", "real", "stand-in"] = "auto"
) -> Corpus:
    """A corpus by name.

    source: "auto" takes a stand-in, with a StandInWarning, where the text is nowhere; "real" raises DataMissing then;
    "stand-in" is made-up text. Raises DataError if a file is damaged or the cache folder cannot be written, ValueError
    for another name or source.
    """
    if name not in FORMS:
        raise ValueError(f"there is no corpus {name!r}; known: {', '.join(FORMS)}")
    if source not in ("auto", "real", "stand-in"):
        raise ValueError(f'the source is "auto", "real" or "stand-in", not {source!r}')
    if source == "stand-in":
        return make_text(name)
    forms = [form for form in FORMS[name] if source == "auto" or not form.is_standin]

    def pack(parts: list[Iterator[str]]) -> tuple[Int32[np.ndarray, " all"], dict[str, Any]]:
        array, details = encode(parts, LEAST_COUNT if name == "text8" else 1)
        found = details["sizes"], len(details["words"])
        if found != TOKENS.get(name, found):
            raise DataError(
                f"The files of {forms[0].places[0]} and its companions are not the original ones: expected "
                f"{TOKENS[name]} tokens of train, validation and test, and distinct words, found {found}. "
                "Put the original files there."
            )
        return array, details

    try:
        corpus = _unpack(name, *decode_once(f"corpus-{name}", forms, RULES, pack))
        if corpus.is_standin and source == "real":  # left in the cache
            raise DataMissing(f"Set BOOK_DATA_DIR to a folder that holds {forms[0].places[0]}.")
    except DataMissing as missing:
        if source == "real":
            raise
        warnings.warn(f"Made-up text stands in for {name}. {missing}", StandInWarning, stacklevel=2)
        return make_text(name)
    if corpus.is_standin:
        warnings.warn(f"{corpus.name}. {corpus.differs}", StandInWarning, stacklevel=2)
    return corpus


def encode(parts: list[Iterator[str]], least_count: int = 1) -> tuple[Int32[np.ndarray, " all"], dict[str, Any]]:
    """From the words of train, validation and test to one array of word numbers, the more frequent in train the
    smaller. Words that occur less often in train are <unk>. The details have the parts' `sizes` and the `words`."""
    codes = Codes()
    arrays = [np.fromiter((codes[word] for word in part), np.int64) for part in parts]
    sizes, tokens = [len(array) for array in arrays], np.concatenate(arrays)
    rare = np.bincount(arrays[0], minlength=len(codes)) < least_count
    if rare.any():
        unknown = codes[UNKNOWN]
        rare = np.append(rare, [False] * (len(codes) - len(rare)))  # <unk> itself, if it is new
        rare[unknown] = False
        tokens = np.where(rare[tokens], unknown, tokens)
    kept = np.unique(tokens)
    counts = np.bincount(tokens[: sizes[0]], minlength=len(codes))[kept]
    by_count = kept[np.argsort(-counts, kind="stable")]
    numbers = np.zeros(len(codes), np.int32)
    numbers[by_count] = np.arange(len(by_count))
    names = list(codes)
    return numbers[tokens], {"sizes": sizes, "words": [names[index] for index in by_count]}


def _unpack(name: str, array: Int32[np.ndarray, " all"], details: dict[str, Any]) -> Corpus:
    borders = np.cumsum([0, *details["sizes"]])
    parts = [array[start:end] for start, end in pairwise(borders)]
    kept = ("digest", "is_standin", "source", "differs")
    name = f"{name} stand-in: {details['source']}" if details["is_standin"] else name
    return Corpus(name, *parts, words=tuple(details["words"]), **{key: details[key] for key in kept})


def read_line_by_line(paths: list[Path]) -> list[Iterator[str]]:
    """The words of each file, `<eos>` after each line. Raises DataError when they are drawn."""

    def words(path: Path) -> Iterator[str]:
        for line in read_lines(path):
            yield from line.split()
            yield END_OF_LINE

    return [words(path) for path in paths]


def read_text8(paths: list[Path]) -> list[Iterator[str]]:
    """`text8` or `text8.zip`: 100 million characters, a to z and spaces. Raises DataError."""
    path = paths[0]
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                text = archive.read("text8")
        else:
            text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        raise damaged(path, "the file text8", str(error)) from error
    if len(text) != TEXT8_BYTES:
        raise damaged(path, f"{TEXT8_BYTES} bytes", f"{len(text)} bytes")
    return in_shares(path, text)


def read_like_text8(paths: list[Path]) -> list[Iterator[str]]:
    """One line of any length in text8's form. Raises DataError."""
    return in_shares(paths[0], "".join(read_lines(paths[0])).encode())


def in_shares(path: Path, text: bytes) -> list[Iterator[str]]:
    """The words of the first 90%, the next 5% and the last 5% of the characters; the word at a border goes to the later
    part. Raises DataError if there is more than a to z and spaces."""
    if foreign := text.translate(None, b" abcdefghijklmnopqrstuvwxyz"):
        raise damaged(path, "only a to z and spaces", foreign[:20].decode("latin-1"))
    borders = [0, *(text.rfind(b" ", 0, round(share * len(text))) + 1 for share in SHARES), len(text)]
    return [
        (word.group().decode() for word in re.compile(rb"[a-z]+").finditer(text, start, end))
        for start, end in pairwise(borders)
    ]


def make_text(name: str) -> Corpus:
    """The stand-in: made-up text, some 60 000 words; always the same, whatever the name.

    A document has a topic of its own words and a few names, which are rare elsewhere. All words are frequent by a power
    law. A line has about twelve words.
    """
    rng = np.random.default_rng(STANDIN_SEED)
    common = [f"common{rank}" for rank in range(800)]
    topics = [[f"topic{topic}word{rank}" for rank in range(60)] for topic in range(20)]
    names = [f"name{number}" for number in range(600)]

    def document() -> Iterator[str]:
        topic, own = topics[rng.integers(len(topics))], rng.choice(names, 4, replace=False)
        for kind in rng.choice(4, rng.integers(80, 260), p=(0.52, 0.26, 0.14, 0.08)):
            yield END_OF_LINE if kind == 3 else str(rng.choice(own)) if kind == 2 else _zipf(rng, (common, topic)[kind])
        yield END_OF_LINE

    parts = [(word for _ in range(count) for word in document()) for count in STANDIN_DOCUMENTS]
    array, details = encode(parts)
    details |= {"digest": array_digest(array), "is_standin": True, "source": "made up"}
    return _unpack(name, array, details | {"differs": "Made-up text: not the paper's data at all."})


def _zipf(rng: np.random.Generator, words: list[str]) -> str:
    """A word, about half as often for twice its place in the list."""
    return words[int(len(words) ** rng.random()) - 1]


TEXT8_DIFFERS = "Where training, validation and test begin, and which words are rare, is our guess."
FORMS = {
    "wikitext-2": (
        Form(
            "official",
            "The paper's data.",
            ("wikitext-2/wiki.train.tokens", "wikitext-2/wiki.valid.tokens", "wikitext-2/wiki.test.tokens"),
            read_line_by_line,
        ),
        Form(
            "official",
            "The paper's data.",
            ("wikitext-2/train.txt.gz", "wikitext-2/valid.txt.gz", "wikitext-2/test.txt.gz"),
            read_line_by_line,
        ),
    ),
    "ptb": (
        *(
            Form(
                "official",
                "The paper's data.",
                (f"ptb/ptb.train.txt{packed}", f"ptb/ptb.valid.txt{packed}", f"ptb/ptb.test.txt{packed}"),
                read_line_by_line,
            )
            for packed in (".gz", "")
        ),
    ),
    "text8": (
        *(
            Form("official", TEXT8_DIFFERS, (place,), read_text8)
            for place in ("text8/text8", "text8/text8.zip", "text8", "text8.zip")
        ),
        Form(
            "a sample of Wikipedia",
            "3 million characters of Wikipedia in text8's form in place of its 100 million.",
            ("text8-style/enwiki-sample.txt.gz",),
            read_like_text8,
            is_standin=True,
        ),
    ),
}
