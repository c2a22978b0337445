"""The ledger: what is written is read, what is damaged is named, and what a stand-in gave never takes a real place."""

import errno
import json
import math
import os
import tempfile
from dataclasses import asdict, replace

import pytest
import torch

from lib import ledger
from lib.experiments import EXPERIMENTS
from lib.ledger import LedgerError, Record, mean_and_interval

REAL = {"name": "omniglot", "sha256": "ab" * 32, "is_standin": False}
STANDIN = {"name": "glyphs", "sha256": "cd" * 32, "is_standin": True}
RECORD = Record(
    experiment="mann.table1",
    variant="mann",
    profile="short",
    seed=3,
    config={"learner": {"hidden": 200}, "training": {"updates": 4000, "learning_rate": 1e-4}},
    metrics={"loss": 0.1 + 0.2, "accuracy": [0.25, None], "counts": [4, 0], "hits": [1, 0]},
    updates=4000,
    complete=True,
    seconds=12.5,
    machine={"device": "cpu", "name": "A processor", "threads": 1},
    commit="0123456789abcdef+",
    data=REAL,
    checkpoint={"file": "data/checkpoints/é.safetensors", "sha256": "ef" * 32},
    curve={"update": [500], "loss": [1.5], "accuracy": [[0.2, None]]},
)


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(folder))
    return folder


def test_what_is_written_is_read(results):
    path = ledger.save_record(RECORD)
    assert path == results / "mann.table1" / "mann-short-3.json"
    assert RECORD.name == "mann.table1/mann-short-3"
    assert ledger.read_record(path) == RECORD
    assert ledger.find_record("mann.table1", "mann", "short", 3) == RECORD
    assert json.loads(path.read_text()) == asdict(RECORD)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_optional_parts_may_be_absent():
    bare = replace(RECORD, checkpoint=None, curve=None, commit=None)
    assert ledger.read_record(ledger.save_record(bare)) == bare


def test_without_the_variable_records_are_in_the_project(monkeypatch):
    monkeypatch.delenv("BOOK_RESULTS_DIR")
    assert ledger.results_dir() == ledger.ROOT / "data" / "results"


def test_records_are_found_by_experiment_variant_and_profile_in_order():
    others = [
        replace(RECORD, seed=10),
        replace(RECORD, seed=2),
        replace(RECORD, variant="lstm"),
        replace(RECORD, profile="paper", seed=0),
        replace(RECORD, experiment="mann.figure3"),
    ]
    for record in others:
        ledger.save_record(record)
    assert [r.seed for r in ledger.load_records("mann.table1", "mann", "short")] == [2, 10]
    assert [r.variant for r in ledger.load_records("mann.table1")] == ["lstm", "mann", "mann", "mann"]
    assert {r.experiment for r in ledger.load_records()} == {"mann.table1", "mann.figure3"}
    assert [r.profile for r in ledger.load_records(profile="paper")] == ["paper"]
    assert len(ledger.load_records()) == 5
    assert ledger.load_records("mann.table9") == []
    assert ledger.find_record("mann.table1", "mann", "short", 7) is None


def test_an_empty_ledger_has_no_records():
    assert ledger.load_records() == []


WHOLE = json.dumps(asdict(RECORD))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON at all",
        b"\xff\xfe\x00garbage",
        WHOLE[: len(WHOLE) // 2].encode(),
        b"[]",
        b"null",
        b"3",
        b"{}",
        json.dumps(asdict(RECORD) | {"format": 99}).encode(),
        json.dumps({k: v for k, v in asdict(RECORD).items() if k != "metrics"}).encode(),
        json.dumps(asdict(RECORD) | {"invented": 1}).encode(),
        WHOLE.replace("12.5", "NaN").encode(),
    ],
    ids=["empty", "text", "bytes", "cut", "list", "null", "number", "object", "format", "missing", "unknown", "nan"],
)
def test_a_damaged_record_is_an_error_that_names_its_file(results, content):
    path = ledger.save_record(RECORD)
    path.write_bytes(content)
    for read in (
        lambda: ledger.read_record(path),
        lambda: ledger.load_records(),
        lambda: ledger.find_record("mann.table1", "mann", "short", 3),
        lambda: ledger.save_record(replace(RECORD, data=STANDIN)),
    ):
        with pytest.raises(LedgerError, match="is not a record") as caught:
            read()
        assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    ledger.save_record(RECORD)  # run again on the real data, it is mended
    assert ledger.read_record(path) == RECORD


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_hold_is_an_error_that_names_its_place(results, odd):
    path = ledger.save_record(RECORD)
    for bad, place in (
        ({"metrics": {"loss": 0.5, "rows": [{"loss": 0.5}, {"loss": odd}]}}, r"metrics.rows\[1\].loss"),
        ({"curve": {"loss": (0.5, odd)}}, r"curve.loss\[1\]"),
        ({"seconds": odd}, "seconds"),
    ):
        with pytest.raises(LedgerError, match=rf"mann.table1/mann-short-3 is not written: {place} is no number"):
            ledger.save_record(replace(RECORD, **bad))
    assert ledger.read_record(path) == RECORD


