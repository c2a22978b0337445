"""The experiments of table 1 and figure 2: their configs, their runs at the smoke profile, and what they keep."""

import dataclasses
import json
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from lib import ledger
from lib.config import to_dict
from lib.data.store import Characters
from lib.experiments import EXPERIMENTS, PROFILES, RunOptions, find_experiment, mann, mann_tables, omniglot, runs
from lib.ledger import LedgerError
from lib.training.checkpoint import CheckpointError, load_checkpoint, read_details, save_checkpoint
from lib.training.loop import pick_unroll, train
from tests.experiments.made_up import made_up_characters

ALL = [(name, v, p) for name, e in EXPERIMENTS.items() for v in e.variants for p in e.profiles]


@pytest.fixture(scope="module")
def characters() -> Characters:
    return made_up_characters()


@pytest.fixture
def book(tmp_path, monkeypatch, characters):
    """A project of its own: records, runs and kept checkpoints under tmp_path, made-up characters as data."""
    root = tmp_path / "project"
    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(root / "data" / "results"))
    monkeypatch.setattr(omniglot, "load_characters", lambda *_, **__: characters)
    return root


def options(root, **changes) -> RunOptions:
    return RunOptions(**({"device": "cpu", "progress": False, "runs": root / "runs"} | changes))


def smaller(monkeypatch, **training) -> None:
    """Make the smoke profile shorter still."""
    in_profile = omniglot.in_profile
    training = {"batch_size": 2, "updates": 4, "log_every": 2, "checkpoint_every": 2, "validate_every": 4} | training

    def small(paper, profile):
        found = in_profile(paper, profile)
        return replace(found, training=replace(found.training, **training), test_batches=1)

    monkeypatch.setattr(omniglot, "in_profile", small)


def config(variant: str, profile: str) -> omniglot.OmniglotConfig:
    """Of a row of table 1 or of another reading."""
    return omniglot.in_profile((mann.TABLE1 | mann.READINGS)[variant], profile)


def run(*arguments) -> ledger.Record:
    """A run of table 1."""
    return find_experiment("mann.table1").run(*arguments)


def verify(record: ledger.Record, device: str) -> tuple[bool | None, str]:
    return find_experiment(record.experiment).verify(record, device)


def load_trained(record: ledger.Record):
    return omniglot.load_trained(mann.TABLE1[record.variant], record)


def test_every_experiment_has_the_three_profiles_and_says_what_they_cost():
    assert {"mann.table1", "mann.figure2"} <= EXPERIMENTS.keys()
    for name, experiment in EXPERIMENTS.items():
        assert experiment.name == name
        assert experiment.profiles == PROFILES == ("smoke", "short", "paper")
        assert experiment.costs.keys() == set(PROFILES)
        assert experiment.title
        assert experiment.variants
        assert all(variant in experiment.variants and seed >= 0 for variant, seed in experiment.wanted)
    assert EXPERIMENTS["mann.table1"].variants == ("feedforward", "lstm", "mann")
    assert EXPERIMENTS["mann.figure2"].variants == ("lstm", "mann", "lstm-15", "mann-15")


@pytest.mark.parametrize(("name", "variant", "profile"), ALL)
def test_a_config_is_json(name, variant, profile):
    config = EXPERIMENTS[name].config(variant, profile)
    assert json.loads(json.dumps(config)) == config


def test_committed_records_are_of_the_configs_that_the_code_has():
    for record in ledger.load_records():
        config = EXPERIMENTS[record.experiment].config(record.variant, record.profile)
        assert record.config == json.loads(json.dumps(config)), f"{record.name} is of another config: run it again"


def test_the_paper_profile_is_the_papers():
    for variant in ("feedforward", "lstm", "mann"):
        settings = config(variant, "paper")
        assert settings.training.updates == 100_000
        assert settings.training.batch_size == 16
        assert settings.training.learning_rate == 1e-4
        assert (settings.training.decay, settings.training.momentum) == (0.95, 0.9)
        assert (settings.episodes.classes, settings.episodes.length) == (5, 50)
        assert settings.learner.features == 400
        assert settings.learner.hidden == 200
    learner = config("mann", "paper").learner
    assert (learner.slots, learner.width, learner.reads, learner.usage_decay) == (128, 40, 4, 0.99)
    assert learner.controller == "lstm"


