"""The fair comparison follows its rule: settings chosen by validation, networks compared on the test, seed by seed."""

from dataclasses import replace

import pytest

from lib import ledger
from lib.experiments import flmn_fair
from tests.experiments.test_flmn_claims import curves, run
from tests.experiments.test_mann_claims import by_instance, record


@pytest.fixture(autouse=True)
def book(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path))


def keep(setting, validated: float, test: float, seed: int = 0, batch_size: int = 16, **changes) -> None:
    curve = {"update": [1000], "validation_update": [1000], "validation_accuracy": [[0.2, validated]]}
    made = record(*setting, **by_instance(0.2, test))
    made = replace(made, config=made.config | {"training": {"updates": 1000, "batch_size": batch_size}})
    ledger.save_record(replace(made, curve=curve, seed=seed, **changes))


def keep_all(mann: float, flmn: float) -> None:
    """All settings with seed 0; Adam's are the best on validation, and no others on the test."""
    for network, test in (("MANN", mann), ("FLMN", flmn)):
        for experiment, variant in flmn_fair.settings_of(network):
            best = variant.endswith("adam")
            keep((experiment, variant), 0.7 if best else 0.6, test if best else 0.99)


def test_nothing_is_said_before_all_settings_were_run():
    assert "Not all settings" in flmn_fair.verdict()
    keep(flmn_fair.settings_of("MANN")[0], 0.6, 0.7)
    assert "Not all settings" in flmn_fair.verdict()
    assert "not both run" in flmn_fair.pace()


def test_both_networks_are_tried_in_three_settings():
    assert len(flmn_fair.settings_of("FLMN")) == len(flmn_fair.settings_of("MANN")) == 3


def test_the_validation_chooses_and_the_test_is_compared_seed_by_seed():
    keep_all(mann=0.7, flmn=0.8)
    assert flmn_fair.best_setting("FLMN") == ("flmn.fair", "flmn-adam")
    assert flmn_fair.best_setting("MANN") == ("flmn.fair", "mann-adam")
    assert "cannot be judged from one seed" in flmn_fair.verdict()
    for seed, (mann, flmn) in enumerate(((0.72, 0.81), (0.69, 0.8)), 1):
        keep(("flmn.fair", "mann-adam"), 0.1, mann, seed)
        keep(("flmn.fair", "flmn-adam"), 0.1, flmn, seed)
    keep(("flmn.fair", "flmn-adam"), 0.1, 0.1, seed=3)  # MANN has no such seed
    keep(("flmn.fair", "mann-adam"), 0.1, 0.1, seed=4, complete=False)
    keep(("flmn.fair", "flmn-adam"), 0.1, 0.1, seed=4)
    assert flmn_fair.advantage("short")[2] == pytest.approx([10.0, 9.0, 11.0])
    words = flmn_fair.verdict()
    assert "After 1 000 updates" in words
    assert "advantage survives:" in words
    assert "2nd +10.0 ± 2.5" in words  # 4.303 / sqrt(3)
    assert "n = 3 seeds" in words
    assert "«FLMN, Adam at 0.001» and «MANN, Adam at 0.001»" in words


@pytest.mark.parametrize(
    ("flmn", "answer"),
    [((0.70, 0.71), "does not survive"), ((0.60, 0.61), "does not survive"), ((0.8, 0.81), "survives")],
)
def test_the_advantage_survives_only_beyond_its_interval(flmn, answer):
    keep_all(mann=0.7, flmn=flmn[0])
    keep(("flmn.fair", "mann-adam"), 0.1, 0.71, seed=1)
    keep(("flmn.fair", "flmn-adam"), 0.1, flmn[1], seed=1)
    assert f"advantage {answer}:" in flmn_fair.verdict()


def test_what_was_chosen_in_short_runs_is_compared_after_long_ones_too():
    keep_all(mann=0.7, flmn=0.8)
    assert "not run yet at the paper's length" in flmn_fair.verdict()
    long = {"profile": "paper", "updates": 100_000}
    keep(("flmn.fair", "flmn-adam"), 0.1, 0.9, **long)
    keep(("flmn.fair", "mann-glorot"), 0.99, 0.5, **long)  # not the chosen setting
    assert "not run yet at the paper's length" in flmn_fair.verdict()
    keep(("flmn.fair", "mann-adam"), 0.1, 0.85, **long)
    words = flmn_fair.verdict()
    assert flmn_fair.advantage("paper")[2] == pytest.approx([5.0])
    assert "cannot be judged from one seed:** 2nd +5.0, " in words
    assert "After 100 000 updates" in words
    assert "(n = 1 seed)" in words


def test_an_advantage_at_some_instances_is_one_in_part():
    keep_all(mann=0.7, flmn=0.8)
    for seed in (0, 1):
        for variant, accuracy in (("mann-adam", (0.2, 0.7, 0.95)), ("flmn-adam", (0.2, 0.8, 0.95))):
            made = record("flmn.fair", variant, **by_instance(*accuracy))
            curve = {"update": [1], "validation_update": [1], "validation_accuracy": [[0.2, 0.9]]}
            ledger.save_record(replace(made, seed=seed, curve=curve))
    assert "survives in part" in flmn_fair.verdict()


def test_the_papers_own_comparison_is_made_at_each_length_that_both_were_run_at():
    assert "not both run" in flmn_fair.papers_comparison()
    for variant, right in (("mann-1", 0.6), ("flmn-1", 0.8)):
        keep(("flmn.table1", variant), 0.1, right, updates=10_000)
    words = flmn_fair.papers_comparison()
    assert "in the paper 2nd +18.9, 5th +14.7, 10th +16.0; after 10 000 updates of sixteen episodes 2nd +20.0" in words
    keep(("flmn.table1", "flmn-1"), 0.1, 0.9, profile="paper", updates=100_000)
    assert flmn_fair.papers_comparison() == words
    keep(("flmn.table1", "mann-1"), 0.1, 0.85, profile="paper", updates=100_000)
    long = "; after 100 000 updates of sixteen episodes 2nd +5.0, 5th +5.0, 10th +5.0."
    assert flmn_fair.papers_comparison().endswith(long)
    for variant, right in (("mann-1", 0.6), ("flmn-1", 0.9)):
        keep(("flmn.readings", variant), 0.1, right, profile="paper", updates=100_000, batch_size=1)
    assert "+16.0; after 100 000 updates of one episode 2nd +30.0, 5th" in flmn_fair.papers_comparison()
    assert flmn_fair.papers_comparison() in flmn_fair.in_short()


def test_all_is_said_in_short_before_anything_was_run():
    assert all(" not " in sentence for sentence in flmn_fair.in_short())


def test_what_four_heads_are_worth_is_told_from_short_runs():
    assert "not measured" in flmn_fair.worth_of_heads()
    for setting, right in (
        (("flmn.table1", "mann-1"), 0.6),
        (("flmn.ablations", "mann-four-heads"), 0.7),
        (("flmn.table1", "flmn-1"), 0.85),
    ):
        keep(setting, 0.1, right)
    assert "by 25.0 points on 2nd instances" in flmn_fair.worth_of_heads()
    assert "make up 10.0 of them" in flmn_fair.worth_of_heads()


def test_the_pace_is_read_from_the_curves():
    ledger.save_record(run("flmn-1", curve=curves(later=0.85)))
    ledger.save_record(run("mann-1", curve=curves(later=0.35)))
    words = flmn_fair.pace()
    assert "FLMN's 2nd instance is at 80% after 10 000 updates" in words
    assert "MANN's 2nd instance is at 40% not yet" in words
