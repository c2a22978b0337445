"""Places that people visit: Foursquare (New York, Tokyo), Brightkite, Geolife (Shankar & Sarawagi 2018, table 1).

A sequence is the places of one person in order of time; people are either trained on or tested on, in the paper's
proportion. The paper does not say how its people and places were chosen. What its table 1 counts suggests:

- Foursquare: of the official files, places with 6 visits or more (in New York, a power law through all 38 333 places
  and the 5135 with 10 visits or more puts some 8000 there; the paper has 8325). Of either form, the paper's number of
  people, those with the fewest visits: in New York 934 of 1083, who have 93 visits each to places with 10 visits or
  more; all 1083 have 137, the paper's have 90.
- Brightkite: 2321 people drawn from those with 100 to 1000 visits to places with 6 visits or more.
- Geolife: cells of 100 m in a square of some 75 km around Beijing, at the rate at which they were recorded (a point
  each 1 to 5 s): a person is then in the same cell as before in 86% of steps, which agrees with the paper's MRR of 0.84
  for all methods; at a point a minute, as the paper has it, it would be 25%.

The official files could not be had here: their readers were tried on small files in their formats alone.
"""

import datetime
import json
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64

from lib.data.raw_files import (
    VISITS,
    Codes,
    Form,
    Unit,
    alone,
    cut,
    damaged,
    divide,
    in_time_order,
    keep_frequent,
    read_rows,
    read_visits,
)

PEOPLE = {"brightkite": (1800, 521), "fsq-nyc": (670, 264), "fsq-tokyo": (1555, 672)}  # to train, to test
GEOLIFE_TEST_SHARE = 20 / 240
LEAST_VISITS = 6  # of a place, in the official files
BRIGHTKITE_VISITS = 100, 1000  # of a person, in the official file
BEIJING = (39.6, 40.3), (116.0, 116.8)  # degrees: latitude, longitude
CELL = 100.0  # metres, as in the paper
METRES_A_DEGREE = 111_195.0
PIECE, OFFICIAL_PIECE = 2000, 8000  # points; the second is the paper's mean length
OFFICIAL_PIECES_EACH = 2  # of a person: 182 people, some with less, beside the paper's 240 sequences


def by_person(people: list[np.ndarray], name: str, path: Path, kind: str = "people") -> tuple[list[Unit], list[Unit]]:
    """People to train and to test on, in the proportion of the paper's table 1. Raises DataError for fewer than 2.

    path, kind: whence they come and who they are, for the error.
    """
    if len(people) < 2:
        raise damaged(path, kind, f"{len(people)} of them")
    train, test = PEOPLE[name]
    return divide(alone(people), test / (train + test))


def fewest_visits(people: list[np.ndarray], count: int) -> list[np.ndarray]:
    """So many people, those with the fewest visits, in the order given."""
    chosen = np.argsort([len(person) for person in people], kind="stable")[:count]
    return [people[index] for index in np.sort(chosen)]