def test_profiles_differ_in_size_and_not_in_what_is_learnt():
    for variant in ("feedforward", "lstm", "mann"):
        smoke, short, paper = (config(variant, profile) for profile in PROFILES)
        assert smoke.learner == short.learner == paper.learner
        assert smoke.episodes == short.episodes == paper.episodes
        assert smoke.training.updates < short.training.updates < paper.training.updates
        assert smoke.test_batches < short.test_batches < paper.test_batches


def test_names_that_do_not_exist_are_errors_that_list_those_that_do():
    with pytest.raises(ValueError, match=r"no experiment 'mann.table9'.*mann.table1.*mann.figure2"):
        find_experiment("mann.table9")
    experiment = find_experiment("mann.table1")
    with pytest.raises(ValueError, match=r"no variant 'gru'.*feedforward, lstm, mann"):
        experiment.check("gru", "smoke")
    with pytest.raises(ValueError, match=r"no profile 'huge'.*smoke, short, paper"):
        experiment.check("mann", "huge")
    experiment.check("mann", "paper")


class WatchedCharacters(Characters):
    """Remembers which classes were asked for."""

    def images(self, classes=None):
        self.asked.append(np.asarray(classes))
        return super().images(classes)


def test_training_validation_and_test_have_no_class_in_common(characters):
    watched = WatchedCharacters(**{f.name: getattr(characters, f.name) for f in dataclasses.fields(characters)})
    object.__setattr__(watched, "asked", [])
    task = omniglot.build_task(config("mann", "paper"), watched, 3, torch.device("cpu"))
    assert len(watched.asked) == 3
    train, validation, test = (set(classes.tolist()) for classes in watched.asked)
    assert train | validation | test == set(range(32))
    assert len(train) + len(validation) + len(test) == 32
    assert (len(train), len(validation), len(test)) == (
        18,
        6,
        8,
    )  # 24 to train on, a quarter of them held out; 8 to test
    assert test == set(range(24, 32))
    assert [s.bank.classes for s in (task.train, task.validation, task.test)] == [18, 6, 8]


def test_every_seed_and_method_is_tested_on_the_same_episodes_and_trained_on_its_own(characters):
    tasks = [
        omniglot.build_task(config(v, "smoke"), characters, s, torch.device("cpu"))
        for v, s in (("mann", 0), ("lstm", 1))
    ]
    first, second = ([getattr(task, part).batch(3, 2) for task in tasks] for part in ("test", "validation"))
    for a, b in (first, second):
        assert torch.equal(a.xs, b.xs)
        assert torch.equal(a.ys, b.ys)
    a, b = (task.train.batch(3, 2) for task in tasks)
    assert not torch.equal(a.ys, b.ys)
    assert not torch.equal(tasks[0].test.batch(3, 2).ys, tasks[0].validation.batch(3, 2).ys)


@pytest.mark.parametrize("variant", ["feedforward", "lstm", "mann"])
def test_fresh_weights_are_a_function_of_the_seed(variant):
    settings = config(variant, "smoke")
    torch.manual_seed(1)
    first = omniglot.build_learner(settings, 5)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after), "the global generator must be left alone"
    torch.manual_seed(2)
    again, other = omniglot.build_learner(settings, 5), omniglot.build_learner(settings, 6)
    assert type(first).__name__.lower() == variant
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("variant", ["feedforward", "lstm", "mann"])
def test_the_smoke_profile_runs_in_seconds_and_writes_a_record(book, characters, variant):
    started = time.process_time()
    record = run(variant, "smoke", 7, options(book))
    assert time.process_time() - started < 20
    path = book / "data" / "results" / "mann.table1" / f"{variant}-smoke-7.json"
    assert ledger.read_record(path) == record == ledger.find_record("mann.table1", variant, "smoke", 7)
    assert (record.complete, record.updates, record.checkpoint) == (True, 20, None)
    assert record.config == to_dict(config(variant, "smoke"))
    assert record.data == {"name": "omniglot", "sha256": characters.digest, "is_standin": False}
    assert record.machine["device"] == "cpu"
    assert record.machine["torch"] == torch.__version__
    assert record.commit is None  # no repository here
    assert record.metrics["counts"][0] <= 2 * 16 * 5
    assert sum(record.metrics["counts"]) <= 2 * 16 * 50
    assert all(0 <= a <= 1 for a in record.metrics["accuracy"] if a is not None)
    assert record.curve["update"] == [10, 20]
    assert record.curve["validation_update"] == [20]
    assert len(record.curve["accuracy"]) == 2
    assert 0.5 < record.metrics["loss"] < 3


