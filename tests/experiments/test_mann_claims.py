"""Verdicts follow from records: each claim can hold, hold in part and fail, and says «not run» without its records."""

from dataclasses import replace

import pytest

from lib import ledger
from lib.experiments import EXPERIMENTS
from lib.experiments.claims import FAILS, HOLDS, IN_PART, MEANINGS, NOT_YET, SO_FAR, verdicts
from lib.experiments.mann_claims import CLAIMS
from lib.ledger import Record


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path))


def record(experiment: str, variant: str, **metrics) -> Record:
    """A complete record of the short profile, of real data."""
    return Record(
        experiment=experiment,
        variant=variant,
        profile="short",
        seed=0,
        config={"episodes": {"classes": 5}, "training": {"updates": 1000}},
        metrics=metrics,
        updates=1000,
        complete=True,
        seconds=60.0,
        machine={"device": "cpu", "name": "a machine"},
        commit=None,
        data={"name": "omniglot", "sha256": "", "is_standin": False},
    )


def by_instance(*accuracy: float) -> dict:
    """Accuracies of instances 1, 2, ... and the last of them for all up to the tenth."""
    return {"accuracy": [*accuracy, *[accuracy[-1]] * (10 - len(accuracy))], "counts": [10_000] * 10}


def trained(made: Record, *second: float) -> Record:
    """With a training curve of the second instance, a point each 500 updates."""
    updates = [500 * (i + 1) for i in range(len(second))]
    curve = {"update": updates, "accuracy": [[0.2, each] + [0.9] * 8 for each in second]}
    return replace(made, curve=curve, updates=updates[-1])


def better(a: str, b: str, experiment: str = "mann.table2") -> dict:
    def made(ours: float) -> list[Record]:
        return [record(experiment, a, **by_instance(0.2, ours)), record(experiment, b, **by_instance(0.2, 0.5))]

    return {HOLDS: made(0.6), IN_PART: made(0.52), FAILS: made(0.5)}


def table1(*accuracy: float) -> list[Record]:
    return [record("mann.table1", "mann", **by_instance(*accuracy))]


def figure3a(*kept: float) -> list[Record]:
    made = record("mann.figure3", "five", **by_instance(0.2)), record("mann.table1", "mann", **by_instance(0.2))
    return [trained(made[0], *kept), trained(made[1], 0.3, 0.6, 0.7, 0.7, 0.8, 0.8)]


def figure3b(kept: float, wiped: float = 0.8) -> list[Record]:
    return [
        record("mann.figure3", "ten", **by_instance(0.1, kept)),
        record("mann.figure3", "ten-wiped", **by_instance(0.1, wiped)),
    ]


def figure4(*accuracy: float) -> list[Record]:
    """Tested with 20 classes, which were trained, and then with 50, 55, 60 ..."""
    scores = {"20": by_instance(0.9)} | {str(50 + 5 * i): by_instance(a) for i, a in enumerate(accuracy)}
    made = record("mann.figure4", "mann", **by_instance(0.5), by_classes=scores)
    return [replace(made, config=made.config | {"curriculum": {"first": 15, "every": 100}})]


def figure5(r2: float, rank: float) -> list[Record]:
    metrics = {"mean_r2": r2, "distance_correlation": rank, "gp_distance_correlation": 0.5}
    return [record("mann.figure5", "1d", **metrics)]


def figure6(*late: float) -> list[Record]:
    def made(variant: str, last: float) -> Record:
        scores = {"negative_log_likelihood": [1.4] * 25 + [last] * 25}
        found = record("mann.figure6", variant, **scores, gp_negative_log_likelihood=[1.4] * 25 + [0.4] * 25)
        return replace(found, config=found.config | {"process": {"noise": 0.1}})

    return [made(variant, last) for variant, last in zip(("2d", "3d"), late, strict=True)]


AS_REPORTED = (0.364, 0.828, 0.91, 0.926, 0.949, 0.95, 0.96, 0.97, 0.98, 0.981)
MANN_15 = record("mann.table2", "mann-15", **by_instance(0.0))
CASES = [
    {HOLDS: table1(*AS_REPORTED), IN_PART: table1(0.3, 0.8, *AS_REPORTED[2:]), FAILS: table1(0.3, 0.7)},
    {HOLDS: table1(*AS_REPORTED), IN_PART: table1(0.3, *AS_REPORTED[1:]), FAILS: table1(0.3, 0.4)},
    better("mann", "lstm", "mann.table1"),
    better("mann-15", "lstm-15"),
    better("mann-15", "knn-raw-15"),
    better("mann-15", "knn-deep-15"),
    better("mann-15", "mann-feedforward-15"),
    better("mann-15", "ntm-15"),
    {HOLDS: table1(0.3, 0.8), FAILS: table1(0.245, 0.8)},
    {v: [trained(*table1(0.3, tested), 0.9)] for v, tested in ((HOLDS, 0.86), (IN_PART, 0.82), (FAILS, 0.7))},
    {v: [trained(MANN_15, second)] for v, second in ((HOLDS, 0.78), (IN_PART, 0.5), (FAILS, 0.3))},
    {HOLDS: figure3a(0.2, 0.2, 0.2, 0.3, 0.4, 0.6), IN_PART: figure3a(0.2, 0.4, 0.5), FAILS: figure3a(0.3, 0.5)},
    {HOLDS: figure3b(0.78), IN_PART: figure3b(0.7), FAILS: figure3b(0.1, wiped=0.1)},
    {HOLDS: figure4(0.6, 0.55, 0.5), IN_PART: figure4(0.6, 0.3, 0.2), FAILS: figure4(0.1, 0.08, 0.05)},
    {HOLDS: figure5(0.995, 0.4), IN_PART: figure5(0.995, 0.1), FAILS: figure5(0.977, 0.1)},
    {HOLDS: figure6(0.5, 0.6), IN_PART: figure6(0.5, 1.0), FAILS: figure6(1.39, 1.3)},
]
TABLE_1_LSTM = next(claim for claim in CLAIMS if claim.runs == (("mann.table1", "mann"), ("mann.table1", "lstm")))