def test_a_missing_record_is_an_error_that_names_it(results):
    with pytest.raises(LedgerError, match="nothing.json"):
        ledger.read_record(results / "nothing.json")


def test_a_stand_in_does_not_replace_the_real_data():
    path = ledger.save_record(RECORD)
    content = path.read_bytes()
    with pytest.raises(LedgerError, match="real data") as caught:
        ledger.save_record(replace(RECORD, data=STANDIN, seconds=1.0))
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content
    assert "the stand-in 'glyphs'; set BOOK_DATA_DIR to" in str(caught.value)
    assert "BOOK_RESULTS_DIR to another folder" in str(caught.value)


@pytest.mark.parametrize(("old", "new"), [(STANDIN, STANDIN), (STANDIN, REAL), (REAL, REAL)])
def test_any_other_run_replaces_the_older_one(old, new):
    ledger.save_record(replace(RECORD, data=old))
    path = ledger.save_record(replace(RECORD, data=new, seconds=99.0))
    assert ledger.read_record(path).seconds == 99.0
    assert ledger.read_record(path).data == new


@pytest.mark.parametrize("where", ["fsync", "replace", "mkstemp"])
def test_a_full_disk_is_an_error_and_the_old_record_is_still_whole(monkeypatch, where):
    path = ledger.save_record(RECORD)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile if where == "mkstemp" else os, where, full)
    with pytest.raises(LedgerError, match="No space left on device") as caught:
        ledger.save_record(replace(RECORD, seconds=99.0))
    assert str(path) in str(caught.value)
    monkeypatch.undo()
    assert ledger.read_record(path) == RECORD
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_mean_and_interval_of_known_values():
    assert mean_and_interval([0.7]) == (0.7, None)
    mean, half = mean_and_interval([0.0, 1.0])
    assert mean == 0.5
    assert half == pytest.approx(12.706 * 0.5, rel=1e-4)  # one degree of freedom
    mean, half = mean_and_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3
    assert half == pytest.approx(2.776 * math.sqrt(2.5) / math.sqrt(5), rel=1e-4)
    assert mean_and_interval([0.5, 0.5, 0.5]) == (0.5, 0.0)


def coverage(quantile: float, degrees: int, steps: int = 4000) -> float:
    """The chance that |t| is below `quantile`: Student's density, summed by Simpson's rule."""
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    width = quantile / steps
    total = 0.0
    for i in range(steps + 1):
        weight = 1 if i in (0, steps) else 4 if i % 2 else 2
        total += weight * (1 + (i * width) ** 2 / degrees) ** (-(degrees + 1) / 2)
    return 2 * scale * total * width / 3


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15, 20, 30, 100])
def test_the_interval_covers_95_percent_for_any_number_of_seeds(count):
    values = [math.sin(i) for i in range(count)]
    mean, half = mean_and_interval(values)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in values) / (count - 1))
    assert coverage(half / (deviation / math.sqrt(count)), count - 1) == pytest.approx(0.95, abs=0.005)