def test_a_finished_run_asked_for_again_gives_the_same_record(book, monkeypatch):
    smaller(monkeypatch)
    first = run("mann", "smoke", 0, options(book))
    path = book / "runs" / "mann.table1" / "mann-smoke-0" / "checkpoint.safetensors"
    content = path.read_bytes()
    again = run("mann", "smoke", 0, options(book))
    assert path.read_bytes() == content
    assert again.metrics == first.metrics
    assert again.curve == first.curve


def test_a_run_that_was_cut_goes_on_from_its_checkpoint(book, monkeypatch):
    """Cut in the middle by an error, it ends with the metrics and the bits of a run that was not."""
    smaller(monkeypatch, updates=6)
    whole = run("mann", "smoke", 0, options(book, runs=book / "whole"))
    loss = omniglot.ClassificationTask.loss
    calls = []

    def cut(self, logits, batch):
        calls.append(torch.is_grad_enabled())  # validation has none
        if calls.count(True) == 5:
            raise KeyboardInterrupt
        return loss(self, logits, batch)

    monkeypatch.setattr(omniglot.ClassificationTask, "loss", cut)
    with pytest.raises(KeyboardInterrupt):
        run("mann", "smoke", 0, options(book))
    monkeypatch.setattr(omniglot.ClassificationTask, "loss", loss)
    folder = book / "runs" / "mann.table1" / "mann-smoke-0"
    assert read_details(folder / "checkpoint.safetensors")["update"] == 4
    resumed = run("mann", "smoke", 0, options(book))
    assert resumed.metrics == whole.metrics
    assert resumed.curve == whole.curve
    learners = [omniglot.build_learner(config("mann", "smoke"), seed) for seed in (1, 2)]
    load_checkpoint(folder / "checkpoint.safetensors", learners[0])
    load_checkpoint(book / "whole" / "mann.table1" / "mann-smoke-0" / "checkpoint.safetensors", learners[1])
    assert all(torch.equal(a, b) for a, b in zip(*(learner.parameters() for learner in learners), strict=True))


def test_a_run_stopped_by_the_clock_before_its_first_checkpoint_can_go_on(book, monkeypatch):
    smaller(monkeypatch)
    record = run("feedforward", "smoke", 0, options(book, minutes=0.0))
    assert not record.complete
    assert record.updates == 0
    assert ledger.load_records() == []
    assert run("feedforward", "smoke", 0, options(book)).complete


