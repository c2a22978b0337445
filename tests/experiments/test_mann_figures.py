"""Table 2, figures 3 and 4 and the ablations: that each runs from end to end, and what is particular to it."""

from dataclasses import replace

import pytest
import torch

from lib import ledger
from lib.experiments import find_experiment, mann, mann_neighbours, mann_tables, omniglot, runs
from lib.tasks.labels import Strings
from lib.training.checkpoint import load_extra
from tests.experiments.made_up import made_up_characters
from tests.experiments.test_mann_experiments import options

PAPER = ledger.paper_numbers("mann")
BRIEF = {"updates": 4, "batch_size": 2, "log_every": 2, "validate_every": 4, "validation_batches": 1}


@pytest.fixture(scope="module")
def characters():
    """Enough for fifteen classes in training, validation and test."""
    return made_up_characters(classes=84)


@pytest.fixture
def book(tmp_path, monkeypatch, characters):
    """A project of its own, made-up characters as data, and a smoke profile that is shorter still."""
    root = tmp_path / "project"
    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setattr(ledger, "paper_numbers", lambda _: PAPER)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(root / "data" / "results"))
    for module in (omniglot, mann_neighbours):
        monkeypatch.setattr(module, "load_characters", lambda: characters)
        in_profile = module.in_profile

        def brief(paper, profile, in_profile=in_profile):
            found = in_profile(paper, profile)
            return replace(found, training=replace(found.training, checkpoint_every=2, **BRIEF), test_batches=1)

        monkeypatch.setattr(module, "in_profile", brief)
    return root


@pytest.mark.parametrize(
    "variant", ["knn-raw-5", "knn-deep-15", "feedforward-5", "lstm-15", "mann-feedforward-5", "ntm-15"]
)
def test_rows_of_table_2_run_and_are_recorded(book, variant):
    record = find_experiment("mann.table2").run(variant, "smoke", 0, options(book))
    assert record == ledger.find_record("mann.table2", variant, "smoke", 0)
    classes = int(variant.split("-")[-1])
    assert record.config["episodes"]["classes"] == classes
    assert record.config["episodes"]["length"] == {5: 50, 15: 100}[classes]
    assert record.config["episodes"]["strings"]
    assert record.metrics["counts"][0] <= 16 * classes
    if not variant.startswith("knn"):
        assert record.config["learner"]["labels"] == "strings"
        assert record.metrics["accuracy"][0] < 0.05  # chance is one in 3125


def test_a_kept_autoencoder_is_verified(book):
    experiment = find_experiment("mann.table2")
    record = experiment.run("knn-deep-5", "smoke", 0, options(book, keep_checkpoint=True))
    ok, message = experiment.verify(record, "cpu")
    assert ok, message
    ok, message = experiment.verify(replace(record, metrics={"accuracy": [0.9] * 10}), "cpu")
    assert not ok


def test_one_autoencoder_is_trained_for_both_numbers_of_classes(book):
    experiment = find_experiment("mann.table2")
    five = experiment.run("knn-deep-5", "smoke", 0, options(book, keep_checkpoint=True))
    (folder,) = (book / "runs" / "mann.table2").iterdir()
    trained = (folder / "checkpoint.safetensors").read_bytes()
    fifteen = experiment.run("knn-deep-15", "smoke", 0, options(book, keep_checkpoint=True))
    assert [folder] == list((book / "runs" / "mann.table2").iterdir())
    assert trained == (folder / "checkpoint.safetensors").read_bytes()
    assert (fifteen.updates, fifteen.curve) == (five.updates, five.curve)
    assert fifteen.metrics["accuracy"] != five.metrics["accuracy"]
    assert fifteen.checkpoint["file"] != five.checkpoint["file"]
    for record in (five, fifteen):
        ok, message = experiment.verify(record, "cpu")
        assert ok, message


def test_the_autoencoder_sees_three_times_what_mann_does():
    deep, learnt = mann.NEIGHBOURS["knn-deep-5"], mann.TABLE2["mann-5"]
    assert deep.training.updates * deep.training.batch_size == 3 * learnt.training.updates * learnt.training.batch_size


