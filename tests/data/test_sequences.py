"""Token sequences: how they are divided, packed, cached, and what stands in for them."""

import gzip
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from lib.data import CacheWarning, DataError, DataMissing, StandInWarning
from lib.data import sequences as module
from lib.data.raw_files import Form, Unit, divide
from lib.data.sequences import NAMES, Part, Sequences, load_sequences, make_checkins, pack
from tests.cases import random_cases, seeds


def random_units(seed: int, count: int, longest: int = 6) -> list[Unit]:
    """Units of one to three sequences of up to `longest` tokens, few of them distinct."""
    rng = random.Random(seed)
    return [
        [
            np.array([rng.choice((3, 70, 71, 500, -8)) for _ in range(rng.randint(1, longest))])
            for _ in range(rng.randint(1, 3))
        ]
        for _ in range(count)
    ]


def parts_of(data: Sequences) -> list[list[list[int]]]:
    return [[sequence.tolist() for sequence in part] for part in (data.train, data.validation, data.test)]


@random_cases(50)
@given(seeds)
def test_units_are_divided_whole_and_in_order(seed: int):
    rng = random.Random(seed)
    units, share = random_units(seed, rng.randint(2, 30)), rng.uniform(0.05, 0.5)
    others, taken = divide(units, share)
    rest = iter(units)
    assert all(any(unit is each for each in rest) for unit in others)  # a subsequence of what was given
    assert {id(unit) for unit in others} | {id(unit) for unit in taken} == {id(unit) for unit in units}
    assert len(others) + len(taken) == len(units)
    wanted = max(1, round(share * sum(map(len, units))))
    found = sum(map(len, taken))
    assert found <= wanted or (len(taken) == 1 and found == min(map(len, units)))
    if found < wanted:  # then no other unit would have found room
        assert all(len(unit) > wanted - found for unit in others)


def test_where_all_units_are_too_large_the_smallest_is_taken():
    units = [[np.array([0, 1])] * count for count in (4, 3, 5)]
    others, taken = divide(units, 0.1)
    assert taken == [units[1]]
    assert len(others) == 2


def test_who_is_taken_depends_on_the_number_of_units_alone():
    taken = [
        [int(unit[0][0]) for unit in divide([[np.array([index, scale])] for index in range(40)], 0.25)[1]]
        for scale in (1, 2)
    ]
    assert taken[0] == taken[1]
    assert len(taken[0]) == 10
    assert taken[0] != list(range(10))


@random_cases(50)
@given(seeds)
def test_what_is_packed_comes_out_again_with_new_numbers(seed: int):
    units = random_units(seed, 12)
    train, test = [[np.array([9, 9, 4])], *units[:8]], [[np.array([4, 1, 1, 9])], *units[8:]]
    array, details = pack((train, test))
    data = module._unpack("any", array, details | {"digest": "", "is_standin": False, "source": "", "differs": ""})
    kept, held_out = divide(train, 0.1)
    old = [[s.tolist() for unit in part for s in unit if len(s) > 1] for part in (kept, held_out, test)]
    everything = sorted({token for part in old for sequence in part for token in sequence})
    new = [[[everything.index(token) for token in sequence] for sequence in part] for part in old]
    assert parts_of(data) == new
    assert data.labels == len(everything)


def test_a_part_is_like_a_list_of_arrays():
    part = Part(np.array([5, 6, 7, 8, 9], np.int32), np.array([2, 3], np.int32))
    assert len(part) == 2
    assert part[0].tolist() == part[-2].tolist() == [5, 6]
    assert part[1].tolist() == part[-1].tolist() == [7, 8, 9]
    assert part[1].dtype == np.int64
    assert [sequence.tolist() for sequence in part] == [[5, 6], [7, 8, 9]]
    part[0][:] = 0  # a copy
    assert part[0].tolist() == [5, 6]
    for index in (2, -3):
        with pytest.raises(IndexError, match="there are 2 sequences"):
            part[index]