@pytest.mark.parametrize("record_unfinished", [False, True])
def test_a_run_stopped_by_the_clock_is_recorded_only_if_asked_and_only_as_far_as_it_is_kept(
    book, monkeypatch, record_unfinished
):
    smaller(monkeypatch, updates=40, checkpoint_every=4)
    spent = []
    batch = omniglot.EpisodeSampler.batch

    def slow(self, index, size):
        spent.append(index)
        return batch(self, index, size)

    monkeypatch.setattr(omniglot.EpisodeSampler, "batch", slow)
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: 1e9 if spent and spent[-1] >= 7 else 0.0)})
    monkeypatch.setattr(runs, "time", clock)
    monkeypatch.setattr("lib.training.loop.time", clock)
    record = run("mann", "smoke", 0, options(book, minutes=1.0, record_unfinished=record_unfinished))
    assert not record.complete
    kept = read_details(book / "runs" / "mann.table1" / "mann-smoke-0" / "checkpoint.safetensors")
    assert record.updates == kept["update"] >= 4
    assert max(record.curve["update"]) <= record.updates
    assert bool(record.metrics) is record_unfinished
    assert len(ledger.load_records()) == record_unfinished
    if record_unfinished:
        # The metrics are those of the weights that were kept, not of the ones that were lost.
        learner = omniglot.build_learner(config("mann", "smoke"), 9)
        load_checkpoint(book / "runs" / "mann.table1" / "mann-smoke-0" / "checkpoint.safetensors", learner)
        task = omniglot.build_task(config("mann", "smoke"), made_up_characters(), 0, torch.device("cpu"))
        assert omniglot.evaluate(learner, task, task.test, 1) == record.metrics


def test_an_unfinished_run_goes_on_from_the_kept_checkpoint_on_a_machine_without_its_own(book, monkeypatch):
    smaller(monkeypatch, updates=8, checkpoint_every=2)
    whole = run("mann", "smoke", 0, options(book, runs=book / "whole"))
    spent, batch = [], omniglot.EpisodeSampler.batch
    monkeypatch.setattr(omniglot.EpisodeSampler, "batch", lambda self, i, n: spent.append(i) or batch(self, i, n))
    clock = type("Clock", (), {"monotonic": staticmethod(lambda: 1e9 if spent and spent[-1] >= 5 else 0.0)})
    with monkeypatch.context() as stopped:
        stopped.setattr(runs, "time", clock)
        stopped.setattr("lib.training.loop.time", clock)
        asked = options(book, minutes=1.0, record_unfinished=True, keep_checkpoint=True, runs=book / "here")
        record = run("mann", "smoke", 0, asked)
    assert not record.complete and record.updates == 4
    assert verify(record, "cpu")[0]
    spent.clear()
    resumed = run("mann", "smoke", 0, options(book, keep_checkpoint=True, runs=book / "there"))
    assert spent[0] == 5
    assert resumed.complete and resumed.metrics == whole.metrics
    assert [each["from_update"] for each in resumed.trained_by] == [1, 5]
    settings = config("mann", "smoke")
    how, _ = pick_unroll(omniglot.build_learner(settings, 0), "auto", settings.training.updates)
    assert all(each["commit"] == ledger.code_commit() and each["unroll"] == how for each in resumed.trained_by)
    assert verify(resumed, "cpu")[0]


def test_a_checkpoint_that_does_not_say_what_trained_it_is_not_given_a_provenance(book, monkeypatch):
    smaller(monkeypatch)
    path = book / "runs" / "mann.table1" / "mann-smoke-0" / "checkpoint.safetensors"
    run("mann", "smoke", 0, options(book))
    learner = omniglot.build_learner(config("mann", "smoke"), 0)
    details = load_checkpoint(path, learner)
    del details["trained_by"]
    save_checkpoint(path, learner, details)
    assert run("mann", "smoke", 0, options(book)).trained_by is None


def test_other_data_or_another_config_does_not_go_on_with_a_run(book, monkeypatch):
    smaller(monkeypatch)
    run("feedforward", "smoke", 0, options(book))
    monkeypatch.setattr(omniglot, "load_characters", lambda: made_up_characters(seed=1))
    with pytest.raises(CheckpointError, match="another run"):
        run("feedforward", "smoke", 0, options(book))


def kept(book, monkeypatch, variant="mann", **changes) -> ledger.Record:
    smaller(monkeypatch)
    return run(variant, "smoke", 0, options(book, keep_checkpoint=True, **changes))


