"""A run that is killed at any moment ends, when resumed, with the very bits of a run that was not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from lib.training import train
from lib.training.checkpoint import CheckpointError, load_checkpoint, read_details, save_checkpoint
from tests.training.tiny import SHORT, TinyTask, same, tiny_mann, weights_of

ROOT = Path(__file__).resolve().parents[2]


def read_log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def without_time(log: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in log]


def tensors(path: Path) -> dict[str, bytes]:
    """Every tensor of a checkpoint as bytes: the optimizer's state, too."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "training" / "killed_run.py", tmp_path, "1"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert kills["torn"] == ["half written", "written", "before replacing", "after replacing"]
    assert len(kills["killed"]) >= 4, kills
    expected = tensors(tmp_path / "whole" / "checkpoint.safetensors")
    assert any(name.startswith("optimizer.") for name in expected)
    for folder in (tmp_path / "torn", tmp_path / "killed"):
        assert tensors(folder / "checkpoint.safetensors") == expected
        log, details = read_log(folder), read_details(folder / "checkpoint.safetensors")
        assert [line["update"] for line in log] == list(range(2, 61, 2))
        assert without_time(log) == without_time(read_log(tmp_path / "whole"))
        assert details["log"] == log
        assert details["update"] == 60
        assert [line["seconds"] for line in log] == sorted(line["seconds"] for line in log)


class Stop(BaseException):
    """What a kill looks like from inside."""


@pytest.mark.parametrize("update", [4, 8, 12])
def test_a_stop_between_checkpoint_and_log_leaves_no_gap_in_the_log(tmp_path, monkeypatch, update):
    replace, calls = os.replace, []

    def stop_after(source, target):
        replace(source, target)
        calls.append(target)
        if Path(target).name == "checkpoint.safetensors" and read_details(Path(target))["update"] == update:
            raise Stop

    monkeypatch.setattr(os, "replace", stop_after)
    with pytest.raises(Stop):
        train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, progress=False)
    monkeypatch.undo()
    learner, whole = tiny_mann(3), tiny_mann()
    result = train(learner, TinyTask(), SHORT, folder=tmp_path, progress=False)
    train(whole, TinyTask(), SHORT, progress=False)
    assert same(weights_of(learner), weights_of(whole))
    assert read_log(tmp_path) == result.log
    assert [line["update"] for line in result.log] == [2, 4, 6, 8, 10, 12]


def test_what_a_killed_write_left_behind_goes_away(tmp_path):
    train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, progress=False)
    (tmp_path / "checkpoint.safetensors").unlink()
    (tmp_path / ".checkpoint.safetensors.abc.tmp").write_bytes(b"half a checkpoint")
    train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, progress=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]


def test_the_position_in_the_stream_is_part_of_the_resumed_run(tmp_path):
    """A run that started its batches anew would end elsewhere: the check of bits above is not empty."""
    half = SHORT.__class__(**(SHORT.__dict__ | {"updates": 4}))
    learner, whole = tiny_mann(), tiny_mann()
    train(learner, TinyTask(), half, progress=False)
    train(learner, TinyTask(), half, progress=False)
    train(whole, TinyTask(), half.__class__(**(half.__dict__ | {"updates": 8})), progress=False)
    assert not same(weights_of(learner), weights_of(whole))


def test_a_memory_that_is_not_wiped_is_kept_in_the_checkpoint(tmp_path):
    """Cut and resumed, the next episode begins with the memory that the last one left."""
    config = replace(SHORT, wipe_memory=False)
    whole, cut = tiny_mann(), tiny_mann()
    log = train(whole, TinyTask(), config, folder=tmp_path / "whole", progress=False).log

    def stop(line):
        if line["update"] == 6:  # the last checkpoint is of update 4
            raise Stop

    with pytest.raises(Stop):
        train(cut, TinyTask(), config, folder=tmp_path / "cut", progress=False, on_log=stop)
    resumed = tiny_mann(seed=1)
    again = train(resumed, TinyTask(), config, folder=tmp_path / "cut", progress=False).log
    assert same(weights_of(whole), weights_of(resumed))
    assert without_time(again) == without_time(log)
    wiped = tiny_mann()
    train(wiped, TinyTask(), SHORT, progress=False)
    assert not same(weights_of(whole), weights_of(wiped))


def test_a_checkpoint_without_the_memory_that_it_should_carry_is_refused(tmp_path):
    config = replace(SHORT, wipe_memory=False)
    train(tiny_mann(), TinyTask(), replace(config, updates=4), folder=tmp_path, progress=False)
    path, learner = tmp_path / "checkpoint.safetensors", tiny_mann()
    details = load_checkpoint(path, learner)
    details["identity"]["training"]["updates"] = config.updates
    save_checkpoint(path, learner, details)
    with pytest.raises(CheckpointError, match="lacks parts of the memory that is carried over"):
        train(tiny_mann(), TinyTask(), config, folder=tmp_path, progress=False)