def read_foursquare(name: str, paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`dataset_TSMC2014_NYC.txt` or `..._TKY.txt`, Latin-1, tab-separated: user, venue, category and its name,
    latitude, longitude, minutes from UTC, time such as «Tue Apr 03 18:00:09 +0000 2012». Raises DataError."""
    path, places = paths[0], Codes()

    def visit(fields: list[str]) -> tuple[int, int, int]:
        user, venue, *_, time = fields
        if len(fields) != 8 or not venue:
            raise ValueError
        time = datetime.datetime.strptime(time, "%a %b %d %H:%M:%S %z %Y")
        return int(user), int(time.timestamp()), places[venue]

    rows = read_rows(path, "8 fields between tabs, the last a time", visit, "\t", encoding="latin-1")
    people = in_time_order(keep_frequent(read_visits(path, rows), LEAST_VISITS))
    return by_person(
        fewest_visits(people, sum(PEOPLE[name])), name, path, f"people at places with {LEAST_VISITS} visits"
    )


def read_nyc_checkins(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`nyc_checkins.csv.gz`: user, place, minute. Raises DataError."""
    rows = read_rows(paths[0], "user,poi,minute", lambda row: (int(row[0]), int(row[2]), int(row[1])), ",", header=1)
    people = in_time_order(read_visits(paths[0], rows))
    return by_person(fewest_visits(people, sum(PEOPLE["fsq-nyc"])), "fsq-nyc", paths[0])


def read_tokyo_sessions(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`tky_sessions.jsonl.gz`: a person's train sessions, the place after them, test sessions, the place after them.

    Raises DataError.
    """
    path, expected = paths[0], "a JSON object of split (train or test), user, sessions of places, and label"

    def part(fields: list[str]) -> tuple[int, bool, list[int]]:
        content = json.loads(fields[0])
        is_test = {"train": False, "test": True}[content["split"]]
        sessions = [int(place) for session in content["sessions"] for place in session]
        return int(content["user"]), is_test, [*sessions, int(content["label"])]

    parts = sorted(read_rows(path, expected, part, "\n"), key=lambda each: each[:2])
    if not parts:
        raise damaged(path, "lines of data", "none")
    people: dict[int, list[int]] = {}
    for user, _, places in parts:
        people.setdefault(user, []).extend(places)
    return by_person([np.array(places, np.int64) for places in people.values()], "fsq-tokyo", path)


def read_brightkite(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """SNAP's `loc-brightkite_totalCheckins.txt`, tab-separated: user, time such as 2010-10-17T01:48:53Z, latitude,
    longitude, place; the newest first; some lines have no place. Raises DataError."""
    path, places = paths[0], Codes()

    def visit(fields: list[str]) -> tuple[int, int, int]:
        user, time, *position = fields
        if time and len(fields) not in (4, 5):
            raise ValueError
        place = position[2] if len(position) > 2 else ""
        if not time or not place.strip("0"):
            return int(user), 0, -1  # nowhere
        return int(user), _seconds(time.removesuffix("Z")), places[place]

    rows = read_rows(path, "user, time, latitude, longitude and place between tabs", visit, "\t")
    visits = read_visits(path, rows)[::-1]
    people = in_time_order(keep_frequent(visits[visits["what"] >= 0], LEAST_VISITS))
    fewest, most = BRIGHTKITE_VISITS
    people = [person for person in people if fewest <= len(person) <= most]
    wanted = sum(PEOPLE["brightkite"])
    if len(people) > wanted:
        people = [unit[0] for unit in divide(alone(people), wanted / len(people))[1]]
    return by_person(people, "brightkite", path, f"people with {fewest} to {most} visits")


def _seconds(time: str) -> int:
    """Of an ISO time in UTC."""
    return int(datetime.datetime.fromisoformat(time).replace(tzinfo=datetime.UTC).timestamp())


def read_brightkite_subset(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`checkins.csv.gz`: the rows of each of 300 people, week by week, in order. Raises DataError."""
    expected = "user,trajectory,split,lat,lon,minute,weekday,poi"
    rows = read_rows(paths[0], expected, lambda row: (int(row[0]), 0, int(row[7])), ",", header=1)
    return by_person(in_time_order(read_visits(paths[0], rows)), "brightkite", paths[0])


def cells(latitude: Float64[np.ndarray, " points"], longitude: Float64[np.ndarray, " points"]) -> np.ndarray:
    """int64 (points,): the number of each point's cell of 100 m, or -1 outside the square around Beijing."""
    (south, north), (west, east) = BEIJING
    inside = (south <= latitude) & (latitude < north) & (west <= longitude) & (longitude < east)
    narrowing = np.cos(np.deg2rad((south + north) / 2))  # of a degree of longitude
    row = np.floor((latitude - south) * METRES_A_DEGREE / CELL)
    column = np.floor((longitude - west) * METRES_A_DEGREE * narrowing / CELL)
    columns = np.ceil((east - west) * METRES_A_DEGREE * narrowing / CELL)
    return np.where(inside, row * columns + column, -1).astype(np.int64)


def read_geolife(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """The folders `Data/<person>/Trajectory` of Geolife Trajectories 1.3. Each .plt file in them has six lines of
    header, then latitude, longitude, 0, altitude in feet, day, date, time. Raises DataError."""
    people = []
    for folder in paths:
        files = sorted(folder.glob("*.plt"))  # named by their first time
        points = [_plt_cells(path) for path in files]
        tokens = np.concatenate([np.zeros(0, np.int64), *points])
        pieces = cut(tokens[tokens >= 0], OFFICIAL_PIECE)[:OFFICIAL_PIECES_EACH]
        people.append([piece for piece in pieces if len(piece) > 1])
    people = [pieces for pieces in people if pieces]
    if len(people) < 3:
        raise damaged(paths[0].parent.parent, "people with points around Beijing", f"{len(people)} of them")
    return divide(people, GEOLIFE_TEST_SHARE)


def _plt_cells(path: Path) -> Int64[np.ndarray, " points"]:
    expected = "latitude,longitude,0,altitude,day,date,time"
    rows = read_rows(path, expected, lambda row: (float(row[0]), float(row[1]), row[6])[:2], ",", header=6)
    points = np.fromiter(rows, np.dtype([("lat", np.float64), ("lon", np.float64)]))
    return cells(points["lat"], points["lon"])


def read_geolife_sample(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`trajectories.csv.gz`: trajectory, split, mode, Unix time, latitude, longitude; trajectories of one person after
    the other, in order of time: where the time falls back another person begins. Raises DataError."""
    dtype = np.dtype([("trajectory", np.int64), ("time", np.int64), ("lat", np.float64), ("lon", np.float64)])
    rows = read_rows(
        paths[0],
        "trajectory,split,mode,time,lat,lon",
        lambda row: (int(row[0]), int(float(row[3])), float(row[4]), float(row[5])),
        ",",
        header=1,
    )
    points = np.fromiter(rows, dtype)
    if not len(points):
        raise damaged(paths[0], "lines of data", "none")
    _, starts, index = np.unique(points["trajectory"], return_index=True, return_inverse=True)
    falls_back = np.diff(points["time"][starts], prepend=points["time"][starts[0]]) < 0
    visits = np.zeros(len(points), VISITS)
    visits["who"], visits["when"] = np.cumsum(falls_back)[index], index
    visits["what"] = cells(points["lat"], points["lon"])
    runs = [cut(run, PIECE) for run in in_time_order(visits[visits["what"] >= 0])]
    return divide(runs, GEOLIFE_TEST_SHARE)


NOT_CHECKED = "Filters guessed from the paper's counts; the reader was tried on made-up files only."
FORMS = {
    "brightkite": (
        Form("official", NOT_CHECKED, ("brightkite/loc-brightkite_totalCheckins.txt.gz",), read_brightkite),
        Form(
            "preprocessed: 300 people",
            "300 people drawn by others in place of 2321, and only their weeks with 10 check-ins or more.",
            ("brightkite/checkins.csv.gz",),
            read_brightkite_subset,
        ),
    ),
    "fsq-nyc": (
        Form("official", NOT_CHECKED, ("foursquare/dataset_TSMC2014_NYC.txt",), partial(read_foursquare, "fsq-nyc")),
        Form(
            "preprocessed: places with 10 check-ins",
            "Only places with 10 check-ins or more; as many people as in the paper, those with the fewest check-ins, "
            "which is our guess.",
            ("foursquare/nyc_checkins.csv.gz",),
            read_nyc_checkins,
        ),
    ),
    "fsq-tokyo": (
        Form("official", NOT_CHECKED, ("foursquare/dataset_TSMC2014_TKY.txt",), partial(read_foursquare, "fsq-tokyo")),
        Form(
            "preprocessed: sessions, joined",
            "Rare places and short sessions were left out by others, so there are fewer places; 2173 people in place "
            "of 2227.",
            ("foursquare/tky_sessions.jsonl.gz",),
            read_tokyo_sessions,
        ),
    ),
    "geolife": (
        Form(
            "official",
            NOT_CHECKED + f" At most {OFFICIAL_PIECES_EACH} pieces of {OFFICIAL_PIECE} points a person.",
            ("geolife/Geolife Trajectories 1.3/Data/*/Trajectory/",),
            read_geolife,
        ),
        Form(
            "preprocessed: a sample of trajectories",
            "A sample of the trajectories whose means of transport are known, a point each 1 to 5 s in place of one a "
            f"minute; joined into 36 runs, a run being about a person, and cut into pieces of {PIECE} points.",
            ("geolife/trajectories.csv.gz",),
            read_geolife_sample,
        ),
    ),
}
