"""FLMN's experiments: their configs are the paper's, a run is tested on digits too, and its tables show it."""

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch

from lib import ledger
from lib.data.mnist import make_digits
from lib.experiments import RunOptions, find_experiment, flmn, flmn_fair, flmn_tables, mini_mnist, omniglot
from lib.experiments.mini_mnist import MiniMNISTConfig
from lib.methods.controller import lstm_cell
from lib.methods.flmn import FLMN
from lib.tasks.episodes import EpisodeSampler
from lib.tasks.images import PlainBank
from tests.experiments.made_up import made_up_characters

PAPER = ledger.paper_numbers("flmn")


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project of its own, with made-up characters, the stand-in for MNIST, and a shorter smoke profile."""
    root, characters, in_profile = tmp_path / "project", made_up_characters(), omniglot.in_profile
    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(root / "data" / "results"))
    monkeypatch.setattr(ledger, "paper_numbers", lambda _: PAPER)
    monkeypatch.setattr(omniglot, "load_characters", lambda *_, **__: characters)
    monkeypatch.setattr(mini_mnist, "load_mnist", make_digits)

    def small(paper, profile):
        found = in_profile(paper, profile)
        shorter = replace(found.training, updates=4, log_every=2, checkpoint_every=2, validate_every=4, batch_size=2)
        return replace(found, training=shorter, test_batches=1)

    monkeypatch.setattr(omniglot, "in_profile", small)
    return root


def parameters(config: omniglot.OmniglotConfig) -> int:
    return sum(parameter.numel() for parameter in omniglot.build_learner(config, 0).parameters())


def test_the_settings_are_the_papers():
    for variant in flmn.TABLE1:
        config = omniglot.in_profile(flmn.TABLE1[variant], "paper")
        assert config.training.updates == 100_000
        assert config.training_classes == 1209
        assert (config.episodes.classes, config.episodes.length, config.episodes.balanced) == (5, 50, True)
        assert config.episodes.jitter == variant.endswith("-2")
        assert not config.episodes.quarter_turns
        assert config.mini_mnist.images == 20
    mann, ours = flmn.TABLE1["mann-1"].learner, flmn.TABLE1["flmn-1"].learner
    assert mann.reads == 1
    assert mann.slots * mann.width == 2 * ours.slots * ours.width


def test_profiles_differ_in_size_and_not_in_what_is_learnt():
    smoke, short, paper = (
        omniglot.in_profile(flmn.TABLE1["flmn-2"], profile) for profile in ("smoke", "short", "paper")
    )
    assert smoke.learner == short.learner == paper.learner
    assert smoke.episodes == short.episodes == paper.episodes
    assert (smoke.training.updates, short.training.updates, paper.training.updates) == (20, 10_000, 100_000)
    assert smoke.mini_mnist.draws < short.mini_mnist.draws == paper.mini_mnist.draws == 20


def test_the_fair_comparison_is_of_equal_memory_and_equal_parameters():
    ours = flmn.TABLE1["flmn-1"]
    for variant in ("mann", "mann-adam", "mann-glorot"):
        learner = flmn.FAIR[variant].learner
        assert parameters(flmn.FAIR[variant]) == pytest.approx(parameters(ours), rel=0.001)
        assert learner.slots * learner.width == 2 * ours.learner.slots * ours.learner.width
        assert learner.reads == 4
    assert parameters(flmn.TABLE1["mann-1"]) == pytest.approx(parameters(ours), rel=0.02)


def changed(config: omniglot.OmniglotConfig, base: omniglot.OmniglotConfig) -> set[str]:
    names = [field.name for field in dataclasses.fields(config)]
    return {name for name in names if getattr(config, name) != getattr(base, name)}


def test_the_settings_run_at_the_papers_length_are_those_that_the_validation_chose():
    chosen = [flmn_fair.best_setting(network) for network in ("FLMN", "MANN")]
    assert chosen == [("flmn.fair", variant) for variant in flmn.CHOSEN]


def test_an_ablation_changes_one_thing_and_both_networks_are_tuned_alike():
    for variant, config in flmn.ABLATIONS.items():
        found = changed(config, flmn.TABLE1["mann-1" if variant.startswith("mann") else "flmn-1"])
        assert len(found) == 1, variant
        assert found <= {"learner", "training", "initial_weights", "episodes", "split"}, variant
    bases = {"mann": flmn.FAIR["mann"], "flmn": flmn.TABLE1["flmn-1"]}
    tried = {"mann": {}, "flmn": {}}
    for variant, config in flmn.FAIR.items():
        name, _, setting = variant.partition("-")
        if setting:
            (what,) = changed(config, bases[name])
            tried[name][setting] = getattr(config, what)
    assert tried["mann"] == tried["flmn"]
    assert set(tried["mann"]) == {"adam", "glorot"}


def test_the_other_reading_differs_in_the_minibatch_and_in_nothing_else():
    assert flmn.READINGS.keys() == flmn.TABLE1.keys()
    for variant, config in flmn.READINGS.items():
        assert changed(config, flmn.TABLE1[variant]) == {"training"}
        assert config.training == replace(flmn.TABLE1[variant].training, batch_size=1)
        assert omniglot.in_profile(config, "paper").training.updates == 100_000


def test_every_variant_has_its_name_in_the_tables():
    assert flmn.ABLATIONS.keys() == flmn_tables.ABLATION_LABELS.keys()
    assert flmn_tables.FAIR_LABELS.keys() == {("flmn.table1", "flmn-1"), *(("flmn.fair", each) for each in flmn.FAIR)}


def test_glorots_weights_are_as_large_as_they_must_be_and_open_the_forget_gate():
    learner = omniglot.build_learner(flmn.FAIR["flmn-glorot"], 0)
    again = omniglot.build_learner(flmn.FAIR["flmn-glorot"], 0)
    for layer in (learner.from_input, learner.from_state, learner.to_vectors, learner.to_logits):
        outputs, inputs = layer.weight.shape
        bound = (6 / (inputs + outputs)) ** 0.5
        assert 0.98 * bound < layer.weight.abs().max() <= bound
    assert (learner.from_input.bias[: learner.config.hidden] == 1).all()
    assert (learner.from_input.bias[learner.config.hidden :] == 0).all()
    assert (learner.to_vectors.bias == 0).all()
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), again.parameters(), strict=True))
    zeros = torch.zeros(1, learner.config.hidden)
    gates = learner.from_input.bias.clone().unsqueeze(0)
    _, cell = lstm_cell(gates, zeros + 1)
    torch.testing.assert_close(cell, torch.sigmoid(zeros + 1))  # what is open is the gate that keeps the cell


def test_a_run_is_tested_on_digits_too_and_shown(book):
    table = find_experiment("flmn.table1")
    record = table.run("flmn-1", "smoke", 0, RunOptions(device="cpu", progress=False, runs=book / "runs"))
    digits = record.metrics["mini_mnist"]
    assert len(digits["by_draw"]) == 2
    assert digits["by_draw"][0] != digits["by_draw"][1]
    assert digits["accuracy"] == pytest.approx(np.mean(digits["by_draw"], axis=0))
    assert digits["data"]["is_standin"]
    assert record.config["training_classes"] == 1209
    assert "short_updates" not in record.config

    ledger.save_record(replace(record, profile="short"))
    (row,) = [row for row in flmn_tables.table2().rows if row.source == "ours, short profile"]
    assert row.cells == tuple(f"{100 * digits['accuracy'][k - 1]:.1f}" for k in (1, 2, 10))
    assert "over 2 draws of the images" in row.note
    assert "STAND-IN DIGITS: digit glyphs" in row.note
    shown = {row.label: row for row in flmn_tables.table1().rows if row.source != "paper"}
    assert shown["FLMN, experiment I"].cells[1] == f"{100 * record.metrics['accuracy'][1]:.1f}"
    assert shown["MANN, one read, experiment I"].note == "not run"


@pytest.mark.parametrize("name", ["table1", "table2", "figure3", "figure4", "figure5", "readings", "ablations", "fair"])
def test_every_table_is_whole_before_anything_was_run(book, name):
    table = find_experiment(f"flmn.{name}").table()
    assert table.rows
    assert all(len(row.cells) in (0, len(table.columns)) for row in table.rows)


def test_differences_from_the_paper_are_means_over_whole_runs(book):
    record = find_experiment("flmn.readings").run(
        "mann-1", "smoke", 0, RunOptions(device="cpu", progress=False, runs=book / "runs")
    )
    assert {row.note for row in flmn_tables.differences().rows} == {"not run"}
    made = replace(record, profile="paper", data={**record.data, "is_standin": False})
    for seed, right, complete in ((0, 0.6, True), (1, 0.7, True), (2, 0.1, False)):
        ledger.save_record(replace(made, seed=seed, complete=complete, metrics={"accuracy": [0.2, *[right] * 9]}))
    (row,) = [row for row in flmn_tables.differences().rows if row.cells]
    assert row.label == "MANN, one read, experiment I, one episode an update"
    assert row.cells == ("-1.6", "-1.7", "-9.0", "-11.0", "-11.3", "-13.1")  # 20 and 65 less 21.6, 66.7, 74.0, ...
    assert row.note.startswith("n = 2")


def test_figures_are_drawn_from_the_runs_of_table_1():
    for name in ("table2", "figure3", "figure4", "figure5"):
        experiment = find_experiment(f"flmn.{name}")
        for variant, (source, drawn) in experiment.drawn_from.items():
            assert source == "flmn.table1"
            assert experiment.config(variant, "short") == find_experiment(source).config(drawn, "short")


def test_the_loss_is_shown_at_the_updates_of_the_curve(book):
    record = find_experiment("flmn.table1").run(
        "flmn-1", "smoke", 0, RunOptions(device="cpu", progress=False, runs=book / "runs")
    )
    curve = record.curve | {"update": [1_000, 2_500], "loss": [1.5, 0.25]}
    ledger.save_record(replace(record, profile="short", curve=curve))
    (row,) = [row for row in flmn_tables.figure5().rows if row.label == "I: FLMN"]
    assert row.cells[:3] == ("1.500", "0.250", "–")


def test_a_draw_takes_so_many_images_of_each_digit_and_none_twice():
    digits = make_digits("test")
    bank = mini_mnist.draw(digits, 20, seed=3)
    assert (bank.classes, bank.drawings) == (10, 20)
    assert torch.equal(bank.pixels, mini_mnist.draw(digits, 20, seed=3).pixels)
    assert not torch.equal(bank.pixels, mini_mnist.draw(digits, 20, seed=4).pixels)
    everything = PlainBank(digits.images[None])
    for digit in range(10):
        own = everything.pixels[torch.from_numpy(digits.labels == digit)]
        for image in bank.pixels.view(10, 20, -1)[digit]:
            assert (own - image).abs().amax(1).min() == 0


def test_the_episodes_of_digits_are_plain_ones_of_five_classes(monkeypatch):
    seen = []

    def evaluated(learner, task, sampler, batches, progress):
        seen.append(sampler)
        return {"accuracy": [1.0, None]}

    monkeypatch.setattr(mini_mnist, "load_mnist", make_digits)
    monkeypatch.setattr(mini_mnist, "evaluate", evaluated)
    setting = flmn.TABLE1["flmn-2"]
    task = omniglot.build_task(setting, made_up_characters(), 0, torch.device("cpu"))
    config = MiniMNISTConfig(draws=3, batches=1)
    found = mini_mnist.scores(config, setting.episodes, task, FLMN(flmn.FLMNConfig()))
    assert found["by_draw"] == [[1.0, None]] * 3
    assert found["accuracy"] == [1.0, None]
    assert all(isinstance(sampler, EpisodeSampler) for sampler in seen)
    batch = seen[0].batch(0, 4)
    assert all(len(row.unique()) == 5 for row in batch.ys)
    assert batch.xs.shape == (4, 50, 400)


def test_when_the_papers_numbers_were_passed_is_read_from_the_curve(book):
    record = find_experiment("flmn.table1").run(
        "flmn-1", "smoke", 0, RunOptions(device="cpu", progress=False, runs=book / "runs")
    )
    later = [[0.2, 0.5, *[0.5] * 8], [0.4, 0.9, *[0.9] * 8]]
    held_out = {"validation_update": [4_000], "validation_accuracy": [[0.4, 0.86, *[0.87] * 8]]}
    curve = record.curve | {"update": [2_000, 4_000], "accuracy": later} | held_out
    ledger.save_record(replace(record, profile="short", curve=curve, updates=4_000, seconds=240.0))
    rows = {(row.label, row.source.split(", ")[-1]): row for row in flmn_tables.passed().rows}
    at = "4\u00a0000, 4\u00a0min"
    # The paper's: 85.6, 88.7, 89.5, 91.0 and 94.1.
    assert rows["FLMN, experiment I", "in training"].cells == (at, at, at, "not yet", "not yet")
    assert rows["FLMN, experiment I", "held out"].cells == (at, "not yet", "not yet", "not yet", "not yet")
    assert rows["FLMN, experiment II", "ours"].note == "not run"
    ledger.save_record(replace(record, profile="paper", curve=curve, updates=4_000, seconds=240.0))
    whole = flmn_tables.passed().rows[0]
    assert "paper profile" in whole.source
    assert whole.cells == (at, at, at, "never", "never")