@pytest.fixture
def nyc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data with 40 people of New York in the preprocessed form."""
    folder = tmp_path / "data" / "foursquare"
    folder.mkdir(parents=True)
    monkeypatch.setenv("BOOK_DATA_DIR", str(tmp_path / "data"))
    write_nyc(folder, 0)
    return folder


def write_nyc(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    rows = [f"{user},{rng.randint(1, 30)},{minute}" for user in range(1, 41) for minute in range(0, 90, 10)]
    (folder / "nyc_checkins.csv.gz").write_bytes(gzip.compress("\n".join(["user,poi,minute", *rows]).encode()))


def test_a_second_load_reads_no_file(nyc: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_sequences("fsq-nyc", "real")
    assert not first.is_standin
    assert first.source == "preprocessed: places with 10 check-ins"
    unreadable = tuple(replace(form, read=lambda paths: pytest.fail("read again")) for form in module.FORMS["fsq-nyc"])
    monkeypatch.setitem(module.FORMS, "fsq-nyc", unreadable)
    second = load_sequences("fsq-nyc", "real")
    assert parts_of(second) == parts_of(first)
    assert (second.digest, second.labels, second.differs) == (first.digest, first.labels, first.differs)
    monkeypatch.delenv("BOOK_DATA_DIR")  # the cache is enough
    assert load_sequences("fsq-nyc", "real").digest == first.digest


def test_another_file_or_other_rules_make_the_cache_anew(nyc: Path, monkeypatch: pytest.MonkeyPatch):
    first = load_sequences("fsq-nyc")
    write_nyc(nyc, 1)
    second = load_sequences("fsq-nyc")
    assert second.digest != first.digest
    monkeypatch.setattr(module, "divide", lambda units, share: (units[:-1], units[-1:]))
    assert load_sequences("fsq-nyc").digest == second.digest
    monkeypatch.setattr(module, "RULES", 10**6)
    assert len(load_sequences("fsq-nyc").validation) == 1


def test_a_damaged_cache_is_made_anew(nyc: Path, cache: Path):
    first = load_sequences("fsq-nyc")
    array = next(cache.glob("sequences-fsq-nyc-*.npy"))
    content = array.read_bytes()
    array.write_bytes(content[:-1] + b"\x07")
    with pytest.warns(CacheWarning, match="is damaged"):
        assert load_sequences("fsq-nyc").digest == first.digest


def test_official_files_come_first_and_damage_is_not_absence(nyc: Path):
    load_sequences("fsq-nyc")
    official = nyc / "dataset_TSMC2014_NYC.txt"
    official.write_text("what is this\n")
    with pytest.raises(DataError, match=f"{official} is damaged.* in line 1") as caught:
        load_sequences("fsq-nyc")
    assert not isinstance(caught.value, DataMissing)


def test_a_form_needs_all_of_its_files(tmp_path: Path):
    form = Form("two files", "", ("a/train.txt.gz", "a/test.txt.gz"), lambda paths: paths)
    assert form.find(None) is None
    assert form.find(tmp_path) is None
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "train.txt").write_text("")
    with pytest.raises(DataError, match="test.txt.gz is missing"):
        form.find(tmp_path)
    (tmp_path / "a" / "test.txt.gz").write_text("")
    (tmp_path / "a" / "train.txt.gz").write_text("")
    assert form.find(tmp_path) == [tmp_path / "a" / "train.txt", tmp_path / "a" / "test.txt.gz"]
    assert Form("a folder", "", ("a/",), lambda paths: paths).find(tmp_path) == [tmp_path / "a"]
    assert Form("a file", "", ("a",), lambda paths: paths).find(tmp_path) is None


@pytest.mark.parametrize("name", NAMES)
def test_without_data_a_stand_in_says_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOOK_DATA_DIR", str(tmp_path))
    with pytest.warns(StandInWarning, match=f"stand in for {name}"):
        data = load_sequences(name)
    assert data.is_standin
    assert data.name == f"{name} stand-in"
    with pytest.raises(DataMissing, match="Set BOOK_DATA_DIR to a folder that holds"):
        load_sequences(name, "real")


def test_unknown_names_and_sources_are_refused():
    with pytest.raises(ValueError, match="no sequences 'gowalla'; known: brightkite"):
        load_sequences("gowalla")
    with pytest.raises((ValueError, TypeError)):
        load_sequences("geolife", "official")


def test_the_stand_in_is_made_of_people_with_habits():
    data = load_sequences("fsq-nyc", "stand-in")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [60, 7, 20]
    assert data.digest == make_checkins("other").digest
    sequences = [sequence for part in (data.train, data.validation, data.test) for sequence in part]
    assert {len(sequence) for sequence in sequences} == {60}
    tokens = np.concatenate(sequences)
    assert set(tokens.tolist()) == set(range(data.labels))
    assert 300 < data.labels <= 500
    # Much of what comes was there before, much is the person's own.
    repeats = np.mean([1 - len(set(sequence.tolist())) / 60 for sequence in sequences])
    assert 0.6 < repeats < 0.9
    shared = np.mean([len(set(a.tolist()) & set(b.tolist())) for a, b in zip(sequences, sequences[1:], strict=False)])
    assert shared < 4
    counts = np.sort(np.bincount(tokens))[::-1]
    assert 0.4 < counts[:50].sum() / counts.sum() < 0.8


@pytest.mark.parametrize(
    ("name", "sizes", "labels", "mean_length"),
    [
        ("brightkite", (233, 67), 4913, 435.0),
        ("fsq-nyc", (670, 264), 4318, 92.8),
        ("fsq-tokyo", (1517, 656), 7038, 143.2),
        ("geolife", (282, 26), 14253, 1892.8),
        ("yoochoose", (12419, 2170), 12417, 13.3),
        ("diginetica", (17852, 1497), 36718, 13.5),
    ],
)
def test_real_data(
    name: str,
    sizes: tuple[int, int],
    labels: int,
    mean_length: float,
    real_data: Path | None,
    session_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    if real_data is None:
        pytest.skip("needs BOOK_DATA_DIR")
    monkeypatch.setenv("BOOK_DATA_DIR", str(real_data))
    monkeypatch.setenv("BOOK_CACHE_DIR", str(session_cache))
    try:
        data = load_sequences(name, "real")
    except DataMissing as missing:
        pytest.skip(str(missing))
    if data.source == "official":
        pytest.skip("the numbers are those of the preprocessed form")
    assert (len(data.train) + len(data.validation), len(data.test)) == sizes
    assert len(data.validation) == round(0.1 * sizes[0])
    assert data.labels == labels
    lengths = np.concatenate([part.lengths for part in (data.train, data.validation, data.test)])
    assert lengths.min() >= 2
    assert lengths.mean() == pytest.approx(mean_length, abs=0.05)
    tokens = np.concatenate([part.tokens for part in (data.train, data.validation, data.test)])
    assert len(tokens) == lengths.sum()
    assert (np.unique(tokens) == np.arange(labels)).all()
