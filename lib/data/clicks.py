"""What visitors of a shop click on: Yoochoose (Shankar & Sarawagi 2018, table 1) and, as an extra, Diginetica.

A sequence is a session. The paper's sessions have 13 clicks on average, those of the usual 1/64 cut of Yoochoose 4; it
does not say which it took. Here they are those with a least number of clicks, chosen so that the mean comes nearest
to 13: in that cut 8 clicks (mean 13.3; with 7 it is 11.9), in Diginetica 10 (13.5; with 9 it is 12.4).

The official files could not be had here: their readers were tried on small files in their formats alone.
"""

import datetime
from functools import partial
from pathlib import Path

import numpy as np

from lib.data.raw_files import (
    Codes,
    Form,
    Unit,
    alone,
    damaged,
    divide,
    in_time_order,
    keep_frequent,
    read_rows,
    read_visits,
)

LEAST_CLICKS = {"yoochoose": 8, "diginetica": 10}  # of a session, see above
LEAST_VISITS = 5  # of an item, in the official files: the usual filter
YOOCHOOSE_TEST_SHARE = 112_279 / (450_523 + 112_279)
DIGINETICA_TEST_DAYS = 7  # the last ones, as is usual


def long_enough(sessions: list[np.ndarray], name: str, path: Path) -> list[Unit]:
    """The sessions with enough clicks. Raises DataError if there are fewer than two."""
    kept = [session for session in sessions if len(session) >= LEAST_CLICKS[name]]
    if len(kept) < 2:
        raise damaged(path, f"sessions of {LEAST_CLICKS[name]} clicks or more", f"{len(kept)} of them")
    return alone(kept)


def read_sessions(name: str, paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`train.txt.gz` and `test.txt.gz`: a session a line, item numbers with spaces between them. Raises DataError."""

    expected = "item numbers with spaces between them"
    parts = [list(read_rows(path, expected, lambda row: np.array(row, np.int64))) for path in paths]
    train, test = (long_enough(part, name, path) for part, path in zip(parts, paths, strict=True))
    return train, test


def read_yoochoose(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`yoochoose-clicks.dat`: session, time such as 2014-04-07T10:51:09.277Z, item, category, with commas. Sessions are
    divided by chance in the paper's proportion. Raises DataError."""
    no_punctuation = str.maketrans("", "", "-:TZ.")

    def click(fields: list[str]) -> tuple[int, int, int]:
        session, time, item, _category = fields
        if len(time) != 24:
            raise ValueError
        return int(session), int(time.translate(no_punctuation)), int(item)

    rows = read_rows(paths[0], "session,time,item,category", click, ",")
    clicks = keep_frequent(read_visits(paths[0], rows), LEAST_VISITS)
    return divide(long_enough(in_time_order(clicks), "yoochoose", paths[0]), YOOCHOOSE_TEST_SHARE)


def read_diginetica(paths: list[Path]) -> tuple[list[Unit], list[Unit]]:
    """`train-item-views.csv`: sessionId;userId;itemId;timeframe;eventdate, the time in ms from the session's start. The
    sessions of the last seven days are tested on. Raises DataError."""
    path, last_day, items = paths[0], {}, Codes()

    def view(fields: list[str]) -> tuple[int, int, int]:
        session, _user, item, milliseconds, date = fields
        day = datetime.date.fromisoformat(date).toordinal()
        last_day[int(session)] = max(day, last_day.get(int(session), 0))
        return int(session), int(milliseconds), items[item]

    rows = read_rows(path, "sessionId;userId;itemId;timeframe;eventdate", view, ";", header=1)
    views = keep_frequent(read_visits(path, rows), LEAST_VISITS)
    border = max(last_day.values()) - DIGINETICA_TEST_DAYS
    tested = np.array([last_day[session] > border for session in views["who"].tolist()], bool)
    train, test = (long_enough(in_time_order(part), "diginetica", path) for part in (views[~tested], views[tested]))
    return train, test


NOT_CHECKED = "The reader was tried on made-up files only."
FORMS = {
    "yoochoose": (
        Form(
            "official",
            f"Sessions of {LEAST_CLICKS['yoochoose']} clicks or more, which is our guess. {NOT_CHECKED}",
            ("yoochoose/yoochoose-clicks.dat",),
            read_yoochoose,
        ),
        Form(
            "preprocessed: 1/64",
            "The last 1/64 of the sessions to train on, those of the last day to test on; of both, those of "
            f"{LEAST_CLICKS['yoochoose']} clicks or more, which is our guess.",
            ("yoochoose1_64/train.txt.gz", "yoochoose1_64/test.txt.gz"),
            partial(read_sessions, "yoochoose"),
        ),
    ),
    "diginetica": (
        Form(
            "official",
            f"Not in the paper: a second shop. Sessions of {LEAST_CLICKS['diginetica']} clicks or more. {NOT_CHECKED}",
            ("diginetica/train-item-views.csv",),
            read_diginetica,
        ),
        Form(
            "preprocessed: sessions",
            f"Not in the paper: a second shop. Sessions of {LEAST_CLICKS['diginetica']} clicks or more, those of the "
            "last week to test on.",
            ("diginetica/train.txt.gz", "diginetica/test.txt.gz"),
            partial(read_sessions, "diginetica"),
        ),
    ),
}
