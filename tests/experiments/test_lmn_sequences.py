"""Table 2 of LMN: a run of each row at the smoke profile, tuning, going on after a cut, the table and its claims."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest

from lib import ledger, report
from lib.baselines.sequence import TokenNetworkConfig
from lib.data.sequences import NAMES, Part, Sequences
from lib.experiments import PROFILES, RunOptions, claims
from lib.experiments import lmn_sequence_tables as tables
from lib.experiments import lmn_sequences as table2
from lib.experiments.lmn_sequence_configs import BASE, METHODS, READINGS, TABLE2, TRIALS
from lib.training.checkpoint import CheckpointError


def part(seed: int, people: int) -> Part:
    """Each goes round between three places of their own."""
    random = np.random.default_rng(seed)
    own = [random.choice(30, 3, replace=False) for _ in range(people)]
    sequences = [places[random.integers(0, 3, 20)] for places in own]
    return Part(np.concatenate(sequences).astype(np.int32), np.full(people, 20, np.int32))


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A ledger and checkpoints of its own, and small data that says of itself that it is the real one."""
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path / "results"))
    monkeypatch.setattr(ledger, "ROOT", tmp_path)
    small = Sequences("fsq-nyc", part(0, 12), part(1, 5), part(2, 6), 30, "d" * 64, False, "made up", "It is made up.")
    monkeypatch.setattr(table2, "load_sequences", lambda name: small)
    return tmp_path


def run(book, method: str, seed: int = 0, **options) -> ledger.Record:
    settings = {"device": "cpu", "progress": False, "runs": book / "runs"} | options
    return table2.run("lmn.table2", f"fsq-nyc-{method}", "smoke", seed, RunOptions(**settings))


@pytest.mark.parametrize("method", METHODS)
def test_a_run_of_each_row(book, method):
    record = run(book, method, keep_checkpoint=True)
    found = record.metrics
    assert record.complete and 0 < found["mrr"] <= 1 and found["tokens"] == 6 * 19
    assert 0 < found["log_perplexity"] < 2 * np.log(30)
    assert len(found["tuning"]) == TRIALS
    best = min(found["tuning"], key=lambda each: each["validation_log_perplexity"])
    assert found["setting"] == best["setting"]
    assert ledger.find_record("lmn.table2", record.variant, "smoke", 0) == record
    assert record.config == json.loads(json.dumps(table2.EXPERIMENTS[0].config(record.variant, "smoke")))
    ok, message = table2.verify(record, "cpu")
    assert ok, message


@pytest.mark.parametrize("reading", READINGS)
def test_a_run_of_each_reading(book, reading):
    options = RunOptions(device="cpu", progress=False, runs=book / "runs")
    record = table2.run("lmn.readings", reading, "smoke", 0, options)
    assert record.complete and record.config == json.loads(json.dumps(table2.EXPERIMENTS[1].config(reading, "smoke")))
    shown = {row.label: row for row in tables.readings().rows}[tables.READING_LABELS[reading]]
    assert shown.note == report.NOT_RUN  # a smoke run is no result


def test_the_states_of_the_tests_change_these_alone(book):
    options = RunOptions(device="cpu", progress=False, runs=book / "runs", keep_checkpoint=True)
    held, every = (
        table2.run("lmn.readings", reading, "smoke", 0, options) for reading in ("combiner", "combiner-all-states")
    )
    row = run(book, "lmn")
    assert row.metrics == held.metrics and row.updates == held.updates == every.updates
    assert held.metrics["validation_log_perplexity"] == every.metrics["validation_log_perplexity"]
    difference = abs(held.metrics["log_perplexity"] - every.metrics["log_perplexity"])
    assert 0 < difference < 0.1
    assert table2.restored(every).config.states == "all"
    assert table2.verify(every, "cpu")[0] and "test_states" not in held.config


def test_memory_is_of_use_to_who_goes_round_between_few_places(book):
    network, lmn = run(book, "network").metrics, run(book, "lmn").metrics
    assert lmn["log_perplexity"] < network["log_perplexity"] - 0.3 and lmn["mrr"] > network["mrr"]


