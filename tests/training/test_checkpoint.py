"""Checkpoints: what goes in comes out, and whatever is wrong with the file is said with its name."""

import errno
import hashlib
import json
import os
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from lib import atomic
from lib.training import loop, train
from lib.training.checkpoint import CheckpointError, file_digest, load_checkpoint, read_details, save_checkpoint
from tests.cases import random_cases
from tests.training.tiny import SHORT, TINY, TinyTask, same, tiny_mann, weights_of

DETAILS = {"identity": {"run": "a/b"}, "update": 4, "seconds": 1.5, "log": [{"update": 4, "loss": 0.1 + 0.2}]}


def trained(updates: int = 2):
    """A learner and its optimizer after some updates."""
    learner, task = tiny_mann(), TinyTask()
    optimizer = loop.make_optimizer(learner, SHORT)
    step(learner, optimizer, task, range(updates))
    return learner, optimizer, task


def step(learner, optimizer, task, numbers):
    for number in numbers:
        batch = task.train.batch(number, 2)
        optimizer.zero_grad()
        task.loss(learner(batch.xs, batch.ys), batch).backward()
        optimizer.step()


@cache
def whole_checkpoint() -> bytes:
    """The content of a checkpoint."""
    learner, optimizer, _ = trained()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        save_checkpoint(path, learner, DETAILS, optimizer)
        return path.read_bytes()


@pytest.fixture
def content() -> bytes:
    return whole_checkpoint()


def test_weights_optimizer_and_details_come_back_bit_by_bit(tmp_path):
    learner, optimizer, task = trained()
    path = tmp_path / "new" / "folder" / "checkpoint.safetensors"
    digest = save_checkpoint(path, learner, DETAILS, optimizer)
    assert digest == file_digest(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    other = tiny_mann(9)
    other_optimizer = loop.make_optimizer(other, SHORT)
    assert load_checkpoint(path, other, other_optimizer) == DETAILS == read_details(path)
    assert same(weights_of(learner), weights_of(other))
    mine, restored = optimizer.state_dict(), other_optimizer.state_dict()
    assert mine["param_groups"] == restored["param_groups"]
    assert mine["state"].keys() == restored["state"].keys()
    for index, state in mine["state"].items():
        assert state.keys() == restored["state"][index].keys()
        assert {"step", "square_avg", "momentum_buffer"} <= state.keys()
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(restored["state"][index][name])), name
    # ... and both go on alike.
    step(learner, optimizer, task, range(2, 5))
    step(other, other_optimizer, task, range(2, 5))
    assert same(weights_of(learner), weights_of(other))


def test_a_wrong_optimizer_state_would_show(tmp_path):
    """The comparison above is worth something: without the optimizer's state the runs part."""
    learner, optimizer, task = trained()
    path = tmp_path / "checkpoint.safetensors"
    save_checkpoint(path, learner, DETAILS, optimizer)
    other = tiny_mann(9)
    load_checkpoint(path, other)
    step(learner, optimizer, task, range(2, 5))
    step(other, loop.make_optimizer(other, SHORT), task, range(2, 5))
    assert not same(weights_of(learner), weights_of(other))


def test_a_checkpoint_without_optimizer_is_enough_to_use_the_weights(tmp_path):
    learner, _, _ = trained()
    path = tmp_path / "kept.safetensors"
    save_checkpoint(path, learner, DETAILS)
    other = tiny_mann(9)
    load_checkpoint(path, other)
    assert same(weights_of(learner), weights_of(other))


def test_a_missing_file_is_an_error_with_its_name(tmp_path):
    path = tmp_path / "none.safetensors"
    for read in (lambda: load_checkpoint(path, tiny_mann()), lambda: read_details(path)):
        with pytest.raises(CheckpointError, match="there is no checkpoint") as caught:
            read()
        assert str(path) in str(caught.value)


def read_damaged(path) -> None:
    """Both readers give CheckpointErrors that name the file, and so does a run that would go on from it."""
    for read in (lambda: load_checkpoint(path, tiny_mann()), lambda: read_details(path)):
        with pytest.raises(CheckpointError) as caught:
            read()
        assert str(path) in str(caught.value)
    with pytest.raises(CheckpointError) as caught:
        train(tiny_mann(), TinyTask(), SHORT, folder=path.parent, progress=False)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "garbage",
    [b"", b"\x00", b"PK\x03\x04 not a checkpoint at all" * 30, b"\xff" * 4096, b"\x08" + b"\x00" * 7 + b"{}      "],
    ids=["empty", "one byte", "an archive", "ones", "empty header"],
)
def test_garbage_is_an_error_with_the_files_name(tmp_path, garbage):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(garbage)
    read_damaged(path)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_an_error_with_its_name(tmp_path, content, share):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content[: int(share * len(content))])
    read_damaged(path)


