"""Tables and sentences on the ledger's records."""

import re
from dataclasses import replace
from html import unescape

import pytest

from lib import ledger, report
from lib.experiments import EXPERIMENTS, PROFILES
from tests.test_ledger import RECORD, STANDIN

INSTANCES = [1, 2, 10]
WITH_SCORES = replace(RECORD, metrics={"accuracy": [0.2, 0.8] + [0.9] * 8})


@pytest.fixture(autouse=True)
def results(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path))


def rows(*records):
    for record in records:
        ledger.save_record(record)
    return report.accuracy_rows("mann.table1", "mann", "MANN", INSTANCES, ("paper", "short"))


def with_second_instance(accuracy: float, **changes):
    return replace(WITH_SCORES, metrics={"accuracy": [0.2, accuracy] + [0.9] * 8}, **changes)


@pytest.mark.parametrize(
    ("k", "word"),
    [
        (1, "1st"),
        (2, "2nd"),
        (3, "3rd"),
        (4, "4th"),
        (11, "11th"),
        (12, "12th"),
        (13, "13th"),
        (21, "21st"),
        (111, "111th"),
    ],
)
def test_ordinals(k, word):
    assert report.ordinal(k) == word


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (42.0, "42 s"), (420.0, "7 min"), (8640.0, "2.4 h")])
def test_durations(seconds, words):
    assert report.duration(seconds) == words


def test_percentages_have_an_interval_only_over_several_seeds():
    assert report.percent([0.828]) == "82.8"
    assert report.percent([0.8, 0.9]) == "85.0 ± 63.5"


def test_where_nothing_was_run_it_says_so():
    (row,) = rows()
    assert row.cells == ()
    assert (row.label, row.source, row.note) == ("MANN", "ours", "not run")


def test_one_seed_is_shown_without_interval():
    (row,) = rows(WITH_SCORES)
    assert row.cells == ("20.0", "80.0", "90.0")
    assert row.source == "ours, short profile"
    assert "n = 1" in row.note
    assert "4 000 updates" in row.note
    assert "12 s on A processor" in row.note
    assert "unfinished" not in row.note
    assert "STAND-IN" not in row.note


def test_seeds_are_averaged_with_their_interval():
    (row,) = rows(with_second_instance(0.7, seed=0), with_second_instance(0.9, seed=1))
    assert row.cells[1] == "80.0 ± 127.1"
    assert "n = 2" in row.note


def test_profiles_and_unfinished_runs_have_rows_of_their_own():
    found = rows(
        WITH_SCORES,
        with_second_instance(0.5, seed=4, complete=False, updates=1000),
        with_second_instance(0.6, profile="paper"),
    )
    assert [(row.source, row.cells[1]) for row in found] == [
        ("ours, paper profile", "60.0"),
        ("ours, short profile", "80.0"),
        ("ours, short profile", "50.0"),
    ]
    assert "1 000 updates of 4 000: unfinished" in found[2].note


def test_a_stand_in_is_announced():
    (row,) = rows(replace(WITH_SCORES, data=STANDIN))
    assert "STAND-IN DATA: glyphs" in row.note


def test_a_stand_in_is_never_averaged_with_the_real_data():
    """A mean over both would be a number of neither."""
    found = rows(with_second_instance(0.9, seed=0), with_second_instance(0.5, seed=1, data=STANDIN))
    assert [row.cells[1] for row in found] == ["90.0", "50.0"]
    assert ["STAND-IN" in row.note for row in found] == [False, True]


def test_instances_without_a_count_are_left_empty_and_break_nothing():
    (row,) = rows(replace(WITH_SCORES, metrics={"accuracy": [0.2, 0.8] + [None] * 8}))
    assert row.cells[:2] == ("20.0", "80.0")
    assert not row.cells[2].replace("–", "").replace("-", "").strip()


TABLE = report.Table(
    "A <caption>",
    ("1st", "2nd"),
    (report.Row("MANN", "paper", ("36.4", "82.8")), report.Row("<b>", "ours", ("1.0", "100.0"), "a & b")),
)


def test_text_tables_are_aligned():
    lines = report.text_table(TABLE).splitlines()
    assert lines[0] == "A <caption>"
    header, first, second = lines[2:]
    assert header.index("2nd") + 3 == first.index("82.8") + 4 == second.index("100.0") + 5
    assert second.endswith("a & b")


def test_html_tables_are_escaped_and_have_a_scope_for_each_header():
    html = report.html_table(TABLE)
    assert "A &lt;caption&gt;" in html
    assert "&lt;b&gt;" in html
    assert "a &amp; b" in html
    assert html.count('scope="row"') == 2
    assert '<td class="number">82.8</td>' in html
    assert html.count("<tr") == html.count("</tr>") == 3


def test_the_first_two_columns_have_names_and_notes_a_column_only_where_there_are_some():
    assert report.text_table(TABLE).splitlines()[2].split()[:2] == ["network", "source"]
    html = report.html_table(replace(TABLE, names=("claim", "criterion")))
    assert '<th scope="col">claim</th><th scope="col">criterion</th>' in html
    assert html.count("<th scope") == 2 + len(TABLE.columns) + 1 + len(TABLE.rows)
    without = report.html_table(replace(TABLE, rows=TABLE.rows[:1]))
    assert without.count("<th scope") == 2 + len(TABLE.columns) + 1
    assert "note" not in without


