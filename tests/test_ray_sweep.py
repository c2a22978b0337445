"""A sweep on a real Ray cluster of two nodes: what comes back, what is gone on with, and what was lost."""

import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lib import ledger, ray_sweep
from lib.training.checkpoint import file_digest, read_details

REPOSITORY = ledger.ROOT


def arguments(variant: str) -> list[str]:
    return ["run", "made.up", "--profile", "paper", "--variant", variant, "--seed", "0"]


def runs_of(*variants: str) -> dict[str, list[str]]:
    return {f"made.up/{variant}-paper-0": arguments(variant) for variant in variants}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """One node with a CPU, another with a CPU and what Ray is told is a GPU."""
    pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # a token would be written to the home folder
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1, num_gpus=1)
        yield cluster
        cluster.shutdown()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with the program of `ray_project` for a `lib`, and the folder of its runs in progress elsewhere."""
    root = tmp_path / "project"
    (root / "lib").mkdir(parents=True)
    (root / "lib" / "__init__.py").touch()
    shutil.copy(REPOSITORY / "tests" / "ray_project.py", root / "lib" / "__main__.py")
    monkeypatch.setattr(ledger, "ROOT", root)
    monkeypatch.setenv("BOOK_RESULTS_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("BOOK_CODE_COMMIT", "0123abc")
    # The tests' checks of types, which wrap each function of `lib`, cannot be sent to another process.
    monkeypatch.setattr(ray_sweep, "run_in_folder", inspect.unwrap(ray_sweep.run_in_folder))
    return tmp_path


@pytest.fixture
def sweep(cluster, project):
    def sweep(*variants: str, minutes: float = 5.0, cpus: int = 1, gpus: float = 0.0) -> list[str]:
        options = {"cpus": cpus, "gpus": gpus, "in_progress": project / "in-progress"}
        return ray_sweep.sweep_on_ray(cluster.address, runs_of(*variants), minutes=minutes, **options)

    return sweep


def record_of(project: Path, variant: str) -> dict:
    return json.loads((project / "records" / "made.up" / f"{variant}-paper-0.json").read_text())


def test_runs_come_home_finished_or_not_and_those_that_failed_are_named(sweep, project, capsys):
    failed = sweep("whole", "killed", "long", "fails")
    shown = capsys.readouterr().out
    assert sorted(failed) == ["made.up/fails-paper-0", "made.up/killed-paper-0"]
    assert "error: it fails" in shown
    assert "made.up/killed-paper-0 was lost: " in shown

    record = record_of(project, "whole")
    assert record["BOOK_CODE_COMMIT"] == "0123abc"
    assert 0 < record["minutes"] <= 5
    assert not record["folder"].startswith(str(project))
    assert (project / "project/data/checkpoints/made.up/whole-paper-0.safetensors").read_text() == "weights"

    assert not (project / "records/made.up/long-paper-0.json").exists()
    unfinished = project / "in-progress/made.up/long-paper-0/checkpoint.safetensors"
    assert unfinished.read_text() == "1"
    assert (project / "in-progress/made.up/fails-paper-0/checkpoint.safetensors").read_text() == "1"

    assert sweep("long") == []
    assert unfinished.read_text() == "2"
    assert record_of(project, "long")["times"] == 2


def test_runs_share_a_gpu(sweep, project):
    assert sweep("whole", gpus=0.25) == []
    assert record_of(project, "whole")["CUDA_VISIBLE_DEVICES"] == "0"


def test_nothing_is_begun_when_the_time_is_over(sweep, project):
    assert sweep("whole", minutes=0.0) == []
    assert not (project / "records").exists()


def test_what_no_machine_has_is_refused(sweep):
    with pytest.raises(ValueError, match="no machine of the Ray cluster has 1 CPUs and 8 GPUs; ask for less"):
        sweep("whole", gpus=8)


def test_runs_on_a_machine_that_is_lost_are_named(cluster, sweep, tmp_path, monkeypatch, capsys):
    """One was running there, the other waited for its turn."""
    begun = tmp_path / "begun"
    monkeypatch.setenv("BEGUN", str(begun))
    node = cluster.add_node(num_cpus=2, num_gpus=2)

    def lose():
        while not begun.exists():
            time.sleep(0.1)
        cluster.remove_node(node, allow_graceful=False)

    loser = threading.Thread(target=lose, daemon=True)
    loser.start()
    assert sorted(sweep("endless", "whole", gpus=2)) == ["made.up/endless-paper-0", "made.up/whole-paper-0"]
    loser.join()
    shown = capsys.readouterr().out
    assert "made.up/endless-paper-0 was lost: " in shown
    assert "the Ray cluster has lost the machines that these runs need" in shown


def test_without_ray_the_error_says_what_to_install(monkeypatch, project):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="pip install -r requirements-ray.txt"):
        ray_sweep.sweep_on_ray("local", {}, minutes=1, cpus=1, gpus=0, in_progress=project)


def test_the_task_needs_no_lib_where_it_runs(project):
    """A machine of the cluster has Python, Ray and the packages, and gets `lib` from the task."""
    cloudpickle = pytest.importorskip("ray").cloudpickle
    cloudpickle.register_pickle_by_value(ray_sweep)
    call = (ray_sweep.run_in_folder, (ray_sweep.read_files(("lib",)), {}, arguments("whole"), time.time() + 60, None))
    program = (
        "import pickle, sys; sys.modules['lib'] = None; "
        "function, given = pickle.load(sys.stdin.buffer); "
        "sys.stdout.buffer.write(pickle.dumps(function(*given)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=cloudpickle.dumps(call), cwd=project, capture_output=True, check=True
    )
    status, output, files = pickle.loads(done.stdout)
    assert status == 0, output
    assert sorted(files) == [
        "data/checkpoints/made.up/whole-paper-0.safetensors",
        "data/results/made.up/whole-paper-0.json",
        "runs/made.up/whole-paper-0/checkpoint.safetensors",
    ]


MADE_UP = """
def load_characters():
    import numpy as np
    packed = np.random.default_rng(0).integers(0, 256, (32, 20, 105, 14), dtype=np.uint8)
    return Characters("omniglot", packed, tuple(f"Made up/{i}" for i in range(32)), "0" * 64, False)
