"""Texts to model word by word: from the original files, a sample in text8's form, or made up."""

import gzip
import random
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from lib.data import DataError, DataMissing, StandInWarning
from lib.data import text as module
from lib.data.text import Corpus, encode, load_corpus
from tests.cases import random_cases, seeds


def words_of(corpus: Corpus) -> list[list[str]]:
    return [[corpus.words[number] for number in part] for part in (corpus.train, corpus.validation, corpus.test)]


@random_cases(60)
@given(seeds)
def test_words_are_numbered_by_how_often_they_are_trained_on(seed: int):
    rng = random.Random(seed)
    vocabulary = ["a", "b", "cc", "d", "e", "<unk>"][: rng.randint(2, 6)]
    parts = [[rng.choice(vocabulary) for _ in range(rng.randint(1, 40))] for _ in range(3)]
    parts[2].append("late")
    least = rng.choice([0, 1, 1, 2, 5])
    array, details = encode([iter(part) for part in parts], least)
    counts = Counter(parts[0])
    expected = [[w if counts[w] >= least else "<unk>" for w in part] for part in parts]
    assert [details["words"][number] for number in array] == sum(expected, [])
    assert details["sizes"] == [len(part) for part in parts]
    assert len(set(details["words"])) == len(details["words"]) == len(set(sum(expected, [])))
    counts = Counter(expected[0])
    in_order = [counts[word] for word in details["words"]]
    assert in_order == sorted(in_order, reverse=True)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data in which a small PTB is: its sizes count as those of the original."""
    folder = tmp_path / "data"
    (folder / "ptb").mkdir(parents=True)
    monkeypatch.setenv("BOOK_DATA_DIR", str(folder))
    contents = {"train": " the N <unk>\n the end \n", "valid": " end the\n", "test": "N N\n\n"}
    for part, content in contents.items():
        (folder / "ptb" / f"ptb.{part}.txt.gz").write_bytes(gzip.compress(content.encode()))
    monkeypatch.setitem(module.TOKENS, "ptb", ([7, 3, 4], 5))
    return folder


EXPECTED = [
    ["the", "N", "<unk>", "<eos>", "the", "end", "<eos>"],
    ["end", "the", "<eos>"],
    ["N", "N", "<eos>", "<eos>"],
]


def test_each_line_ends_in_eos(data: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = load_corpus("ptb")
    assert words_of(corpus) == EXPECTED
    assert corpus.words[:2] == ("the", "<eos>")
    assert (corpus.name, corpus.is_standin, corpus.source) == ("ptb", False, "official")
    assert corpus.train.dtype == np.int32
    monkeypatch.delenv("BOOK_DATA_DIR")  # the cache is enough
    again = load_corpus("ptb", "real")
    assert words_of(again) == EXPECTED
    assert again.digest == corpus.digest


def test_unpacked_files_do_as_well(data: Path):
    for path in list((data / "ptb").iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert words_of(load_corpus("ptb")) == EXPECTED


def test_wikitext_under_its_official_names(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(module.TOKENS, "wikitext-2", ([4, 2, 2], 3))
    (data / "wikitext-2").mkdir()
    for part, content in {"train": " \n = A = \n", "valid": " A \n", "test": " = \n"}.items():
        (data / "wikitext-2" / f"wiki.{part}.tokens").write_text(content)
    with pytest.raises(DataError, match=r"not the original ones: expected \(\[4, 2, 2\], 3\) .* found \(\[5, 2, 2\]"):
        load_corpus("wikitext-2")
    monkeypatch.setitem(module.TOKENS, "wikitext-2", ([5, 2, 2], 3))
    corpus = load_corpus("wikitext-2")
    assert words_of(corpus) == [["<eos>", "=", "A", "=", "<eos>"], ["A", "<eos>"], ["=", "<eos>"]]


def test_a_file_that_is_not_whole_is_refused(data: Path):
    path = data / "ptb" / "ptb.valid.txt.gz"
    whole = path.read_bytes()
    path.write_bytes(gzip.compress(b" end\n"))
    with pytest.raises(DataError, match="ptb.train.txt.gz and its companions are not the original ones"):
        load_corpus("ptb")
    for content in (whole[:-9], b"\x00", gzip.compress(b"caf\xe9 \n")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path} is damaged.*text that can be read in line"):
            load_corpus("ptb")
    path.unlink()
    with pytest.raises(DataError, match="ptb.valid.txt.gz is missing") as caught:
        load_corpus("ptb")
    assert not isinstance(caught.value, DataMissing)


def text8_of(words: list[str]) -> bytes:
    return (" " + " ".join(words)).encode()


@random_cases(40)
@given(seeds)
def test_text8_is_cut_between_words_by_shares_of_its_characters(seed: int):
    rng = random.Random(seed)
    words = ["x" * rng.randint(1, 9) + rng.choice("abc") for _ in range(rng.randint(60, 200))]
    text = text8_of(words)
    parts = [[word for word in part] for part in module.in_shares(Path("text8"), text)]
    assert sum(parts, []) == words
    ends = np.cumsum([len(text8_of(part)) for part in parts])[:2]
    for end, share in zip(ends, (0.9, 0.95), strict=True):
        assert share * len(text) - 12 < end <= share * len(text) + 1


@pytest.mark.parametrize("place", ["text8", "text8/text8", "text8/text8.gz", "text8.zip", "text8/text8.zip"])
def test_text8_wherever_it_is(data: Path, place: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LEAST_COUNT", 3)
    words = ["of", "the", "of", "anarchism"] * 25 + ["of", "zero"]
    text, path = text8_of(words), data / place
    monkeypatch.setattr(module, "TEXT8_BYTES", len(text))
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("text8", text)
    else:
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    corpus = load_corpus("text8")
    assert not corpus.is_standin
    assert sum(words_of(corpus), []) == [*words[:-1], "<unk>"]
    assert corpus.words[0] == "of"
    assert [len(part) for part in words_of(corpus)] == [91, 5, 6]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b" too short", "100000000 bytes, found: '10 bytes'"), (b"not a zip", "the file text8"), (b"", "the file text8")],
)
def test_a_damaged_text8_is_refused(data: Path, content: bytes, message: str):
    path = data / ("text8" if b"short" in content else "text8.zip")
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{path} is damaged.*{message}"):
        load_corpus("text8")


def test_a_text8_with_other_characters_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "TEXT8_BYTES", 9)
    (data / "text8").write_bytes(b" In a day")
    with pytest.raises(DataError, match="expected only a to z and spaces, found: 'I'"):
        load_corpus("text8")


def test_the_sample_in_text8s_form_is_a_stand_in(data: Path, monkeypatch: pytest.MonkeyPatch):
    folder = data / "text8-style"
    folder.mkdir()
    words = [f"{a}{b}" for a in "abcdefgh" for b in "xyz"] * 20
    (folder / "enwiki-sample.txt.gz").write_bytes(gzip.compress(text8_of(words)))
    for _ in ("files", "cache"):
        with pytest.warns(StandInWarning, match="text8 stand-in: a sample of Wikipedia"):
            corpus = load_corpus("text8")
        assert corpus.is_standin
        assert sum(words_of(corpus), []) == words
        with pytest.raises(DataMissing, match="holds text8/text8"):
            load_corpus("text8", "real")
        monkeypatch.delenv("BOOK_DATA_DIR", raising=False)


@pytest.mark.parametrize("name", ["wikitext-2", "ptb", "text8"])
def test_without_data_text_is_made_up(name: str):
    with pytest.warns(StandInWarning, match=f"Made-up text stands in for {name}"):
        corpus = load_corpus(name)
    assert corpus.is_standin
    assert corpus.name == f"{name} stand-in: made up"
    with pytest.raises(DataMissing, match=f"Set BOOK_DATA_DIR to a folder that holds {name}"):
        load_corpus(name, "real")


def test_unknown_names_and_sources_are_refused():
    with pytest.raises((ValueError, TypeError), match="enwik8"):
        load_corpus("enwik8")
    with pytest.raises((ValueError, TypeError)):
        load_corpus("ptb", "official")


def test_made_up_text_has_rare_words_that_come_in_bursts():
    corpus = load_corpus("ptb", "stand-in")
    assert corpus.digest == load_corpus("text8", "stand-in").digest
    sizes = [len(part) for part in (corpus.train, corpus.validation, corpus.test)]
    assert 55_000 < sum(sizes) < 65_000
    assert 2_000 < len(corpus.words) < 3_000
    counts = np.bincount(corpus.train, minlength=len(corpus.words))
    assert counts[1] > 20 * np.median(counts)  # a power law
    rare = counts[corpus.test] < 100
    recent = [token in corpus.test[max(0, i - 100) : i] for i, token in enumerate(corpus.test)]
    shuffled = np.random.default_rng(0).permutation(corpus.test)
    by_chance = [token in shuffled[max(0, i - 100) : i] for i, token in enumerate(shuffled)]
    assert np.mean(np.array(recent)[rare]) > 2 * np.mean(np.array(by_chance)[counts[shuffled] < 100])


@pytest.mark.parametrize(
    ("name", "sizes", "words"),
    [
        ("wikitext-2", [2_088_628, 217_646, 245_569], 33_278),
        ("ptb", [929_589, 73_760, 82_430], 10_000),
        ("text8", [461_662, 25_491, 25_781], 4_815),  # of the sample: 512 934 words
    ],
)
def test_real_data(
    name: str, sizes: list[int], words: int, real_data: Path | None, monkeypatch: pytest.MonkeyPatch, recwarn
):
    if real_data is None:
        pytest.skip("needs BOOK_DATA_DIR")
    monkeypatch.setenv("BOOK_DATA_DIR", str(real_data))
    corpus = load_corpus(name)
    if corpus.source == "made up" or (name == "text8" and not corpus.is_standin):
        pytest.skip(f"{name} is not at hand in the form that these numbers are of")
    assert [len(corpus.train), len(corpus.validation), len(corpus.test)] == sizes
    assert len(corpus.words) == words
    assert corpus.train.max() < words
    unknown = corpus.words.index("<unk>")
    eos = {"wikitext-2": 36_718, "ptb": 42_068}
    if name in eos:
        assert (corpus.train == corpus.words.index("<eos>")).sum() == eos[name]
    else:
        assert np.bincount(corpus.train)[unknown + 1 :].min() >= 10
