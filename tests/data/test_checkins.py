"""Readers of visited places, on small files in the official formats and in those of the preprocessed forms."""

import datetime
import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from lib.data import DataError, checkins
from lib.data.raw_files import Unit
from tests.cases import random_cases, seeds

START = datetime.datetime(2012, 4, 3, 18, 0, 9, tzinfo=datetime.UTC)
Visit = tuple[int, int, str]
"""Person, minute, place."""


def write(path: Path, lines: Iterable[str], encoding: str = "utf-8") -> list[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return [path]


def random_visits(seed: int, people: int = 12, places: int = 14) -> list[Visit]:
    """In no order, no two of a person at the same time; some places are rare."""
    rng = random.Random(seed)
    visits = []
    for person in rng.sample(range(1, 2000), people):
        for minute in rng.sample(range(5000), rng.randint(3, 40)):
            visits.append((person, minute, f"4b{int(places * rng.random() ** 2):022x}"))
    rng.shuffle(visits)
    return visits


def naive_people(visits: list[Visit], at_least: int = 1) -> list[list[str]]:
    """Places of each person in order of time, without the rare places."""
    counts = Counter(place for _, _, place in visits)
    kept = [visit for visit in visits if counts[visit[2]] >= at_least]
    return [[p for _, p in sorted((m, p) for who, m, p in kept if who == x)] for x in sorted({v[0] for v in kept})]


def all_sequences(divided: tuple[list[Unit], list[Unit]]) -> list[list[int]]:
    return [sequence.tolist() for part in divided for unit in part for sequence in unit]


def pattern(sequences: Iterable[Iterable]) -> list[tuple[int, ...]]:
    """The sequences in a fixed order with tokens numbered by their totals: what does not depend on their names.

    Exact if no two tokens occur equally often; else still blind to the names alone.
    """
    sequences = [tuple(sequence) for sequence in sequences]
    totals = Counter(token for sequence in sequences for token in sequence)
    return sorted(tuple(totals[token] for token in sequence) for sequence in sequences)


@random_cases(15)
@given(seeds)
def test_foursquares_official_file(tmp_path_factory: pytest.TempPathFactory, seed: int):
    visits = random_visits(seed)

    def line(person: int, minute: int, place: str) -> str:
        time = (START + datetime.timedelta(minutes=minute)).strftime("%a %b %d %H:%M:%S +0000 %Y")
        return f"{person}\t{place}\t4bf58dd8d48988d127951735\tCafé\t40.7198\t-74.0025\t-240\t{time}"

    path = tmp_path_factory.mktemp("raw") / "dataset_TSMC2014_NYC.txt"
    write(path, (line(*visit) for visit in visits), "latin-1")
    people = naive_people(visits, at_least=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(checkins.PEOPLE, "fsq-nyc", (6, 3))
        train, test = checkins.read_foursquare("fsq-nyc", [path])
    fewest = sorted(people, key=len)[:9]
    assert (len(train) + len(test), len(test)) == (len(fewest), round(len(fewest) / 3))
    found = all_sequences((train, test))
    assert sorted(map(len, found)) == [len(person) for person in fewest]
    if len({len(person) for person in people}) == len(people):  # else which of two equals is kept is not said
        assert pattern(found) == pattern(fewest)


def test_foursquares_people_keep_their_own_places_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkins, "LEAST_VISITS", 1)
    times = {"Mon Dec 31 23:59:59 +0000 2012": "c", "Tue Apr 03 18:00:09 +0000 2012": "a"}
    times |= {"Wed Apr 04 00:10:00 +0000 2012": "b", "Tue Jan 01 00:00:00 +0000 2013": "a"}
    lines = [f"{user}\t{user}{place}\tx\tBar\t1\t2\t540\t{time}" for time, place in times.items() for user in (470, 9)]
    divided = checkins.read_foursquare("fsq-tokyo", write(tmp_path / "dataset_TSMC2014_TKY.txt", lines))
    first, second = all_sequences(divided)
    for sequence in (first, second):
        a, b, c, again = sequence
        assert a == again
        assert len({a, b, c}) == 3
    assert not set(first) & set(second)


@pytest.mark.parametrize(
    "line",
    [
        "470\tvenue\tx\tBar\t1\t2\t-240",
        "470\tvenue\tx\tBar\t1\t2\t-240\tyesterday",
        "one\tvenue\tx\tBar\t1\t2\t-240\tTue Apr 03 18:00:09 +0000 2012",
        "470\t\tx\tBar\t1\t2\t-240\tTue Apr 03 18:00:09 +0000 2012",
    ],
)
def test_a_damaged_line_of_foursquare_is_named(tmp_path: Path, line: str):
    good = "470\tvenue\tx\tBar\t1\t2\t-240\tTue Apr 03 18:00:09 +0000 2012"
    path = tmp_path / "dataset_TSMC2014_NYC.txt"
    with pytest.raises(DataError, match=f"{path} is damaged.* expected 8 fields .* in line 3.*Replace"):
        checkins.read_foursquare("fsq-nyc", write(path, [good, good, line]))


def test_a_foursquare_of_rare_places_alone_is_refused(tmp_path: Path):
    rare = "470\tvenue\tx\tBar\t1\t2\t-240\tTue Apr 03 18:00:09 +0000 2012"
    path = tmp_path / "dataset_TSMC2014_NYC.txt"
    with pytest.raises(DataError, match="people at places with 6 visits, found: '0 of them'"):
        checkins.read_foursquare("fsq-nyc", write(path, [rare, rare]))


def brightkite_line(person: int, minute: int, place: str) -> str:
    time = (START + datetime.timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{person}\t{time}\t39.747652\t-104.99251\t{place}"


def test_brightkites_official_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkins, "BRIGHTKITE_VISITS", (10, 30))
    visits = random_visits(3, people=40)
    newest_first = sorted(visits, key=lambda visit: (visit[0], -visit[1]))
    lines = [brightkite_line(*visit) for visit in newest_first]
    nowhere = [f"{newest_first[0][0]}\t\t\t\t", brightkite_line(5, 3, "00000000000000000000000000000000")]
    path = tmp_path / "loc-brightkite_totalCheckins.txt.gz"
    write(path, [*lines[:5], nowhere[0], *lines[5:], *[nowhere[1]] * 20])
    people = [person for person in naive_people(visits, at_least=6) if 10 <= len(person) <= 30]
    divided = checkins.read_brightkite([path])
    assert pattern(all_sequences(divided)) == pattern(people)
    assert len(divided[1]) == round(len(people) * 521 / 2321)
    monkeypatch.setitem(checkins.PEOPLE, "brightkite", (9, 3))
    train, test = checkins.read_brightkite([path])
    assert (len(train), len(test)) == (9, 3)


def test_of_two_check_ins_at_the_same_time_the_lower_line_came_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkins, "BRIGHTKITE_VISITS", (1, 30))
    monkeypatch.setattr(checkins, "LEAST_VISITS", 1)
    lines = [brightkite_line(person, 7, place) for person in (1, 2, 3) for place in ("new", "mid", "old")]
    divided = checkins.read_brightkite(write(tmp_path / "loc-brightkite_totalCheckins.txt", lines))
    assert all_sequences(divided) == [[2, 1, 0]] * 3  # numbered by line