def test_a_file_with_something_after_its_end_is_an_error(tmp_path, content):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content + b"more")
    read_damaged(path)


def test_a_safetensors_file_of_another_kind_is_an_error(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    read_damaged(path)
    save_file({"weight": torch.zeros(3)}, path, metadata={"format": "999", "details": "{}"})
    read_damaged(path)


@random_cases(100)
@given(st.floats(0, 1, exclude_max=True), st.integers(32, 126))
def test_a_damaged_header_is_never_anything_but_a_checkpoint_error(share, byte):
    """One byte of the names, types, shapes and details is another one."""
    content = whole_checkpoint()
    place = 8 + int(share * int.from_bytes(content[:8], "little"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.safetensors"
        path.write_bytes(content[:place] + bytes([byte]) + content[place + 1 :])
        learner = tiny_mann()
        try:
            load_checkpoint(path, learner, loop.make_optimizer(learner, SHORT))
        except CheckpointError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    "config",
    [replace(TINY, hidden=9), replace(TINY, gate="constant"), replace(TINY, reads=1)],
    ids=["hidden", "gate", "reads"],
)
def test_another_models_checkpoint_is_an_error(tmp_path, content, config):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="another model than MANN") as caught:
        load_checkpoint(path, tiny_mann(config=config))
    assert str(path) in str(caught.value)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


class FullFile:
    """A file on a full disk: a little can be written, no more."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __getattr__(self, name):
        return getattr(self.file, name)

    def write(self, data):
        self.file.write(bytes(data)[:10])
        full_disk()


def fill_disk(monkeypatch, where: str) -> None:
    if where == "write":
        fdopen = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda *a, **k: FullFile(fdopen(*a, **k)))
    else:
        monkeypatch.setattr({"fsync": os, "replace": os, "mkstemp": tempfile}[where], where, full_disk)


@pytest.mark.parametrize("where", ["mkstemp", "write", "fsync", "replace"])
def test_a_full_disk_is_an_error_and_the_old_checkpoint_is_still_whole(tmp_path, content, monkeypatch, where):
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(content)
    fill_disk(monkeypatch, where)
    with pytest.raises(CheckpointError, match="No space left on device") as caught:
        save_checkpoint(path, tiny_mann(3), {"update": 8})
    assert str(path) in str(caught.value)
    monkeypatch.undo()
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == [path.name], "no temporary file stays"
    assert read_details(path) == DETAILS


@pytest.mark.parametrize("where", ["mkstemp", "write", "fsync", "replace"])
def test_a_run_whose_disk_is_full_stops_and_can_go_on_when_there_is_room(tmp_path, monkeypatch, where):
    def fill(line):
        if line["update"] == 8:
            fill_disk(monkeypatch, where)

    with pytest.raises(CheckpointError, match="No space left on device"):
        train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, progress=False, on_log=fill)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]
    assert read_details(tmp_path / "checkpoint.safetensors")["update"] == 4
    learner, whole = tiny_mann(5), tiny_mann()
    train(learner, TinyTask(), SHORT, folder=tmp_path, progress=False)
    train(whole, TinyTask(), SHORT, progress=False)
    assert same(weights_of(learner), weights_of(whole))


def test_a_folder_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "runs").write_text("in the way")
    with pytest.raises(CheckpointError, match="runs"):
        train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path / "runs" / "a", progress=False)


def test_a_stop_while_writing_leaves_no_temporary_file(tmp_path):
    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        atomic.write_atomically(tmp_path / "file", interrupted)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_written_file_can_be_read_by_others(tmp_path):
    atomic.write_atomically(tmp_path / "a" / "file", lambda file: file.write(b"new"))
    assert (tmp_path / "a" / "file").read_bytes() == b"new"
    assert (tmp_path / "a" / "file").stat().st_mode & 0o777 == 0o644


def test_a_checkpoint_is_no_pickle(content):
    header = int.from_bytes(content[:8], "little")
    names = json.loads(content[8 : 8 + header])
    assert names["__metadata__"]["format"] == "1"
    assert all(name == "__metadata__" or name.startswith(("model.", "optimizer.")) for name in names)