def test_lmn_and_its_network_share_one_training(book):
    run(book, "network")
    folder = book / "runs" / "lmn.table2" / "fsq-nyc-smoke"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("best.safetensors")}
    run(book, "lmn-fixed")
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("best.safetensors")}


@pytest.mark.parametrize("validations", [1, 2, 7, 8])
def test_a_cut_run_goes_on_and_ends_the_same(book, tmp_path, monkeypatch, validations):
    whole = run(book, "lstm", runs=tmp_path / "other")
    stopped = run(book, "lstm", minutes=0.0)
    assert not stopped.complete and not stopped.metrics
    train, left = table2.train, validations

    def killed(*arguments, on_log, **settings):
        def once_more(line):
            nonlocal left
            on_log(line)
            left -= 1
            if not left:  # after the best weights are saved, before the checkpoint is
                raise KeyboardInterrupt

        return train(*arguments, on_log=once_more, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(table2, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            run(book, "lstm")
    record = run(book, "lstm")
    assert record.metrics == whole.metrics


def test_the_weights_of_the_best_validation_are_tested_not_the_last(book, monkeypatch):
    validations = iter([3.0, 1.0, 2.0, 4.0] * 20)
    kept = []

    def fake_train(learner, task, config, *, on_log, folder, **_):
        for update in (2, 4):
            with_update = {"update": update, "validation": {"log_perplexity": next(validations)}}
            learner.to_logits.bias.data.fill_(update)
            on_log(with_update)
        kept.append(learner)
        return table2.TrainingResult(4, True, 0.0, [])

    monkeypatch.setattr(table2, "train", fake_train)
    config = table2.with_labels(table2.in_profile(TABLE2["fsq-nyc-lstm"], "smoke"), 30)
    sequences = table2.load_sequences("fsq-nyc")
    options = RunOptions(device="cpu", progress=False, runs=book / "runs")
    place = table2.Workplace({}, sequences, options, table2.torch.device("cpu"), book / "work", time.monotonic() + 60)
    for name, expected_update, expected_score in (("a", 4, 1.0), ("b", 2, 2.0)):
        learner = table2.build(config, 0, place)
        _, score = table2.fit(learner, config, 0, place, name)
        assert score == expected_score and learner.to_logits.bias[0].item() == expected_update


def test_a_stand_in_does_not_replace_the_real_data(book, monkeypatch):
    run(book, "lmn-fixed")
    real = table2.load_sequences("fsq-nyc")
    monkeypatch.setattr(table2, "load_sequences", lambda name: replace(real, is_standin=True))
    with pytest.raises(ledger.LedgerError, match="is not replaced by a run on the stand-in"):
        run(book, "lmn-fixed")


def test_a_changed_checkpoint_and_other_data_are_noticed(book, monkeypatch):
    record = run(book, "network", keep_checkpoint=True)
    path = book / record.checkpoint["file"]
    other = run(book, "network", seed=1, keep_checkpoint=True)
    path.write_bytes((book / other.checkpoint["file"]).read_bytes())
    assert table2.verify(record, "cpu")[0] is False
    with pytest.raises(CheckpointError, match="sha256"):
        table2.restored(record)
    real = table2.load_sequences("fsq-nyc")
    monkeypatch.setattr(table2, "load_sequences", lambda name: replace(real, digest="e" * 64))
    assert table2.verify(record, "cpu")[0] is None


def test_methods_have_the_paper_s_sizes_and_equal_budgets():
    assert {f"{data}-{method}" for data in NAMES for method in METHODS} == TABLE2.keys()
    for config in TABLE2.values():
        assert len(config.settings) == TRIALS and config.training == BASE
        if isinstance(config.learner, TokenNetworkConfig) and config.learner.cell == "lstm":
            recurrent = 4 * config.learner.hidden * (config.learner.hidden + config.learner.embedding)
            assert recurrent == pytest.approx(5 * 3 * 50 * 100, rel=0.05)
    with pytest.raises(ValueError, match="every method tries 6 settings, not 1"):
        replace(TABLE2["fsq-nyc-lmn"], settings=({},))
    for profile in PROFILES:
        assert table2.in_profile(TABLE2["fsq-nyc-lmn"], profile).learner == TABLE2["fsq-nyc-lmn"].learner


def record_of(method: str, log_perplexity: float, seed: int, data: str = "fsq-nyc") -> ledger.Record:
    metrics = {"log_perplexity": log_perplexity, "mrr": 0.2, "labels": 30, "setting": {"rate": 0.3, "dropout": 0.5}}
    metrics["tuning"] = [
        {"setting": {"rate": rate, "dropout": drop}} for rate in (0.1, 0.2, 0.3) for drop in (0.2, 0.5)
    ]
    machine = {"name": "here", "device": "cpu"}
    data_of = {"name": data, "sha256": "", "is_standin": False}
    return ledger.Record(
        "lmn.table2", f"{data}-{method}", "paper", seed, {}, metrics, 9, True, 1.0, machine, None, data_of
    )


def test_table_and_verdicts(book, monkeypatch):
    monkeypatch.setattr(
        ledger,
        "paper_numbers",
        lambda _: {"table1": {"rows": {"fsq-nyc": [670, 264, 90, 8325]}}, "table2": json.loads(PAPER)},
    )
    for seed in range(3):
        ledger.save_record(record_of("lmn", 5.0 + 0.1 * seed, seed))
        ledger.save_record(record_of("lstm", 8.0 - 0.1 * seed, seed))
        ledger.save_record(record_of("lmn-fixed", 5.0 + 0.1 * seed + (0.2, -0.1, 0.0)[seed], seed))
    rows = {(row.label, row.source): row for row in tables.table2().rows}
    assert rows["Foursquare, New York", "LSTM"].cells == ("8.95", "0.03", "7.90 ± 0.25", "0.20")
    assert rows["Foursquare, New York", "LMN"].cells == ("5.54", "0.27", "5.10 ± 0.25", "0.20")
    assert rows["Foursquare, New York", "LMN"].note.startswith("paper profile, n = 3")
    assert rows["Foursquare, New York", "LMN"].note.endswith("at the edge of what was tried: rate of adaptation 0.3")
    assert rows["Foursquare, New York", "an even guess"].cells == (f"{np.log(8325):.2f}", "–", f"{np.log(30):.2f}", "–")
    assert rows["Foursquare, New York", "Rei"].cells[2:] == ("–", "–")
    assert rows["Foursquare, New York", "Rei"].note == report.NOT_RUN
    assert rows["Geolife", "LMN-fixed"].cells == ("1.05", "0.83", "–", "–")
    assert rows["Geolife", "MAML"].cells == ("–",) * 4 and rows["Geolife", "MAML"].note == report.NOT_RUN
    verdicts = {
        row.label: dict(zip(tables.verdicts().columns, row.cells, strict=True)) for row in tables.verdicts().rows
    }
    beats = verdicts["LMN beats an LSTM with five times the recurrent parameters"]
    assert beats["Foursquare, New York"] == f"{claims.HOLDS}: -2.80 ± 0.50, n = 3"
    unclear = verdicts["Weights that the combiner sets beat constant ones"]["Foursquare, New York"]
    assert unclear.startswith(f"{claims.FAILS}: -0.03 ±")
    assert verdicts["LMN-fixed beats D-NTM"]["Geolife"] == report.NOT_RUN


PAPER = """{"columns": ["lstm", "rei", "maml", "dntm", "lmn-fixed", "lmn"], "rows": {
"fsq-nyc": [[8.95, 0.03], [8.72, 0.07], [6.55, 0.16], [9.01, 0.05], [6.13, 0.25], [5.54, 0.27]],
"geolife": [[1.13, 0.84], [1.08, 0.83], null, [1.11, 0.82], [1.05, 0.83], [1.08, 0.83]]}}"""


def test_an_edge_is_the_end_of_a_range_of_three_values_or_more():
    tried = [{"setting": {"theta": theta, "margin": margin}} for theta in (0.1, 0.5, 0.9) for margin in (1.0, 4.0)]

    def edges(theta: float, margin: float) -> dict:
        return tables.edges({"setting": {"theta": theta, "margin": margin}, "tuning": tried})

    assert edges(0.5, 4.0) == {}  # of two values each is an end
    assert edges(0.1, 1.0) == {"theta": 0.1} and edges(0.9, 1.0) == {"theta": 0.9}