def test_a_kept_checkpoint_is_the_trained_learner_and_is_verified(book, monkeypatch):
    record = kept(book, monkeypatch)
    assert record.checkpoint["file"] == "data/checkpoints/mann.table1/mann-smoke-0.safetensors"
    learner = load_trained(record)
    assert not learner.training
    trained = omniglot.build_learner(config("mann", "smoke"), 3)
    load_checkpoint(book / "runs" / "mann.table1" / "mann-smoke-0" / "checkpoint.safetensors", trained)
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters(), trained.parameters(), strict=True))
    ok, message = verify(record, "cpu")
    assert ok, message
    assert "0.000 points" in message


def test_the_trace_of_a_kept_mann_is_its_first_test_episode(book, monkeypatch):
    record = kept(book, monkeypatch)
    trace = omniglot.Trace.load(omniglot.trace_path(record))
    assert record.checkpoint["sha256"][:12] in trace.note
    xs, ys = omniglot.episode_of(trace)
    task = omniglot.build_task(config("mann", "smoke"), made_up_characters(), 0, torch.device("cpu"))
    episode = task.test.batch(0, 1)
    assert torch.equal(ys, episode.ys)
    torch.testing.assert_close(xs, episode.xs, atol=0.5 / 255 + 1e-6, rtol=0)
    answers = load_trained(record)(xs, ys).softmax(-1)[0].detach().numpy()
    np.testing.assert_allclose(trace.probabilities, answers, atol=0.01)


def test_a_changed_checkpoint_is_refused(book, monkeypatch):
    record = kept(book, monkeypatch)
    path = book / record.checkpoint["file"]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # one bit of a weight
    with pytest.raises(CheckpointError, match="its record says") as caught:
        load_trained(record)
    assert str(path) in str(caught.value)
    ok, message = verify(record, "cpu")
    assert not ok
    assert str(path) in message
    path.unlink()
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load_trained(record)
    assert not verify(record, "cpu")[0]


def test_a_record_without_checkpoint_says_so(book, monkeypatch):
    smaller(monkeypatch)
    record = run("lstm", "smoke", 0, options(book))
    with pytest.raises(CheckpointError, match="mann.table1/lstm-smoke-0 keeps no checkpoint"):
        load_trained(record)


def test_weights_that_score_otherwise_than_recorded_do_not_pass(book, monkeypatch):
    """Recorded metrics of another learner, with the digest made to fit."""
    record = kept(book, monkeypatch)
    path = book / record.checkpoint["file"]
    learner = load_trained(record)
    with torch.no_grad():
        learner.to_logits.weight.mul_(-1)
        learner.to_logits.bias.add_(torch.tensor([5.0, 0, 0, 0, 0]))
    digest = save_checkpoint(path, learner, {})
    ok, message = verify(replace(record, checkpoint=record.checkpoint | {"sha256": digest}), "cpu")
    assert not ok
    assert "points" in message


def test_a_record_of_another_config_does_not_pass(book, monkeypatch):
    """Code whose profile has changed since must not vouch for an old record."""
    record = kept(book, monkeypatch)
    config = record.config | {"episodes": record.config["episodes"] | {"jitter": False}}
    ok, message = verify(replace(record, config=config), "cpu")
    assert not ok
    assert "config" in message


def test_verify_without_the_recorded_data_says_what_it_needs(book, monkeypatch):
    record = kept(book, monkeypatch)
    monkeypatch.setattr(omniglot, "load_characters", lambda: made_up_characters("glyphs", True, seed=1))
    ok, message = verify(record, "cpu")
    assert ok is None
    assert "not tested" in message
    assert "omniglot" in message
    assert "glyphs" in message


def test_a_stand_in_replaces_neither_record_nor_checkpoint_nor_trace_of_the_real_data(book, monkeypatch):
    record = kept(book, monkeypatch)
    files = [p for p in (book / "data").rglob("*") if p.is_file()]
    assert len(files) == 3
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr(omniglot, "load_characters", lambda: made_up_characters("glyphs", True, seed=1))
    with pytest.raises(LedgerError, match="real data"):
        run("mann", "smoke", 0, options(book, keep_checkpoint=True, runs=book / "elsewhere"))
    assert {path: path.read_bytes() for path in (book / "data").rglob("*") if path.is_file()} == before
    assert load_trained(record) is not None