@pytest.mark.parametrize("line", ["7\t2010-10-17\tx", "7\tyesterday\t1\t2\tabc", "x\t2010-10-17T01:48:53Z\t1\t2\tabc"])
def test_a_damaged_line_of_brightkite_is_named(tmp_path: Path, line: str):
    path = tmp_path / "loc-brightkite_totalCheckins.txt"
    with pytest.raises(DataError, match=f"{path} is damaged.*user, time, .* in line 2"):
        checkins.read_brightkite(write(path, [brightkite_line(7, 1, "ee8b"), line]))


def test_a_brightkite_of_no_one_is_refused(tmp_path: Path):
    path = tmp_path / "loc-brightkite_totalCheckins.txt"
    with pytest.raises(DataError, match="people with 100 to 1000 visits, found: '0 of them'"):
        checkins.read_brightkite(write(path, [brightkite_line(7, 1, "ee8b")]))


def test_the_preprocessed_brightkite_keeps_the_order_of_its_lines(tmp_path: Path):
    header = "user,trajectory,split,lat,lon,minute,weekday,poi"
    rows = {41: [7, 7, 9, 7], 45: [1, 2, 3], 58: [9, 9], 60: [5, 5]}
    lines = [
        f"{who},{3000 + i},train,39.7,-104.9,{900 - i},Monday,{p}" for who in rows for i, p in enumerate(rows[who])
    ]
    path = tmp_path / "checkins.csv.gz"
    divided = checkins.read_brightkite_subset(write(path, [header, *lines]))
    assert sorted(all_sequences(divided)) == sorted(rows.values())
    with pytest.raises(DataError, match=f"{path} .* expected user,trajectory,split.* in line 5"):
        checkins.read_brightkite_subset(write(path, [header, *lines[:3], lines[3][:-2]]))
    with pytest.raises(DataError, match="expected lines of data, found: 'none'"):
        checkins.read_brightkite_subset(write(path, [header]))