def test_a_long_note_is_a_line_below_its_row_and_names_it_to_those_who_hear_it():
    longest = "n" * report.LONGEST_NOTE
    assert f'<td class="note">{longest}</td></tr>' in report.html_table(replace(TABLE, rows=(noted("LSTM", longest),)))
    long = longest + " & 10 000 updates"
    html = report.html_table(replace(TABLE, rows=(noted("LSTM", "not run"), TABLE.rows[0], noted("<b>", long))))
    header, lstm, of_lstm, paper, ours, of_ours = re.findall("<tr.*?</tr>", html)
    assert "from" not in header, "one long note, and no note of the table is in a column"
    for line in (lstm, paper, ours):
        assert line.count("<td") == 1 + len(TABLE.columns)
    assert 'class="note" colspan="4"' in of_lstm
    assert words(of_lstm) == "LSTM: not run"
    assert words(of_ours) == f"<b>: {longest} & 10\u00a0000 updates"
    assert "visually-hidden" in of_ours
    assert 'class="ours below"' in of_ours, "coloured as its row"


def noted(label: str, note: str) -> report.Row:
    return report.Row(label, "ours", ("1.0", "2.0"), note)


def words(html: str) -> str:
    return unescape(re.sub("<.*?>", "", html))


def test_an_interval_is_explained_where_there_is_one_and_nowhere_else():
    assert "±" not in report.html_table(TABLE)
    several = replace(TABLE, rows=(report.Row("MANN", "ours", ("36.4", "82.8 ± 1.2")),))
    for shown in (report.html_table(several), report.text_table(several)):
        assert "95% interval over the n seeds" in shown
    assert "82.8 ±\u00a01.2" in report.html_table(several), "a narrow cell breaks before ±, and nowhere else"
    in_words = replace(TABLE, rows=(report.Row("MANN", "ours", ("36.4% ± 1.2% of 2400 images", "82.8")),))
    assert "95%" not in report.text_table(in_words)


def test_validation_rows_show_the_last_validation_and_not_the_test():
    validated = {"validation_update": [50, 100], "validation_accuracy": [[0.1] * 10, [0.3, 0.6] + [0.7] * 8]}
    ledger.save_record(replace(WITH_SCORES, curve=validated))
    ledger.save_record(replace(WITH_SCORES, profile="paper", curve=None))
    paper, short = report.validation_rows("mann.table1", "mann", "MANN", INSTANCES, ("paper", "short"))
    assert short.cells == ("30.0", "60.0", "70.0")
    assert paper.cells == ("–", "–", "–")
    (missing,) = report.validation_rows("mann.table1", "lstm", "LSTM", INSTANCES, ("paper", "short"))
    assert missing.note == "not run"


def test_a_run_is_described_by_its_scores_or_by_where_it_stopped():
    words = report.describe_record(WITH_SCORES)
    assert "2nd 80.0%" in words
    assert "10th 90.0%" in words
    assert "mann.table1/mann-short-3.json" in words
    for metrics, words in (
        ({"perplexity": 123.44}, "test perplexity 123.4"),
        ({"log_perplexity": 4.8701, "mrr": 0.37}, "test log-perplexity 4.870, MRR 0.370"),
        ({"kinds": ["overall", "new"], "accuracy": [0.815, 0.707]}, "test accuracy: overall 81.5%, new 70.7%"),
        (
            {"mean_accuracy": [0.99, 0.9, 0.7]},
            "test accuracy after the last of 3 tasks, the mean over all of them: 70.0%",
        ),
        (
            {"error": {"network": 1.4418, "attention": 0.1266, "mbpa": 0.0623}},
            "root mean squared error: network 1.442, attention 0.127, MbPA 0.062",
        ),
        (
            {"changed": "memory", "values": [0.015625, 1], "by_value": [{"mbpa": {"all": [0, x]}} for x in (0.5, 0.7)]},
            "MbPA's test accuracy at the end, by memory: 0.015625 50.0%, 1 70.0%",
        ),
        ({"train": 3}, "recorded"),
    ):
        assert words in report.describe_record(replace(RECORD, metrics=metrics))
    assert "stopped at update 500" in report.describe_record(replace(RECORD, metrics={}, updates=500))


def test_the_list_shows_every_experiment_variant_and_profile_and_what_is_recorded():
    ledger.save_record(WITH_SCORES)
    lines = report.experiment_list(EXPERIMENTS.values()).splitlines()
    assert any(line.startswith("mann.table1") for line in lines)
    assert any(line.startswith("mann.figure2") for line in lines)
    ours = [line.split() for line in lines if line.startswith("    ") and "cost" in line]
    run_here = [e for e in EXPERIMENTS.values() if not e.drawn_from]
    assert {(words[0], words[1]) for words in ours} == {(v, p) for e in run_here for v in e.variants for p in PROFILES}
    recorded = [line for line in lines if "n = 1" in line]
    assert len(recorded) == 1
    assert "mann" in recorded[0]
    assert "short" in recorded[0]


@pytest.mark.parametrize(
    ("metrics", "more"), [({}, 0), ({"test_seconds": 120.0}, 120), ({"seconds": {"tuning": 60.0, "test": 180.0}}, 180)]
)
def test_a_run_costs_what_its_test_takes_too(metrics, more):
    for seed in (0, 1):
        ledger.save_record(replace(WITH_SCORES, seed=seed, seconds=600.0, metrics=WITH_SCORES.metrics | metrics))
    expected = report.duration(600.0 + more)
    assert report.cost("mann.table1", "mann", WITH_SCORES.profile) == f"{expected} on a CPU"
    assert report.cost("mann.table1", "lstm", WITH_SCORES.profile) == "not measured"
