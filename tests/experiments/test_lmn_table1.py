"""Table 1 of LMN: the statistics against slow ones, the record of a run, and the table beside the paper's."""

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from lib import ledger, report
from lib.data.sequences import NAMES, Part, Sequences
from lib.experiments import PROFILES, RunOptions, lmn_table1
from tests.cases import random_cases, seeds


def sequences(name: str, train, validation, test, labels: int, **changes) -> Sequences:
    def part(lists: list[list[int]]) -> Part:
        return Part(np.array(sum(lists, []), np.int32), np.array([len(each) for each in lists], np.int32))

    details = {"digest": "0" * 64, "is_standin": False, "source": "preprocessed: lists", "differs": "It is made up."}
    return Sequences(name, part(train), part(validation), part(test), labels, **(details | changes))


@random_cases(60)
@given(seeds)
def test_statistics_are_those_of_counting_by_hand(seed: int):
    rng = random.Random(seed)
    labels = rng.randint(2, 9)

    def lists(count: int) -> list[list[int]]:
        return [[rng.randrange(labels) for _ in range(rng.randint(2, 12))] for _ in range(count)]

    train, validation, test = lists(rng.randint(1, 3)), lists(1), lists(rng.randint(1, 4))
    found = lmn_table1.statistics(sequences("any", train, validation, test, labels))
    known = {token for sequence in train for token in sequence}
    seen = before = new = steps = 0
    for sequence in test:
        for t in range(1, len(sequence)):
            steps += 1
            seen += sequence[t] in sequence[:t]
            before += sequence[t] == sequence[t - 1]
            new += sequence[t] not in known
    assert (found["train"], found["validation"], found["test"]) == (len(train), 1, len(test))
    everything = [*train, *validation, *test]
    assert found["length"] == pytest.approx(sum(map(len, everything)) / len(everything))
    assert (found["labels"], found["train_labels"], found["test_steps"]) == (labels, len(known), steps)
    assert found["seen_before"] == pytest.approx(seen / steps)
    assert found["just_before"] == pytest.approx(before / steps)
    assert found["new"] == pytest.approx(new / steps)
    validated = validation[0][1:]
    assert found["validation_new"] == pytest.approx(sum(token not in known for token in validated) / len(validated))


@pytest.fixture
def book(tmp_path, monkeypatch):
    """An empty ledger, and small data in the place of the real."""
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path / "results"))
    small = sequences("brightkite", [[0, 1, 1]] * 1200, [[2, 0]], [[0, 3, 3, 0, 1]], 4)
    monkeypatch.setattr(lmn_table1, "load_sequences", lambda name: replace(small, name=name))
    return small


def run(variant: str, profile: str = "paper", seed: int = 0) -> ledger.Record:
    (experiment,) = lmn_table1.EXPERIMENTS
    return experiment.run(variant, profile, seed, RunOptions())


def test_a_run_counts_and_records(book):
    record = run("geolife", "smoke")
    assert record == ledger.find_record("lmn.table1", "geolife", "smoke", 0)
    assert record.complete and record.updates == 0
    assert record.data == {"name": "geolife", "sha256": book.digest, "is_standin": False}
    assert record.metrics["seen_before"] == 0.5
    assert record.metrics["new"] == 0.5
    (experiment,) = lmn_table1.EXPERIMENTS
    assert len({str(experiment.config("geolife", profile)) for profile in PROFILES}) == 1
    assert record.config == experiment.config("geolife", "paper")


def test_the_table_puts_ours_beside_the_papers(book):
    run("brightkite")
    table = lmn_table1.table1()
    rows = {(row.label, row.source): row for row in table.rows}
    assert len(rows) == len(table.rows) == 2 * len(NAMES) - 1  # Diginetica is not in the paper
    assert rows["Brightkite", "paper"].cells[:4] == ("1 800", "521", "238", "22 811")
    ours = rows["Brightkite", "ours"]
    assert ours.cells == ("1 200 + 1", "1", "3.0", "4", "2", "50.0%", "25.0%", "50.0%", "0.0%")
    (difference,) = lmn_table1.differences().rows
    assert (difference.source, difference.cells) == ("preprocessed: lists", ("It is made up.",))
    assert rows["Diginetica", "ours"].note == report.NOT_RUN
    assert all(len(row.cells) in (0, len(table.columns)) for row in table.rows)
    report.html_table(table), report.text_table(table)


def test_a_stand_in_is_shown_as_one_and_gives_way_to_real_data(book, monkeypatch):
    standin = replace(book, name="geolife stand-in", is_standin=True, source="made up")
    with monkeypatch.context() as patch:
        patch.setattr(lmn_table1, "load_sequences", lambda name: standin)
        run("geolife")

    def form() -> tuple[str, str]:
        ours = next(r for r in lmn_table1.table1().rows if r.label == "Geolife" and r.source != "paper")
        return ours.source, lmn_table1.differences().rows[0].source

    assert form() == ("ours, STAND-IN", "STAND-IN: geolife stand-in")
    run("geolife", "smoke")
    assert form() == ("ours", "preprocessed: lists")


def test_the_papers_numbers_have_all_five_tables():
    paper = ledger.paper_numbers("lmn")
    assert set(lmn_table1.LABELS) == set(NAMES) == set(paper["table1"]["rows"]) | {"diginetica"}
    for table in ("table1", "table2", "table3", "table4", "table5"):
        assert all(row is None or len(row) == len(paper[table]["columns"]) for row in paper[table]["rows"].values())
    assert paper["table2"]["rows"]["brightkite"][-1] == [3.57, 0.55]
    assert [variant for variant, row in paper["table2"]["rows"].items() if None in row] == ["geolife", "yoochoose"]