def in_short(verdict: str, claim) -> str:
    """A short training only begins."""
    return {FAILS: NOT_YET, HOLDS: SO_FAR if claim.compares else HOLDS}.get(verdict, verdict)


@pytest.mark.parametrize(
    ("claim", "cases"), list(zip(CLAIMS, CASES, strict=True)), ids=lambda c: getattr(c, "text", "")
)
def test_each_verdict_is_reached_from_records_that_earn_it(book, claim, cases):
    assert verdicts((claim,), "the paper").rows[0].cells[0] == "not run"
    for verdict, records in cases.items():
        assert tuple((r.experiment, r.variant) for r in records) == claim.runs
        for each in records:
            ledger.save_record(each)
        table = verdicts((claim,), "the paper")
        (row,) = table.rows
        assert row.cells[0] == in_short(verdict, claim)
        explained = [word for word in MEANINGS if f"«{word}»" in table.caption]
        assert explained == ([row.cells[0]] if row.cells[0] in MEANINGS else [])
        assert any(character.isdigit() for character in row.cells[1])
        assert "short profile" in row.note


def test_claims_are_judged_from_runs_that_exist():
    for claim in CLAIMS:
        for experiment, variant in claim.runs:
            EXPERIMENTS[experiment].check(variant, "paper")


def test_all_records_of_a_verdict_are_of_one_profile_and_the_paper_profile_is_preferred(book):
    ours, other = better("mann", "lstm", "mann.table1")[HOLDS]
    ledger.save_record(replace(ours, profile="paper"))
    ledger.save_record(other)
    assert verdicts((TABLE_1_LSTM,), "the paper").rows[0].cells[0] == "not run"
    ledger.save_record(replace(other, profile="paper"))
    assert "paper profile" in verdicts((TABLE_1_LSTM,), "the paper").rows[0].note


def test_only_a_complete_run_of_the_paper_profile_speaks_against_a_claim(book):
    for each in better("mann", "lstm", "mann.table1")[FAILS]:
        ledger.save_record(replace(each, profile="paper"))
    assert verdicts((TABLE_1_LSTM,), "the paper").rows[0].cells[0] == FAILS


def test_runs_of_unequal_length_are_compared_after_as_many_updates(book):
    mann, lstm = better("mann", "lstm", "mann.table1")[HOLDS]
    curve = {"validation_update": [500, 1000], "validation_accuracy": [[0.2, 0.5] + [0.9] * 8, [0.9] * 10]}
    ledger.save_record(replace(mann, profile="paper", curve=curve))
    curve = {"validation_update": [500], "validation_accuracy": [[0.2, 0.49] + [0.9] * 8]}
    ledger.save_record(replace(lstm, profile="paper", complete=False, curve=curve))
    row = verdicts((TABLE_1_LSTM,), "the paper").rows[0]
    assert row.cells[0] == IN_PART
    assert "validation at update 500" in row.cells[1]


def test_a_stand_in_earns_no_verdict(book):
    for each in better("mann", "lstm", "mann.table1")[HOLDS]:
        ledger.save_record(replace(each, data={"name": "glyphs", "sha256": "", "is_standin": True}))
    assert verdicts((TABLE_1_LSTM,), "the paper").rows[0].cells[0] == "not run"


def test_every_claim_that_the_ledger_has_of_the_paper_is_judged():
    """Figures 2 to 6 of `data/paper/mann.json` have claims in words."""
    quoted = {name for name, content in ledger.paper_numbers("mann").items() if "claims" in content}
    judged = {f"figure{claim.figure.split()[1][0]}" for claim in CLAIMS if claim.figure.startswith("Figure")}
    assert quoted == judged
    for name in quoted:
        figure = name.removeprefix("figure")
        assert sum(claim.figure.startswith(f"Figure {figure}") for claim in CLAIMS) >= len(
            ledger.paper_numbers("mann")[name]["claims"]
        )


def test_a_run_that_ends_early_is_slower_by_no_more_than_it_shows(book):
    claim = next(claim for claim in CLAIMS if claim.figure == "Figure 3a")
    for points, verdict in ((4, IN_PART), (6, HOLDS)):  # wiped reaches 50% at update 1000
        for each in figure3a(*[0.2] * points):
            ledger.save_record(each)
        row = verdicts((claim,), "the paper").rows[0]
        assert row.cells[0] == verdict
        assert f"not within {500 * points} updates" in row.cells[1]


@pytest.mark.parametrize("curve", [None, {"validation_update": [500], "validation_accuracy": [[]]}])
def test_an_unfinished_run_beside_one_without_validations_is_no_verdict(book, curve):
    claim = next(claim for claim in CLAIMS if claim.runs[-1][1] == "knn-raw-15")
    ours, other = better("mann-15", "knn-raw-15")[HOLDS]
    validated = {"validation_update": [500], "validation_accuracy": [[0.1] * 10]}
    ledger.save_record(replace(ours, complete=False, curve=validated))
    ledger.save_record(replace(other, curve=curve))
    row = verdicts((claim,), "the paper").rows[0]
    assert row.cells[0] == NOT_YET
    assert "unfinished" in row.cells[1]