def test_the_preprocessed_new_york_is_that_of_those_with_fewest_visits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(checkins.PEOPLE, "fsq-nyc", (2, 1))
    rows = {1: [4, 5, 6, 7, 8], 2: [9, 4], 3: [4, 4, 4, 4, 4, 4], 10: [8, 9, 5]}
    lines = [f"{who},{poi},{10 * i}" for who in rows for i, poi in reversed(list(enumerate(rows[who])))]
    path = tmp_path / "nyc_checkins.csv.gz"
    train, test = checkins.read_nyc_checkins(write(path, ["user,poi,minute", *lines]))
    assert (len(train), len(test)) == (2, 1)
    assert sorted(all_sequences((train, test))) == [[4, 5, 6, 7, 8], [8, 9, 5], [9, 4]]
    with pytest.raises(DataError, match="expected user,poi,minute in line 2"):
        checkins.read_nyc_checkins(write(path, ["user,poi,minute", "1,2"]))


def test_the_preprocessed_tokyo_is_joined_by_person(tmp_path: Path):
    parts = [
        {"split": "test", "user": 0, "sessions": [[5, 6], [7]], "label": 8},
        {"split": "train", "user": 1, "sessions": [[1, 2]], "label": 3},
        {"split": "train", "user": 0, "sessions": [[1, 1], [2, 3]], "label": 4},
        {"split": "test", "user": 1, "sessions": [[9]], "label": 9},
    ]
    path = tmp_path / "tky_sessions.jsonl.gz"
    divided = checkins.read_tokyo_sessions(write(path, map(json.dumps, parts)))
    assert sorted(all_sequences(divided)) == [[1, 1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 9, 9]]
    for wrong in ('{"split": "train"', '{"split": "train", "user": 0}', json.dumps(parts[0] | {"split": "all"})):
        with pytest.raises(DataError, match="expected a JSON object of split .* in line 2"):
            checkins.read_tokyo_sessions(write(path, [json.dumps(parts[0]), wrong]))
    with pytest.raises(DataError, match="expected lines of data"):
        checkins.read_tokyo_sessions(write(path, []))


@random_cases(30)
@given(seeds)
def test_a_cell_is_a_square_of_a_hundred_metres(seed: int):
    rng = np.random.default_rng(seed)
    latitude, longitude = rng.uniform(39.65, 40.2), rng.uniform(116.1, 116.7)

    def metres(a: tuple[float, float], b: tuple[float, float]) -> float:
        """Along the sphere."""
        (lat1, lon1), (lat2, lon2) = np.deg2rad(a), np.deg2rad(b)
        half = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
        return 2 * 6_371_000 * np.arcsin(np.sqrt(half))

    points = np.stack([latitude + rng.uniform(0, 0.003, 60), longitude + rng.uniform(0, 0.004, 60)], 1)
    found = checkins.cells(points[:, 0].copy(), points[:, 1].copy())
    assert (found >= 0).all()
    for i in range(60):
        for j in range(i):
            distance = metres(tuple(points[i]), tuple(points[j]))
            if found[i] == found[j]:
                assert distance < 100 * 2**0.5 * 1.02  # the narrowing is that of the square's middle
            if abs(points[i, 0] - points[j, 0]) * 111_195 > 100.1:
                assert found[i] != found[j]
    assert 4 <= len(set(found.tolist())) <= 25  # of 334 m by 341 m


def test_cells_are_as_wide_as_they_are_high():
    """Ten kilometres northward or eastward are a hundred cells, in the middle of the square."""
    steps = np.linspace(0, 10_000, 5_000)
    north, east = steps / 111_195, steps / (111_195 * np.cos(np.deg2rad(39.95)))
    for latitude, longitude in ((39.95 + north, np.full(5_000, 116.4)), (np.full(5_000, 39.95), 116.4 + east)):
        assert abs(len(set(checkins.cells(latitude, longitude).tolist())) - 100.5) < 1


def test_points_outside_the_square_have_no_cell():
    latitude = np.array([39.59, 40.31, 39.9, 39.9, 31.2, 39.9])
    longitude = np.array([116.4, 116.4, 115.9, 116.81, 121.5, 116.4])
    assert (checkins.cells(latitude, longitude) == -1).tolist() == [True] * 5 + [False]


PLT_HEADER = [
    "Geolife trajectory",
    "WGS 84",
    "Altitude is in Feet",
    "Reserved 3",
    "0,2,255,My Track,0,0,2,8421376",
    "0",
]


def plt_lines(points: Iterable[tuple[float, float]]) -> list[str]:
    return PLT_HEADER + [f"{lat},{lon},0,492,39744.{i:04},2008-10-23,02:53:04" for i, (lat, lon) in enumerate(points)]


