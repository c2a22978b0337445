"""Verdicts on FLMN's claims follow from records: each can hold, hold in part and fail."""

from dataclasses import replace

import pytest

from lib import ledger
from lib.experiments import EXPERIMENTS
from lib.experiments.claims import EXCEEDED, FAILS, HOLDS, IN_PART, NOT_YET, verdicts
from lib.experiments.flmn_claims import CLAIMS, OF_THE_READING
from lib.ledger import Record
from tests.experiments.test_mann_claims import by_instance, in_short, record


@pytest.fixture
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path))


def run(variant: str, *accuracy: float, digits: float = 0.5, curve=((10_000, 0.2, 0.5, 1.5), (20_000, 0.2, 0.5, 1.5))):
    """A record of table 1; `curve`: updates, accuracy of first instances and of all later ones, loss."""
    found = record(
        "flmn.table1", variant, **by_instance(*accuracy or (0.2, 0.5)), mini_mnist={"accuracy": [digits] * 10}
    )
    made = {
        "update": [update for update, *_ in curve],
        "accuracy": [[first, *[later] * 9] for _, first, later, _ in curve],
        "loss": [loss for *_, loss in curve],
    }
    return replace(found, curve=made, updates=curve[-1][0])


def curves(first: float = 0.2, later: float = 0.5, loss: float = 1.5) -> tuple:
    return (10_000, first, later, loss), (20_000, first, later, loss), (30_000, first, later, loss)


def pair(ours: float, theirs: float, experiment: str = "1") -> list[Record]:
    return [run(f"mann-{experiment}", 0.2, theirs), run(f"flmn-{experiment}", 0.2, ours)]


def reported(variant: str, row: str) -> dict:
    paper = ledger.paper_numbers("flmn")["table1"]["rows"][row]
    at = [value / 100 for value in (*paper[:5], *[paper[4]] * 4, paper[5])]
    return {
        HOLDS: [run(variant, *at)],
        IN_PART: [run(variant, at[0], at[1] - 0.01, *at[2:])],
        FAILS: [run(variant, at[0], at[1] - 0.05, *at[2:])],
    }


def trained(experiment: str, ours: dict, theirs: dict) -> list[Record]:
    return [run(f"mann-{experiment}", curve=curves(**theirs)), run(f"flmn-{experiment}", curve=curves(**ours))]


SOONER, LATER = ({"loss": 0.5}, {"loss": 1.2}), ({"loss": 1.2}, {"loss": 0.5})
CASES = [
    reported("flmn-1", "flmn-experiment1"),
    reported("flmn-2", "flmn-experiment2"),
    {HOLDS: pair(0.9, 0.7), IN_PART: pair(0.9, 0.85), FAILS: pair(0.8, 0.85)},
    {HOLDS: pair(0.9, 0.7, "2"), IN_PART: pair(0.9, 0.85, "2"), FAILS: pair(0.8, 0.85, "2")},
    {
        HOLDS: [run("flmn-1", digits=0.81)],
        IN_PART: [run("flmn-1", digits=0.79)],
        FAILS: [run("flmn-1", digits=0.7)],
    },
    {
        verdict: [run("mann-1", digits=0.5), run("flmn-1", digits=ours)]
        for verdict, ours in ((HOLDS, 0.65), (IN_PART, 0.55), (FAILS, 0.4))
    },
    {
        HOLDS: trained("1", {"later": 0.79}, {"later": 0.4}),
        IN_PART: trained("1", {"later": 0.85}, {"later": 0.7}),
        FAILS: trained("1", {"later": 0.7}, {"later": 0.4}),
    },
    {
        verdict: [run("mann-1", curve=curves(later=tenth))]
        for verdict, tenth in ((HOLDS, 0.61), (EXCEEDED, 0.66), (FAILS, 0.5))
    },
    {
        verdict: [run("flmn-1", first, second)]
        for verdict, first, second in ((HOLDS, 0.3, 0.7), (FAILS, 0.23, 0.7), (FAILS, 0.3, 0.5))
    },
    {
        HOLDS: trained("2", {"first": 0.3, "later": 0.9}, {"first": 0.2, "later": 0.7}),
        IN_PART: trained("2", {"first": 0.1, "later": 0.9}, {"first": 0.2, "later": 0.7}),
        FAILS: trained("2", {"first": 0.1, "later": 0.6}, {"first": 0.2, "later": 0.7}),
    },
    {
        HOLDS: trained("1", *SOONER) + trained("2", *SOONER),
        IN_PART: trained("1", *SOONER) + trained("2", *LATER),
        FAILS: trained("1", *LATER) + trained("2", *LATER),
    },
]


@pytest.mark.parametrize(
    ("claim", "cases"), list(zip(CLAIMS, CASES, strict=True)), ids=lambda c: getattr(c, "text", "")
)
def test_each_verdict_is_reached_from_records_that_earn_it(book, claim, cases):
    assert verdicts((claim,), "the paper").rows[0].cells[0] == "not run"
    for verdict, records in cases.items():
        assert tuple((each.experiment, each.variant) for each in records) == claim.runs
        for each in records:
            ledger.save_record(each)
        row = verdicts((claim,), "the paper").rows[0]
        assert row.cells[0] == in_short(verdict, claim)
        assert any(character.isdigit() for character in row.cells[1])
        paths = [ledger.save_record(replace(each, profile="paper")) for each in records]
        assert verdicts((claim,), "the paper").rows[0].cells[0] == verdict
        for path in paths:
            path.unlink()


def test_claims_are_judged_from_runs_that_exist():
    for claim in CLAIMS + OF_THE_READING:
        for experiment, variant in claim.runs:
            EXPERIMENTS[experiment].check(variant, "paper")
    assert {experiment for claim in OF_THE_READING for experiment, _ in claim.runs} == {"flmn.readings"}


def test_every_figure_that_the_paper_makes_claims_of_has_a_verdict():
    quoted = {name for name, content in ledger.paper_numbers("flmn").items() if "claims" in content}
    assert quoted == {"figure3", "figure4", "figure5"}
    judged = {claim.figure.lower().replace(" ", "") for claim in CLAIMS}
    assert quoted <= judged


def test_what_mann_did_not_reach_in_fewer_updates_than_the_claim_has_is_no_proof(book):
    late = [claim for claim in CLAIMS if "20 000" in claim.text and claim.runs[0][1] == "mann-1"]
    assert len(late) == 2
    for claim, later, verdict in zip(late, (0.4, 0.6), (IN_PART, NOT_YET), strict=True):
        for variant, at in (("mann-1", later), ("flmn-1", 0.9)):
            ledger.save_record(run(variant, curve=((5_000, 0.2, at, 1.0), (10_000, 0.2, at, 1.0))))
        row = verdicts((claim,), "the paper").rows[0]
        assert row.cells[0] == verdict
        assert "10000" in row.cells[1]