def test_a_stand_ins_record_says_so(book, monkeypatch):
    smaller(monkeypatch)
    monkeypatch.setattr(omniglot, "load_characters", lambda: made_up_characters("glyphs", True))
    record = run("feedforward", "smoke", 0, options(book))
    assert record.data["is_standin"]
    assert record.data["name"] == "glyphs"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_table_with_no_records_shows_the_paper_and_says_not_run(book, monkeypatch, name):
    monkeypatch.setattr(ledger, "paper_numbers", PAPERS.get)
    table = EXPERIMENTS[name].table()
    assert all(len(row.cells) == len(table.columns) for row in table.rows if row.source == "paper")
    beside = [i for i, column in enumerate(table.columns) if column.startswith("ours")]  # of the paper's in one line
    for row in table.rows:
        if row.source != "paper":
            assert row.note == "not run"
            assert all(row.cells[i] == "–" for i in beside) if beside else not row.cells


PAPERS = {method: ledger.paper_numbers(method) for method in ("mann", "flmn", "lmn", "mbpa")}
PAPER = PAPERS["mann"]


def test_table_1_puts_our_rows_below_the_papers(book, monkeypatch):
    monkeypatch.setattr(ledger, "paper_numbers", lambda _: PAPER)
    smaller(monkeypatch)
    for seed in (0, 1):
        ledger.save_record(replace(run("mann", "smoke", seed, options(book)), profile="paper"))
    ours = [r for r in ledger.load_records("mann.table1", "mann", "paper")]
    table = mann_tables.table1()
    assert table.columns == ("1st", "2nd", "3rd", "4th", "5th", "10th")
    labels = [(row.label, row.source) for row in table.rows]
    assert labels.index(("MANN", "ours, paper profile")) == labels.index(("MANN", "paper")) + 1
    row = table.rows[labels.index(("MANN", "ours, paper profile"))]
    mean = 50 * sum(record.metrics["accuracy"][1] for record in ours)
    assert row.cells[1].startswith(f"{mean:.1f} ±")
    assert "n = 2" in row.note
    assert table.rows[labels.index(("MANN", "paper"))].cells == ("36.4", "82.8", "91.0", "92.6", "94.9", "98.1")


def test_each_other_reading_is_a_run_of_its_own_that_differs_in_what_its_name_says(book, monkeypatch):
    smaller(monkeypatch)
    chosen = asdict(config("mann", "smoke").learner)
    changes = {
        variant: {k: v for k, v in asdict(config(variant, "smoke").learner).items() if v != chosen[k]}
        for variant in EXPERIMENTS["mann.readings"].variants
    }
    assert changes == {
        "shared-keys": {"keys": "shared"},
        "own-slots": {"write_to": "own"},
        "shared-keys-own-slots": {"keys": "shared", "write_to": "own"},
        "constant-gate": {"gate": "constant"},
    }
    record = find_experiment("mann.readings").run("shared-keys", "smoke", 0, options(book, keep_checkpoint=True))
    assert record.name == "mann.readings/shared-keys-smoke-0"
    assert record == ledger.find_record("mann.readings", "shared-keys", "smoke", 0)
    assert ledger.load_records("mann.table1") == []
    assert verify(record, "cpu")[0]


def test_the_readings_are_compared_on_validation_classes(book, monkeypatch):
    monkeypatch.setattr(ledger, "paper_numbers", lambda _: PAPER)
    smaller(monkeypatch)
    record = find_experiment("mann.readings").run("own-slots", "smoke", 0, options(book))
    ledger.save_record(replace(record, profile="short"))
    rows = {row.label: row for row in find_experiment("mann.readings").table().rows}
    last = record.curve["validation_accuracy"][-1]
    assert rows[mann_tables.READING_LABELS["own-slots"]].cells[1] == f"{100 * last[1]:.1f}"
    assert rows["as in table 1"].note == "not run"
    assert rows.keys() == {"as in table 1", *mann_tables.READING_LABELS.values()}
    assert mann.READINGS.keys() == mann_tables.READING_LABELS.keys()