def test_geolifes_official_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkins, "OFFICIAL_PIECE", 5)
    place = {"a": (39.9, 116.3), "b": (39.95, 116.35), "c": (39.98, 116.31), "away": (31.2, 121.5)}
    data = tmp_path / "geolife" / "Geolife Trajectories 1.3" / "Data"
    walks = {
        "000": {"20081023025304": "aab", "20081024020959": "bcc"},
        "001": {"20090102000000": "c", "20081231000000": "ab"},
        "002": {"20081023025304": "abcabcabcabc"},
        "003": {"20081023025304": "c"},
    }
    for person, files in walks.items():
        for name, walk in files.items():
            points = [place[letter] for letter in walk]
            write(data / person / "Trajectory" / f"{name}.plt", plt_lines([*points[:1], place["away"], *points[1:]]))
    folders = checkins.FORMS["geolife"][0].find(tmp_path)
    assert [folder.parent.name for folder in folders] == list(walks)
    train, test = checkins.read_geolife(folders)
    assert len(train) + len(test) == 3
    number = {letter: int(checkins.cells(*np.array([place[letter]]).T)[0]) for letter in "abc"}
    expected = [["aabbc"], ["abc"], ["abcab", "cabca"]]  # what is left of 000 is one point alone
    found = [[sequence.tolist() for sequence in unit] for unit in [*train, *test]]
    assert sorted(found) == sorted([[[number[letter] for letter in piece] for piece in unit] for unit in expected])


def test_a_damaged_file_of_geolife_is_named(tmp_path: Path):
    folder = tmp_path / "Data" / "000" / "Trajectory"
    (path,) = write(folder / "20081023025304.plt", [*plt_lines([(39.9, 116.3)]), "39.9,116.3,0"])
    with pytest.raises(DataError, match=f"{path} is damaged.* expected latitude,longitude,0.* in line 8"):
        checkins.read_geolife([folder])
    write(path, plt_lines([(39.9, 116.3)]))
    with pytest.raises(DataError, match=f"{tmp_path / 'Data'} is damaged.*people with points around Beijing"):
        checkins.read_geolife([folder])


def test_the_preprocessed_geolife_begins_another_person_where_time_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkins, "PIECE", 4)
    # Trajectory, time of its first point, points: a, b, or x outside the square.
    walks = [(4, 900, "aab"), (5, 1000, "bxb"), (9, 200, "ab"), (12, 200, "ba"), (13, 100, "aa")]
    place = {"a": (39.9, 116.3), "b": (39.95, 116.35), "x": (36.0, 103.8)}
    lines = [
        f"{trajectory},train,walk,{start + 2 * i},{place[letter][0]},{place[letter][1]}"
        for trajectory, start, walk in walks
        for i, letter in enumerate(walk)
    ]
    header, path = "trajectory,split,mode,time,lat,lon", tmp_path / "trajectories.csv.gz"
    train, test = checkins.read_geolife_sample(write(path, [header, *lines]))
    a, b = (int(checkins.cells(*np.array([place[letter]]).T)[0]) for letter in "ab")
    found = [[sequence.tolist() for sequence in unit] for unit in [*train, *test]]
    assert sorted(found) == sorted([[[a, a, b, b], [b]], [[a, b, b, a]], [[a, a]]])
    assert len(test) == 1
    write(path, [header, lines[0].replace(",900,", ",1.241e+09,"), *lines[1:]])
    assert len(sum(checkins.read_geolife_sample([path]), [])) == 4  # a time as the source prints some
    with pytest.raises(DataError, match="expected trajectory,split.* in line 3"):
        checkins.read_geolife_sample(write(path, [header, lines[0], "4,train"]))
    with pytest.raises(DataError, match="expected lines of data"):
        checkins.read_geolife_sample(write(path, [header]))


def test_a_file_that_cannot_be_unpacked_is_named(tmp_path: Path):
    header, path = "user,poi,minute", tmp_path / "nyc_checkins.csv.gz"
    rng = random.Random(0)
    (whole,) = write(path, [header, *(f"{i},{rng.randint(1, 10**6)},{rng.randint(1, 10**6)}" for i in range(3000))])
    path.write_bytes(whole.read_bytes()[:-3000])
    with pytest.raises(DataError, match=f"{path} is damaged.*expected utf-8 text that can be read in line"):
        checkins.read_nyc_checkins([path])
    path.write_bytes(b"not packed")
    with pytest.raises(DataError, match=f"{path} is damaged.* in line 1"):
        checkins.read_nyc_checkins([path])