def test_all_rows_of_table_2_are_tested_on_the_same_episodes(characters):
    config = omniglot.in_profile(mann.TABLE2["lstm-15"], "smoke")
    task = omniglot.build_task(config, characters, 3, torch.device("cpu"))
    assert task.labels == Strings()
    other = omniglot.in_profile(mann.TABLE2["mann-15"], "smoke")
    again = omniglot.build_task(other, characters, 4, torch.device("cpu")).test.batch(0, 2)
    assert all(torch.equal(a, b) for a, b in zip(task.test.batch(0, 2), again, strict=True))


def test_figure_3_carries_the_memory_over_in_training_and_in_the_test(book, monkeypatch):
    begun, episode = [], omniglot.MANN.episode

    def watched(self, xs, ys, state=None, unroll=None):
        begun.append(None if state is None else float(state.memory.abs().sum()))
        return episode(self, xs, ys, state, unroll)

    monkeypatch.setattr(omniglot.MANN, "episode", watched)
    record = find_experiment("mann.figure3").run("ten", "smoke", 0, options(book))
    assert record.config["training"]["wipe_memory"] is False
    assert begun[0] is None  # the first minibatch of the training begins empty, all later ones do not
    assert all(amount for amount in begun[1:4])
    assert begun[4] is None  # validation and test begin empty, too
    kept = load_extra(book / "runs" / record.name / "checkpoint.safetensors")
    assert kept["memory"].shape == (2, 128, 40)
    assert kept["memory"].abs().sum() > 0


def test_figure_4_grows_in_training_and_is_tested_with_more_classes(book):
    record = find_experiment("mann.figure4").run("mann", "smoke", 0, options(book))
    curriculum = record.config["curriculum"]
    assert record.metrics["by_classes"].keys() == {str(classes) for classes in curriculum["tests"]}
    for classes, score in record.metrics["by_classes"].items():
        assert score["counts"][0] <= 16 * int(classes)
    ledger.save_record(replace(record, profile="short"))
    table = mann_tables.figure4()
    assert table.columns == tuple(f"{classes} classes" for classes in curriculum["tests"])
    last = curriculum["first"] + 3 // curriculum["every"]
    assert f"trained up to {last} classes" in table.rows[0].label


def test_ablations_change_one_thing_each():
    base = mann.TABLE1["mann"]
    assert mann.ABLATIONS["one-read"] == replace(base, learner=replace(base.learner, reads=1))
    assert mann.ABLATIONS["fixed-gate"] == replace(base, learner=replace(base.learner, gate="fixed"))
    ntm = mann.ABLATIONS["ntm"]
    assert replace(ntm, learner=base.learner) == base
    shared = {"features", "classes", "hidden", "slots", "width", "reads"}
    assert all(getattr(ntm.learner, name) == getattr(base.learner, name) for name in shared)
    assert mann.ABLATIONS.keys() == mann_tables.ABLATION_LABELS.keys()


def test_a_gate_that_is_not_learnt_stays_half_open(book):
    record = find_experiment("mann.ablations").run("fixed-gate", "smoke", 0, options(book, keep_checkpoint=True))
    learner = runs.load_weights(record, omniglot.build_learner(mann.ABLATIONS["fixed-gate"], 0))
    assert learner.alpha.tolist() == [0.0] * 4
    assert not learner.alpha.requires_grad


def test_table_2_puts_our_rows_below_the_papers(book):
    record = find_experiment("mann.table2").run("knn-raw-15", "smoke", 0, options(book))
    ledger.save_record(replace(record, profile="paper"))
    rows = mann_tables.table2().rows
    at = [i for i, row in enumerate(rows) if row.source == "ours, paper profile"]
    assert len(at) == 1
    assert rows[at[0] - 1].source == "paper"
    assert rows[at[0] - 1].cells == ("0.5", "18.7", "23.3", "26.5", "29.1", "37.0")
    assert rows[at[0]].label == rows[at[0] - 1].label
    assert len([row for row in rows if row.source == "paper"]) == len(PAPER["table2"]["rows"]) == 13