"""
ONE_WANTED = """
from dataclasses import replace
EXPERIMENTS = {"mann.table1": replace(EXPERIMENTS["mann.table1"], wanted=(("mann", 0),))}
"""


def test_the_command_line_does_a_real_run_on_a_cluster_of_this_machine(tmp_path):
    """A copy of the project with made-up characters and one wanted run."""
    pytest.importorskip("ray")
    shutil.copytree(REPOSITORY / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in (("data/characters.py", MADE_UP), ("experiments/__init__.py", ONE_WANTED)):
        path = tmp_path / "lib" / file
        path.write_text(path.read_text() + text)
    environment = os.environ | {"BOOK_CODE_COMMIT": "0123abc", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    environment.pop("BOOK_RESULTS_DIR", None)
    command = [sys.executable, "-m", "lib", "sweep", "--ray", "local", "--profile", "smoke", "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recorded as mann.table1/mann-smoke-0.json" in done.stdout
    record = ledger.read_record(tmp_path / "data" / "results" / "mann.table1" / "mann-smoke-0.json")
    assert record.complete
    assert record.commit == record.trained_by[0]["commit"] == "0123abc"
    assert record.checkpoint["sha256"] == file_digest(tmp_path / record.checkpoint["file"])
    assert (tmp_path / "data" / "traces" / "mann.table1" / "mann-smoke-0.json").exists()
    assert read_details(tmp_path / "runs" / "mann.table1" / "mann-smoke-0" / "checkpoint.safetensors")["update"] == 20
