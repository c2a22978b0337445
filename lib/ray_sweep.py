"""The runs of a sweep on a Ray cluster, whose machines need not share a file system.

A task is given the code and what there is of its run (the checkpoint in progress, an unfinished record) as bytes. It
calls `python -m lib run` in a folder of its own and hands back the files that came of it, finished or not. Each machine
needs the packages of requirements.txt and finds the data as usual: set BOOK_DATA_DIR there.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lib import ledger
from lib.atomic import write_atomically
from lib.ledger import LedgerError

CODE = ("lib", "data/paper")
MADE = ("runs", "data/checkpoints", "data/traces", "data/results")  # a record last: it names the others
POLL = 2.0  # seconds


def sweep_on_ray(
    address: str, runs: dict[str, list[str]], *, minutes: float, cpus: int, gpus: float, in_progress: Path
) -> list[str]:
    """Do `runs`, a record's name to the arguments of `python -m lib`, on a Ray cluster; the names of those that failed.

    address: as `ray.init` takes it, such as `auto` or `ray://host:10001`; `local` starts Ray here. cpus, gpus: of each
    run; a share of a GPU lets several share it. in_progress: this machine's folder of runs in progress. Runs stop by
    the clock of their machine. Raises ValueError if Ray is missing, does not answer, or has no machine large enough;
    LedgerError if a file that came back cannot be written.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read as Ray is imported
    try:
        import ray
    except ImportError as error:
        raise ValueError("--ray needs Ray, which is not installed: pip install -r requirements-ray.txt") from error
    until = time.time() + 60 * minutes
    # The cluster's machines have no `lib` until a task has unpacked it.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    started_here = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address, log_to_driver=False, **started_here)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ValueError(
            f"no Ray cluster can be used at {address!r} ({error}); name another, or start one here with --ray local"
        ) from error

    def large_enough() -> bool:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return any(m.get("CPU", 0) >= cpus and m.get("GPU", 0) >= gpus for m in machines)

    try:
        if not large_enough():
            raise ValueError(
                f"no machine of the Ray cluster has {cpus} CPUs and {gpus} GPUs; ask for less with --threads and "
                "--gpus-per-run"
            )
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run_in_folder)
        code, commit = ray.put(read_files(CODE)), ledger.code_commit()
        waiting = {
            task.remote(code, files_of(name, in_progress), arguments, until, commit): name
            for name, arguments in runs.items()
        }
        failed = []
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=POLL)
            for reference in done:
                name = waiting.pop(reference)
                try:
                    status, output, files = ray.get(reference)
                except ray.exceptions.RayError as error:
                    print(f"{name} was lost: {(str(error).strip() or repr(error)).splitlines()[-1]}", flush=True)
                    failed.append(name)
                    continue
                print(output, end="", flush=True)
                failed += [name] if status else []
                bring_home(files, in_progress)
            if waiting and not large_enough():  # what is left would wait for ever
                failed += waiting.values()
                print("the Ray cluster has lost the machines that these runs need", flush=True)
                break
        return failed
    finally:
        ray.shutdown()


def read_files(folders: tuple[str, ...]) -> dict[str, bytes]:
    """The project's files in some folders, by their path in the project."""
    paths = [path for folder in folders for path in (ledger.ROOT / folder).rglob("*") if path.is_file()]
    return {p.relative_to(ledger.ROOT).as_posix(): p.read_bytes() for p in paths if "__pycache__" not in p.parts}


def files_of(name: str, in_progress: Path) -> dict[str, bytes]:
    """What this machine has of a run, by the paths of a fresh project: enough to go on with it elsewhere."""
    files = (f"runs/{name}/checkpoint.safetensors", f"data/checkpoints/{name}.safetensors", f"data/results/{name}.json")
    return {file: path.read_bytes() for file in files if (path := _place(file, in_progress)).exists()}


def run_in_folder(
    code: dict[str, bytes], own: dict[str, bytes], arguments: list[str], until: float, commit: str | None
) -> tuple[int, str, dict[str, bytes]]:
    """The task: call `python -m lib` with `arguments` where only these files are. Needs nothing of `lib` itself.

    until: a `time.time()` to stop at. Returns the exit status, the output, and the files that are new or were changed.
    """
    minutes = (until - time.time()) / 60
    if minutes <= 0:
        return 0, "", {}
    given = code | own
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, content in given.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-m", "lib", *arguments, "--minutes", f"{minutes:.3f}", "--runs", str(root / "runs")],
            cwd=root,
            env=os.environ
            | {"BOOK_RESULTS_DIR": str(root / "data" / "results")}
            | ({"BOOK_CODE_COMMIT": commit} if commit else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        paths = [path for made in MADE for path in (root / made).rglob("*") if path.is_file()]
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    return done.returncode, done.stdout, {name: c for name, c in files.items() if given.get(name) != c}


def bring_home(files: dict[str, bytes], in_progress: Path) -> None:
    """Put what came back in its place, each file whole or not at all. Raises LedgerError."""
    for name, content in files.items():
        path = _place(name, in_progress)
        try:
            write_atomically(path, lambda file, content=content: file.write(content))
        except OSError as error:
            raise LedgerError(f"{path}, which came back from the Ray cluster, cannot be written: {error}") from error


def _place(name: str, in_progress: Path) -> Path:
    for folder, place in (("runs/", in_progress), ("data/results/", ledger.results_dir())):
        if name.startswith(folder):
            return place / name.removeprefix(folder)
    return ledger.ROOT / name
