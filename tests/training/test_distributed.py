"""Two processes that train one model give what one process gives, to rounding; what ends one of them ends both."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lib.ledger import read_record
from lib.training import distributed, train
from lib.training.checkpoint import read_details
from tests.training.shared_run import SHARED
from tests.training.tiny import TinyTask, tiny_mann

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What two processes saw: (folder, [what the first saw, what the second saw], [weights of each])."""
    folder = tmp_path_factory.mktemp("shared")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, HERE / "shared_run.py", folder]
    started = [
        subprocess.Popen(command, env=environment(RANK=rank, LOCAL_RANK=rank, **address), stderr=subprocess.PIPE)
        for rank in ("0", "1")
    ]
    try:
        errors = [process.communicate(timeout=300)[1].decode() for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0, 0], errors
    seen = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    return folder, seen, [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    """The same run in one process: its weights and its log."""
    learner = tiny_mann().double()
    log = train(learner, TinyTask(torch.float64), SHARED, unroll="plain", progress=False).log
    return learner.state_dict(), log


def assert_same_weights(found, expected):
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-11)


def assert_same_scores(found, expected):
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)
    assert [found[n] for n in ("hits", "counts", "accuracy")] == [expected[n] for n in ("hits", "counts", "accuracy")]


@pytest.mark.parametrize("how", ["plain", "auto", "resumed"])
def test_two_processes_train_as_one(shared, alone, how):
    """To rounding in float64, and with a clip that gradients meet: what is clipped is the joint gradient."""
    _, seen, weights = shared
    expected_weights, expected_log = alone
    assert [(s["rank"], s["size"]) for s in seen] == [(0, 2), (1, 2)]
    for rank in (0, 1):
        assert_same_weights(weights[rank][how], expected_weights)
        for found, expected in zip(seen[rank][how], expected_log, strict=True):
            assert found["update"] == expected["update"]
            assert_same_scores(found, expected)
            assert ("validation" in found) == ("validation" in expected)
            if "validation" in found:
                assert_same_scores(found["validation"], expected["validation"])


def test_these_gradients_are_clipped(alone):
    """Without it the comparison above would not tell where the clipping is done."""
    learner = tiny_mann().double()
    train(learner, TinyTask(torch.float64), replace(SHARED, clip=1e9), unroll="plain", progress=False)
    assert not torch.allclose(learner.state_dict()["to_logits.weight"], alone[0]["to_logits.weight"], rtol=1e-3)


def test_only_the_first_process_writes(shared):
    folder, seen, _ = shared
    assert [s["lines"] for s in seen] == [2 * len(seen[0]["plain"]), 0]
    assert sorted(p.name for p in (folder / "machine0" / "plain").iterdir()) == ["checkpoint.safetensors", "log.jsonl"]
    assert not (folder / "machine1").exists()
    details = read_details(folder / "machine0" / "stopped" / "checkpoint.safetensors")
    assert [(t["from_update"], t["processes"]) for t in details["trained_by"]] == [(1, 2), (5, 2)]


def test_one_process_goes_on_where_two_were_stopped(shared, alone):
    folder, seen, _ = shared
    assert [s["stopped"] for s in seen] == ["Stop: ", "Stop: "]
    learner = tiny_mann(7).double()
    train(learner, TinyTask(torch.float64), SHARED, folder=folder / "alone", unroll="plain", progress=False)
    assert_same_weights(learner.state_dict(), alone[0])
    details = read_details(folder / "alone" / "checkpoint.safetensors")
    assert [(t["from_update"], t["processes"]) for t in details["trained_by"]] == [(1, 2), (5, 1)]


def test_what_ends_one_process_ends_both_with_the_same_words(shared):
    first, second = shared[1]
    for what in ("late", "uneven", "spoilt", "different", "other run"):
        assert first[what] == second[what]
    assert first["late"] == [0, False]
    assert first["uneven"] == (
        "ValueError: a minibatch of 5 cannot be divided equally among 2 processes; "
        "start one of these numbers of processes: 1, 5"
    )
    assert first["spoilt"].startswith("NonFiniteLoss: the loss or its gradient was not finite at update 3;")
    assert first["different"].startswith("ValueError: the processes have different configs or data")
    assert first["other run"].startswith("CheckpointError: ")
    assert "machine0" in first["other run"]


def test_the_command_line_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(HERE / "torchrun_cli.py"), "run", "mann.table1", "--variant", "feedforward", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--runs", str(tmp_path / "runs")],
        env=environment(BOOK_RESULTS_DIR=str(tmp_path / "results")),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("feedforward, smoke profile") == done.stdout.count("test accuracy by instance") == 1
    record = read_record(tmp_path / "results" / "mann.table1" / "feedforward-smoke-0.json")
    assert record.complete
    assert record.trained_by[0]["processes"] == 2
    assert record.metrics["counts"][0] == 3 * 16 * 5  # three batches of episodes, divided between the two


@pytest.fixture
def second_of_two(monkeypatch):
    """The variables that torchrun sets, without another process: nothing may be joined."""
    for name, value in zip(distributed.FROM_TORCHRUN, ("1", "2", "1", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_: pytest.fail("joined"))


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda:0", "each process needs a GPU of its own"), ("cuda", "this machine has 1 GPUs")],
)
def test_a_gpu_for_each_process(second_of_two, monkeypatch, device, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=message), distributed.joined(device):
        pass


def test_a_process_alone_is_not_joined():
    with distributed.joined("cpu") as device:
        assert device == "cpu"
        assert (distributed.rank(), distributed.size(), distributed.is_first()) == (0, 1, True)