def test_the_papers_numbers_are_the_papers():
    """Tables 1 and 2 of Santoro et al. 2016, typed from the paper once more."""
    numbers = ledger.paper_numbers("mann")
    table1 = numbers["table1"]
    assert table1["instances"] == [1, 2, 3, 4, 5, 10]
    assert table1["rows"] == {
        "human": [34.5, 57.3, 70.1, 71.8, 81.4, 92.4],
        "feedforward": [24.4, 19.6, 21.1, 19.9, 22.8, 19.5],
        "lstm": [24.4, 49.5, 55.3, 61.0, 63.6, 62.5],
        "mann": [36.4, 82.8, 91.0, 92.6, 94.9, 98.1],
    }
    rows = {(r["model"], r["controller"], r["classes"]): r["accuracy"] for r in numbers["table2"]["rows"]}
    assert rows == {
        ("knn-raw-pixels", "none", 5): [4.0, 36.7, 41.9, 45.7, 48.1, 57.0],
        ("knn-deep-features", "none", 5): [4.0, 51.9, 61.0, 66.3, 69.3, 77.5],
        ("feedforward", "none", 5): [0.0, 0.2, 0.0, 0.2, 0.0, 0.0],
        ("lstm", "none", 5): [0.0, 9.0, 14.2, 16.9, 21.8, 25.5],
        ("mann-lrua", "feedforward", 5): [0.0, 8.0, 16.2, 25.2, 30.9, 46.8],
        ("mann-lrua", "lstm", 5): [0.0, 69.5, 80.4, 87.9, 88.4, 93.1],
        ("knn-raw-pixels", "none", 15): [0.5, 18.7, 23.3, 26.5, 29.1, 37.0],
        ("knn-deep-features", "none", 15): [0.4, 32.7, 41.2, 47.1, 50.6, 60.0],
        ("feedforward", "none", 15): [0.0, 0.1, 0.0, 0.0, 0.0, 0.0],
        ("lstm", "none", 15): [0.0, 2.2, 2.9, 4.3, 5.6, 12.7],
        ("mann-lrua", "feedforward", 15): [0.1, 12.8, 22.3, 28.8, 32.2, 43.4],
        ("mann-lrua", "lstm", 15): [0.1, 62.6, 79.3, 86.6, 88.7, 95.3],
        ("mann-ntm", "lstm", 15): [0.0, 35.4, 61.2, 71.7, 77.7, 88.4],
    }


def test_an_unknown_paper_is_an_error_that_lists_the_known_ones():
    with pytest.raises(LedgerError, match=r"known: .*mann"):
        ledger.paper_numbers("nonsense")


def test_the_machine_is_described_in_json():
    machine = ledger.describe_machine(torch.device("cpu"))
    assert json.loads(json.dumps(machine)) == machine
    assert machine["device"] == "cpu"
    assert machine["name"]
    assert machine["threads"] == torch.get_num_threads()
    assert machine["torch"] == torch.__version__


def test_outside_a_repository_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert ledger.code_commit() is None


def test_code_that_was_sent_without_its_repository_has_the_commit_it_came_with(monkeypatch, tmp_path):
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    monkeypatch.setenv("BOOK_CODE_COMMIT", "0123abc+")
    assert ledger.code_commit() == "0123abc+"


def test_a_commit_is_marked_where_the_code_differs_from_it(monkeypatch, tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        assert os.spawnlp(os.P_WAIT, "git", "git", "-C", str(tmp_path), *identity, *arguments) == 0

    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "code.py").write_text("x = 1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "code")
    clean = ledger.code_commit()
    assert len(clean) == 40
    assert set(clean) <= set("0123456789abcdef")
    (tmp_path / "README.md").write_text("not code\n")
    assert ledger.code_commit() == clean
    (tmp_path / "lib" / "code.py").write_text("x = 2\n")
    assert ledger.code_commit() == clean + "+"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_committed_records_are_of_what_the_code_now_runs(monkeypatch, name):
    """A config that changed makes its old records say something of a run that nobody can repeat."""
    monkeypatch.delenv("BOOK_RESULTS_DIR", raising=False)
    experiment = EXPERIMENTS[name]
    folder = ledger.results_dir() / name
    committed = [ledger.read_record(path) for path in sorted(folder.glob("*.json"))]
    for record in committed:
        now = json.loads(json.dumps(experiment.config(record.variant, record.profile)))
        assert record.config == now, f"run {record.name} again, or remove its record"