def test_figure_2_is_drawn_from_the_training_curves(book, monkeypatch):
    smaller(monkeypatch)
    record = run("mann", "smoke", 0, options(book))
    accuracy = [[0.1] * 10, [0.25, 0.5] + [0.75] * 8]
    curve = record.curve | {"update": [500, 1000], "accuracy": accuracy}
    ledger.save_record(replace(record, profile="paper", curve=curve))
    rows = {row.label: row.cells for row in mann_tables.figure2().rows}
    assert rows["b: MANN, 1st"][0] == "25.0"
    assert rows["b: MANN, 2nd"][0] == "50.0"
    assert rows["b: MANN, 10th"][0] == "75.0"
    assert rows["b: MANN, 1st"][1] == "–"


def test_a_network_without_memory_scores_at_chance_from_the_order_of_labels(characters):
    """Trained on real episodes, an untrained pair of eyes finds no order to exploit: the loss stays at log 5."""
    settings = config("feedforward", "smoke")
    task = omniglot.build_task(settings, characters, 0, torch.device("cpu"))
    every = {"log_every": 60, "checkpoint_every": 60, "validate_every": 60}
    training = replace(settings.training, updates=60, validation_batches=6, learning_rate=1e-3, **every)
    learner = omniglot.build_learner(settings, 0)
    result = train(learner, task, training, progress=False)
    hits, counts = (sum(result.log[-1]["validation"][part]) for part in ("hits", "counts"))
    assert hits / counts == pytest.approx(0.2, abs=0.03)


def paper_record(accuracy: list[float], **changes) -> ledger.Record:
    """A record of the paper profile with these accuracies of instances 1, 2, 3, 4, 5 and 10."""
    record = ledger.Record(
        experiment="mann.table1",
        variant="mann",
        profile="paper",
        seed=0,
        config={"training": {"updates": 100_000}},
        metrics={"accuracy": accuracy[:5] + [0.95] * 4 + accuracy[5:]},
        updates=100_000,
        complete=True,
        seconds=1.0,
        machine={},
        commit=None,
        data={"name": "omniglot", "sha256": "", "is_standin": False},
    )
    return replace(record, **changes)


AT_PAPER = [0.364, 0.828, 0.910, 0.926, 0.949, 0.981]


def test_the_verdict_on_mann_follows_from_its_records(book, monkeypatch):
    monkeypatch.setattr(ledger, "paper_numbers", lambda _: PAPER)
    assert "not run at the paper profile" in mann_tables.compare_with_paper()
    ledger.save_record(paper_record([0.35, *AT_PAPER[1:5], 0.99]))
    words = mann_tables.compare_with_paper()
    assert "After 100 000 of 100 000 updates" in words
    assert "within 2 points" in words
    assert "1st instance, at -1.4 points" in words
    assert "10th, at +0.9" in words
    ledger.save_record(paper_record([*AT_PAPER[:1], 0.80, *AT_PAPER[2:]]))
    words = mann_tables.compare_with_paper()
    assert "short of the paper's row by more than 2 points" in words
    assert "2nd instance, at -2.8 points" in words
    ledger.save_record(paper_record(AT_PAPER, seed=1))
    words = mann_tables.compare_with_paper()
    assert "MANN, the mean of 2 seeds, is within 2 points" in words
    assert "2nd instance, at -1.4 points" in words
    (ledger.ROOT / "data" / "results" / "mann.table1" / "mann-paper-1.json").unlink()
    ledger.save_record(paper_record(AT_PAPER, updates=9_000, complete=False))
    assert "After 9 000 of 100 000 updates" in mann_tables.compare_with_paper()


def test_a_stand_in_is_not_compared_with_the_paper(book, monkeypatch):
    monkeypatch.setattr(ledger, "paper_numbers", lambda _: PAPER)
    ledger.save_record(paper_record(AT_PAPER, data={"name": "glyphs", "sha256": "", "is_standin": True}))
    assert "within 2 points" not in mann_tables.compare_with_paper()
