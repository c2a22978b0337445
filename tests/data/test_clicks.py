"""Readers of clicked items, on small files in the official formats and in that of the preprocessed form."""

import datetime
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given

from lib.data import DataError, clicks
from tests.cases import random_cases, seeds
from tests.data.test_checkins import all_sequences, pattern, write

START = datetime.datetime(2014, 4, 7, 10, 51, 9, 277_000)
Session = list[tuple[int, int]]
"""Millisecond and item of each click, in order."""


def random_sessions(seed: int, count: int = 60) -> dict[int, Session]:
    rng = random.Random(seed)
    return {
        number: [
            (time, 214_536_500 + int(40 * rng.random() ** 2))
            for time in sorted(rng.sample(range(10**6), rng.randint(1, 20)))
        ]
        for number in rng.sample(range(1, 10**6), count)
    }


def without_rare_items(sessions: dict[int, Session], least_clicks: int) -> dict[int, list[int]]:
    """Items of the sessions that are long enough without items of fewer than five clicks."""
    counts = Counter(item for session in sessions.values() for _, item in session)
    kept = {number: [item for _, item in clicks if counts[item] >= 5] for number, clicks in sessions.items()}
    return {number: items for number, items in kept.items() if len(items) >= least_clicks}


@random_cases(15)
@given(seeds)
def test_yoochooses_official_file(tmp_path_factory: pytest.TempPathFactory, seed: int):
    sessions = random_sessions(seed)
    lines = []
    for number, session in sessions.items():
        for milliseconds, item in session:
            time = (START + datetime.timedelta(milliseconds=milliseconds)).isoformat(timespec="milliseconds")
            lines.append(f"{number},{time}Z,{item},0")
    random.Random(seed).shuffle(lines)
    paths = write(tmp_path_factory.mktemp("raw") / "yoochoose-clicks.dat", lines)
    train, test = clicks.read_yoochoose(paths)
    expected = without_rare_items(sessions, 8)
    assert sorted(all_sequences((train, test))) == sorted(expected.values())
    assert len(test) == max(1, round(len(expected) * 112_279 / 562_802))


@random_cases(15)
@given(seeds)
def test_digineticas_official_file(tmp_path_factory: pytest.TempPathFactory, seed: int):
    sessions, rng = random_sessions(seed), random.Random(seed)
    day = {number: rng.randint(0, 20) for number in sessions}
    last = max(day.values())
    lines = [
        f"{number};NA;{item};{milliseconds};{datetime.date(2016, 5, 1) + datetime.timedelta(day[number])}"
        for number, session in sessions.items()
        for milliseconds, item in session
    ]
    rng.shuffle(lines)
    path = tmp_path_factory.mktemp("raw") / "train-item-views.csv"
    train, test = clicks.read_diginetica(write(path, ["sessionId;userId;itemId;timeframe;eventdate", *lines]))
    expected = without_rare_items(sessions, 10)
    late = [items for number, items in expected.items() if day[number] > last - 7]
    assert pattern(all_sequences((train, test))) == pattern(expected.values())
    assert sorted(map(len, all_sequences(([], test)))) == sorted(map(len, late))


def test_the_preprocessed_sessions_keep_their_parts_and_order(tmp_path: Path):
    long = [" ".join(str(10 * i + j) for j in range(8)) for i in range(5)]
    paths = write(tmp_path / "train.txt.gz", [long[0], "1 2 3 4 5 6 7", *long[1:3]])
    paths += write(tmp_path / "test.txt.gz", [*long[3:], "4 4"])
    train, test = clicks.read_sessions("yoochoose", paths)
    assert [" ".join(map(str, unit[0])) for unit in train] == long[:3]
    assert [" ".join(map(str, unit[0])) for unit in test] == long[3:]
    with pytest.raises(DataError, match="test.txt.gz is damaged.* expected sessions of 10 clicks or more"):
        clicks.read_sessions("diginetica", write(paths[0], [long[0] + " 8 9"] * 3) + paths[1:])
    write(paths[1], [long[0], "1 2 three"])
    with pytest.raises(DataError, match="test.txt.gz is damaged.* item numbers .* in line 2, found: '1 2 three'"):
        clicks.read_sessions("yoochoose", paths)


@pytest.mark.parametrize(
    "line", ["1,2014-04-07T10:51:09.277Z,214536502", "1,2014-04-07,214536502,0", "1,2014-04-07T10:51:09.277Z,x,0"]
)
def test_a_damaged_line_of_yoochoose_is_named(tmp_path: Path, line: str):
    paths = write(tmp_path / "yoochoose-clicks.dat", ["1,2014-04-07T10:51:09.277Z,214536502,0", line])
    with pytest.raises(DataError, match=f"{paths[0]} is damaged.* session,time,item,category in line 2"):
        clicks.read_yoochoose(paths)


@pytest.mark.parametrize("line", ["1;NA;81766;526309", "1;NA;81766;526309;today", "1;NA;81766;x;2016-05-09"])
def test_a_damaged_line_of_diginetica_is_named(tmp_path: Path, line: str):
    lines = ["sessionId;userId;itemId;timeframe;eventdate", "1;NA;81766;526309;2016-05-09", line]
    paths = write(tmp_path / "train-item-views.csv", lines)
    with pytest.raises(DataError, match=f"{paths[0]} is damaged.*sessionId;userId.* in line 3"):
        clicks.read_diginetica(paths)


def test_a_shop_without_long_sessions_is_refused(tmp_path: Path):
    lines = [f"1,2014-04-07T10:51:09.27{i}Z,214536502,0" for i in range(7)]
    with pytest.raises(DataError, match="sessions of 8 clicks or more, found: '0 of them'"):
        clicks.read_yoochoose(write(tmp_path / "yoochoose-clicks.dat", lines))
