"""The command line: what it prints, what it starts, and that an error a user can mend is one sentence."""

import itertools
import json
import os
import runpy
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from types import ModuleType

import pytest

from lib import cli, ledger
from lib.data import CacheWarning, StandInWarning
from lib.experiments import EXPERIMENTS, RunOptions, mann, omniglot
from tests.experiments.made_up import made_up_characters
from tests.test_ledger import RECORD

REPOSITORY = ledger.ROOT


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A project of its own with made-up characters and short runs; the papers' numbers are those of the repository."""
    root, numbers, in_profile = tmp_path / "project", ledger.paper_numbers("mann"), omniglot.in_profile

    def short(paper, profile):
        training = replace(
            in_profile(paper, profile).training,
            updates=2,
            batch_size=2,
            log_every=1,
            validate_every=2,
            validation_batches=1,
            checkpoint_every=1,
        )
        return replace(in_profile(paper, profile), training=training, test_batches=1)

    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setattr(ledger, "paper_numbers", lambda _: numbers)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(root / "data" / "results"))
    monkeypatch.setattr(omniglot, "in_profile", short)
    monkeypatch.setattr(omniglot, "load_characters", made_up_characters)
    return root


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command line in this process: its standard output."""

    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["lib", *arguments])
        cli.main()
        return capsys.readouterr().out

    return call


def error_of(call, *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        call(*arguments)
    return str(caught.value)


def run_arguments(book, *more: str) -> tuple[str, ...]:
    return ("run", "mann.table1", "--device", "cpu", "--runs", str(book / "runs"), *more)


def test_list_names_every_experiment_and_what_is_recorded(book, call):
    ledger.save_record(replace(RECORD, metrics={"accuracy": [0.5] * 10}))
    shown = call("list")
    assert "mann.table1" in shown
    assert "mann.figure2" in shown
    assert "not run" in shown
    assert "n = 1" in shown


def test_show_puts_the_paper_beside_what_was_not_run(book, call):
    shown = call("show", "mann.table1")
    assert "98.1" in shown
    assert "not run" in shown


def test_run_trains_records_and_describes(book, call):
    shown = call(*run_arguments(book, "--variant", "feedforward", "--seed", "5", "--threads", "1"))
    assert "mann.table1, feedforward, smoke profile, seed 5" in shown
    assert "test accuracy by instance: 1st " in shown
    assert "mann.table1/feedforward-smoke-5.json" in shown
    record = ledger.find_record("mann.table1", "feedforward", "smoke", 5)
    assert record.complete
    assert record.updates == 2
    assert "smoke" in call("list")


def test_a_record_of_other_data_is_not_replaced_in_silence(book, call):
    arguments = run_arguments(book, "--variant", "feedforward")
    assert "replaces" not in call(*arguments) and "replaces" not in call(*arguments)
    path = ledger.results_dir() / "mann.table1" / "feedforward-smoke-0.json"
    content = json.loads(path.read_text())
    content["data"] |= {"sha256": "of another", "name": "another"}
    path.write_text(json.dumps(content))
    assert "it replaces a record of other data (another); git has that one" in call(*arguments)


def test_run_without_a_variant_runs_all_of_them(book, call):
    call(*run_arguments(book))
    assert [r.variant for r in ledger.load_records("mann.table1")] == ["feedforward", "lstm", "mann"]


def test_a_stand_in_is_told_of_once_and_other_warnings_as_ever(book, monkeypatch, capsys):
    def announced():
        warnings.warn("Glyphs stand in for Omniglot.", StandInWarning, stacklevel=2)
        warnings.warn(f"Another stands in for run {next(runs)}.", StandInWarning, stacklevel=2)
        warnings.warn("A cached file was damaged.", CacheWarning, stacklevel=2)
        return made_up_characters()

    runs = itertools.count()
    warnings.simplefilter("always")  # as after any change of the filters
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: print("as ever:", message, file=sys.stderr))
    monkeypatch.setattr(omniglot, "load_characters", announced)
    monkeypatch.setattr(sys, "argv", ["lib", *run_arguments(book)])
    cli.main()
    shown = capsys.readouterr().err.splitlines()
    assert shown.count("note: Glyphs stand in for Omniglot.") == 1
    assert [line for line in shown if "Another" in line] == [f"note: Another stands in for run {i}." for i in range(3)]
    assert shown.count("as ever: A cached file was damaged.") == 3
    assert not [line for line in shown if "as ever" in line and "stand" in line]


def test_seeds_trained_together_are_recorded_one_by_one(book, call):
    """... and end where each would have ended alone."""
    arguments = run_arguments(book, "--variant", "mann", "--threads", "1", "--keep-checkpoint")
    shown = call(*arguments, "--seed", "3", "--together", "2")
    assert "mann.table1, mann, smoke profile, seed 3, 4" in shown
    records = ledger.load_records("mann.table1")
    assert [(record.seed, record.updates, record.complete) for record in records] == [(3, 2, True), (4, 2, True)]
    assert all(record.trained_by[0]["together"] == 2 for record in records)
    assert records[0].curve["loss"] != records[1].curve["loss"]
    assert "ok  " in call("verify", "mann.table1", "--device", "cpu")
    shutil.rmtree(book / "runs")
    shutil.rmtree(book / "data" / "checkpoints")
    call(*arguments, "--seed", "4")
    alone = ledger.find_record("mann.table1", "mann", "smoke", 4)
    assert alone.curve["loss"] == pytest.approx(records[1].curve["loss"], abs=2e-5)
    assert alone.metrics["counts"] == records[1].metrics["counts"]
    assert alone.metrics["loss"] == pytest.approx(records[1].metrics["loss"], abs=1e-5)


def test_a_figure_is_run_as_the_table_it_is_drawn_from(book, call):
    shown = call("run", "mann.figure2", "--variant", "lstm", "--device", "cpu", "--runs", str(book / "runs"))
    assert "mann.figure2, lstm, is drawn from a run of mann.table1" in shown
    assert [(r.experiment, r.variant) for r in ledger.load_records()] == [("mann.table1", "lstm")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "mann.table9"), "error: there is no experiment 'mann.table9'; known: mann.table1"),
        (("show", "nonsense"), "error: there is no experiment 'nonsense'"),
        (("run", "mann.table1", "--variant", "gru"), "error: mann.table1 has no variant 'gru'; known: feedforward"),
        (("run", "mann.table1", "--profile", "huge"), "error: there is no profile 'huge'; known: smoke, short, paper"),
        (("run", "mann.table1", "--device", "nonsense"), "error: the device 'nonsense' cannot be used here"),
        (("run", "mann.table1", "--together", "0"), "error: --together is how many seeds to train, it cannot be 0"),
        (
            ("run", "mann.table1", "--variant", "lstm", "--device", "cpu", "--together", "2"),
            "error: LSTM holds a recurrent network of PyTorch's, train it alone",
        ),
        (
            ("run", "mann.table1", "--variant", "mann", "--device", "cpu", "--unroll", "graph"),
            "error: a CUDA graph needs a CUDA device, not cpu; try --device cuda or --unroll auto",
        ),
        (("bench", "nonsense"), "error: there is no benchmark of 'nonsense'; known: mann, flmn"),
    ],
)
def test_an_error_that_a_user_can_mend_is_one_sentence(book, call, arguments, message):
    assert error_of(call, *arguments).startswith(message)


@pytest.mark.parametrize("arguments", [("sweep", "--profile", "huge"), ("verify", "mann.table9")])
def test_a_name_that_does_not_exist_is_not_passed_over(book, call, processes, arguments):
    assert error_of(call, *arguments).startswith("error: there is no ")


def test_damaged_records_and_checkpoints_are_named(book, call):
    path = ledger.save_record(RECORD)
    path.write_text("garbage")
    assert str(path) in error_of(call, "show", "mann.table1")
    path.unlink()
    arguments = run_arguments(book, "--variant", "lstm")
    call(*arguments)
    checkpoint = book / "runs" / "mann.table1" / "lstm-smoke-0" / "checkpoint.safetensors"
    checkpoint.write_bytes(b"garbage")
    message = error_of(call, *arguments)
    assert message.startswith("error: ")
    assert str(checkpoint) in message


def test_a_stop_by_hand_says_how_to_go_on(book, call, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(omniglot, "load_characters", interrupted)
    assert error_of(call, *run_arguments(book)) == "130"
    assert "same command again" in capsys.readouterr().err


def test_a_stop_while_the_program_is_still_imported_is_one_word(monkeypatch, capsys):
    class Interrupted(ModuleType):
        def __getattr__(self, _):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "lib.cli", Interrupted("lib.cli"))
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("lib", run_name="__main__")
    assert caught.value.code == 130
    assert capsys.readouterr().err == "stopped\n"


def test_an_unknown_name_is_answered_by_those_of_its_method_alone(call):
    of_mbpa = error_of(call, "show", "mbpa.figure9")
    assert "known: mbpa.figure2, " in of_mbpa and "mbpa.table2" in of_mbpa and "mann" not in of_mbpa
    assert error_of(call, "run", "mbpa").split("; ")[1:] == of_mbpa.split("; ")[1:]
    assert error_of(call, "show", "nonsense") == (
        "error: there is no experiment 'nonsense'; known are those of mann, flmn, lmn, mbpa; "
        "`python -m lib list` shows all"
    )


def test_verify_passes_what_was_kept_and_fails_what_was_changed(book, call, capsys):
    assert "no record keeps a checkpoint" in call("verify")
    call(*run_arguments(book, "--variant", "mann", "--keep-checkpoint"))
    shown = call("verify", "--device", "cpu")
    assert shown.startswith("ok   mann.table1/mann-smoke-0: ")
    path = book / "data" / "checkpoints" / "mann.table1" / "mann-smoke-0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    assert error_of(call, "verify", "mann.table1", "--device", "cpu") == "1"
    shown = capsys.readouterr().out
    assert shown.startswith("FAIL mann.table1/mann-smoke-0: ")
    assert str(path) in shown


def test_verify_passes_over_a_checkpoint_whose_data_is_not_here_and_says_so(book, call, monkeypatch):
    call(*run_arguments(book, "--variant", "mann", "--keep-checkpoint"))
    monkeypatch.setattr(omniglot, "load_characters", lambda: made_up_characters("glyphs", True, seed=1))
    shown = call("verify", "--device", "cpu")
    assert shown.startswith("---- mann.table1/mann-smoke-0: not tested")


WANTED = [(e.name, variant, seed) for e in EXPERIMENTS.values() for variant, seed in e.wanted]


class FakeProcess:
    """Takes the place of a run: ends at once."""

    started: list[list[str]] = []
    most_at_once = 0
    status = 0

    def __init__(self, command, cwd):
        assert cwd == ledger.ROOT
        self.returncode = None
        self.started.append(command[1:])

    def poll(self):
        self.returncode = self.status
        return self.returncode


@pytest.fixture
def processes(monkeypatch):
    fake = type("Fake", (FakeProcess,), {"started": []})
    monkeypatch.setattr(subprocess, "Popen", fake)
    return fake


def names(processes) -> list[tuple[str, ...]]:
    """(experiment, variant, profile, seed) of each started run."""

    def after(command, option):
        return command[command.index(option) + 1]

    return [(c[3], *(after(c, o) for o in ("--variant", "--profile", "--seed"))) for c in processes.started]


def test_sweep_starts_what_the_ledger_lacks_the_most_wanted_first(book, call, processes):
    ledger.save_record(replace(RECORD, variant="lstm", profile="paper", seed=0))
    ledger.save_record(replace(RECORD, variant="feedforward", profile="paper", seed=0, complete=False))
    call("sweep", "--minutes", "5", "--threads", "2", "--device", "cpu", "--runs", str(book / "r"), "--unroll", "plain")
    found = names(processes)
    assert [run[1:] for run in found[:2]] == [("mann", "paper", "0"), ("feedforward", "paper", "0")]
    assert ("mann.table1", "lstm", "paper", "0") not in found
    assert len(found) == len(set(found)) == len(WANTED) - 1
    for command, (name, *_) in zip(processes.started, (w for w in WANTED if w[1:] != ("lstm", 0)), strict=True):
        assert command[:4] == ["-m", "lib", "run", name]
        assert command[command.index("--threads") + 1] == "2"
        assert command[command.index("--runs") + 1] == str(book / "r")
        assert "--keep-checkpoint" in command
        assert command[command.index("--unroll") + 1] == "plain"
        assert 0 < float(command[command.index("--minutes") + 1]) <= 5


def test_sweep_starts_nothing_when_the_time_is_over_or_all_is_done(book, call, processes):
    call("sweep", "--minutes", "0")
    assert processes.started == []
    for name, variant, seed in WANTED:
        ledger.save_record(replace(RECORD, experiment=name, variant=variant, profile="paper", seed=seed))
    assert "has every wanted run of the paper profile" in call("sweep")
    assert processes.started == []


def test_sweep_names_the_runs_that_failed(book, call, processes):
    processes.status = 1
    message = error_of(call, "sweep", "--parallel", "3")
    assert "these runs failed" in message
    assert "mann.table1/mann-paper-0" in message
    assert len(processes.started) == len(WANTED)


def test_sweep_runs_no_more_than_asked_at_a_time(book, call, processes, monkeypatch):
    running = set()
    most = []

    class Slow(processes):
        def __init__(self, command, cwd):
            super().__init__(command, cwd)
            self.asked = 0
            running.add(self)
            most.append(len(running))

        def poll(self):
            self.asked += 1
            if self.asked > 2:
                running.discard(self)
                self.returncode = 0
            return self.returncode

    monkeypatch.setattr(subprocess, "Popen", Slow)
    monkeypatch.setattr(cli.time, "sleep", lambda _: None)
    call("sweep", "--parallel", "2")
    assert max(most) == 2
    assert len(Slow.started) == len(WANTED)


def test_a_sweep_on_ray_has_the_same_runs(book, call, processes, monkeypatch):
    call("sweep", "--minutes", "5", "--threads", "2", "--device", "cpu", "--unroll", "plain")
    asked = []

    def sweep_on_ray(address, runs, **options):
        asked.append((address, runs, options))
        return ["mann.table1/mann-paper-0"]

    monkeypatch.setattr(cli, "sweep_on_ray", sweep_on_ray)
    arguments = ("sweep", "--ray", "auto", "--minutes", "5", "--threads", "2", "--unroll", "plain", "--runs", "r")
    assert error_of(call, *arguments) == "these runs failed, see above: mann.table1/mann-paper-0"
    ((address, runs, options),) = asked
    assert address == "auto"
    assert options == {"minutes": 5.0, "cpus": 2, "gpus": 0.0, "in_progress": book / "r"}
    assert list(runs) == [ledger.record_name(name, variant, "paper", seed) for name, variant, seed in WANTED]
    assert list(runs.values()) == [command[2 : command.index("--minutes")] for command in processes.started]


def test_a_sweep_on_ray_connects_to_nothing_when_there_is_nothing_to_do(book, call, monkeypatch):
    monkeypatch.setattr(cli, "sweep_on_ray", lambda *_, **__: pytest.fail("connected"))
    for name, variant, seed in WANTED:
        ledger.save_record(replace(RECORD, experiment=name, variant=variant, profile="paper", seed=seed))
    assert "has every wanted run" in call("sweep", "--ray", "auto")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpus-per-run", "0.5"), "error: --gpus-per-run is for --ray"),
        (("--ray", "auto", "--device", "cuda"), "error: with --ray, --device cuda needs --gpus-per-run"),
    ],
)
def test_a_gpu_on_ray_is_asked_for_by_its_share(book, call, processes, arguments, message):
    assert error_of(call, "sweep", *arguments).startswith(message)


def test_a_sweep_under_torchrun_is_refused(book, call, processes, monkeypatch):
    for name in cli.distributed.FROM_TORCHRUN:
        monkeypatch.setenv(name, "1")
    assert error_of(call, "sweep").startswith("error: a sweep starts processes of its own")
    assert processes.started == []


def test_what_sweep_starts_is_a_command_that_run_understands(book, call, processes, monkeypatch):
    call("sweep", "--minutes", "5", "--device", "cpu", "--unroll", "plain", "--runs", str(book / "runs"))
    asked = []
    monkeypatch.setattr(mann.EXPERIMENTS[0].__class__, "check", lambda *_: None)

    def run(variant, profile, seed, options):
        asked.append((variant, profile, seed, options))
        return replace(RECORD, metrics={})

    experiment = replace(mann.EXPERIMENTS[0], run=run)
    monkeypatch.setattr(cli, "find_experiment", lambda name: experiment)
    call(*processes.started[0][2:])
    ((variant, profile, seed, options),) = asked
    assert (variant, profile, seed) == ("mann", "paper", 0)
    assert options.device == "cpu"
    assert options.keep_checkpoint
    assert options.unroll == "plain"
    assert options.runs == book / "runs"
    assert 4 < options.minutes <= 5


def test_help_comes_from_the_docstrings(call, capsys):
    for command, words in (("run", "minutes on a laptop"), ("sweep", "most wanted first"), ("verify", "committed")):
        with pytest.raises(SystemExit) as caught:
            call(command, "--help")
        assert caught.value.code == 0
        assert words in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_the_package_runs_as_a_program(tmp_path):
    def program(*arguments):
        environment = os.environ | {"BOOK_RESULTS_DIR": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-m", "lib", *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True
        )

    listed = program("list")
    assert listed.returncode == 0, listed.stderr
    assert "mann.table1" in listed.stdout
    wrong = program("show", "nonsense")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: there is no experiment 'nonsense'")
    assert "Traceback" not in wrong.stderr


def test_runs_in_progress_are_kept_in_the_project():
    assert RunOptions().runs == REPOSITORY / "runs"
