"""Execute the chapters with papermill, in the order of the table of contents.

    python -m tools.execute --profile smoke --seed 0 --device auto

An executed notebook is kept in `_build/chapters/<profile>-<seed>-<device>/` with a key: the sha256 of everything that
its output depends on. It is used again only while the key is the same. The pages are built from `_build/executed/`, a
copy of `book/` in which each notebook is the executed one.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import sys
import time
import warnings
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import nbformat
import papermill
import torch

from tools.chapters import BUILD, EXECUTED, ROOT, toc_notebooks
from tools.freeze import freeze
from tools.kernel import Manager

SMOKE_CELL_SECONDS = 900  # a cell that hangs must fail by name, not by the time limit of the whole job


class ChapterError(RuntimeError):
    """A chapter did not run to its end."""


def files_digest(folders: list[Path]) -> str:
    """sha256 over the names and bytes of all files in `folders`, byte-compiled and hidden ones left out."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            hidden = any(part.startswith(".") or part == "__pycache__" for part in name.parts)
            if path.is_file() and not hidden:
                digest.update(f"{name.as_posix()}\0{path.stat().st_size}\0".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()


@cache
def characters() -> tuple[str, str]:
    """Name and digest of the characters that the chapters will find; decoded here, before any chapter is timed."""
    from lib.data import load_characters

    with warnings.catch_warnings(record=True):  # the line printed below says it
        warnings.simplefilter("always")
        found = load_characters()
    print(f"data: {found.name}{' (a stand-in: the real characters are not here)' if found.is_standin else ''}")
    return found.name, found.digest


def chapter_key(notebook: Path, parameters: dict, shared: str) -> str:
    """The key of one executed chapter; `shared` is the part that all chapters have in common (`shared_digest`)."""
    parts = [shared, json.dumps(parameters, sort_keys=True), hashlib.sha256(notebook.read_bytes()).hexdigest()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def shared_digest() -> str:
    """What every chapter depends on: code, committed data, pins, Python, a GPU or none, which characters there are."""
    tools = [ROOT / "tools" / name for name in ("execute.py", "freeze.py", "kernel.py")]
    code = files_digest([ROOT / "lib", ROOT / "data", ROOT / "requirements.txt", *tools])
    return "\0".join([code, platform.python_version(), str(torch.cuda.is_available()), *characters()])


def machine(device: str) -> dict:
    """What ran a chapter whose `device` parameter was `device`: kind ("cpu" or "gpu"), description, versions."""
    gpu = device != "cpu" and torch.cuda.is_available()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        models = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    description = f"{cores} {'core' if cores == 1 else 'cores'}, {name}"
    if gpu:
        description = f"{torch.cuda.get_device_name()}, {description}"
    return {
        "kind": "gpu" if gpu else "cpu",
        "description": description,
        "cores": cores,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def stored_path(name: str, parameters: dict) -> Path:
    """Where the executed form of chapter `name` is kept for these parameters."""
    return BUILD / "chapters" / "-".join(str(value) for value in parameters.values()) / name


def read_valid(path: Path, key: str) -> nbformat.NotebookNode | None:
    """The stored notebook, if it is there, whole, and was executed under `key`."""
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.reader.NotJSONError):
        return None
    return notebook if notebook.metadata.get("executed", {}).get("key") == key else None


def execute_chapter(
    name: str, parameters: dict, *, force: bool = False, shared: str | None = None
) -> tuple[Path, bool]:
    """Execute `name` (a path from the root) unless a valid execution is stored: (its path, whether it was stored).

    Raises ChapterError, which names the chapter and the cell and holds the traceback; the notebook as far as it came is
    then in `_build/failed/`.
    """
    source = ROOT / name
    stored = stored_path(name, parameters)
    key = chapter_key(source, parameters, shared or shared_digest())
    if not force and read_valid(stored, key):
        return stored, True

    failed = BUILD / "failed" / name
    for folder in (stored.parent, failed.parent):
        folder.mkdir(parents=True, exist_ok=True)
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    before = {variable: os.environ.get(variable) for variable in ("PYTHONPATH", "MPLBACKEND")}
    os.environ["PYTHONPATH"] = python_path  # the kernel starts in the chapter's folder, as a reader's does
    os.environ.pop("MPLBACKEND", None)  # the kernel's inline backend draws the figures
    start = time.perf_counter()
    try:
        papermill.execute_notebook(
            source,
            failed,
            parameters=parameters,
            cwd=source.parent,
            kernel_name="python3",
            language="python",
            progress_bar=False,
            execution_timeout=SMOKE_CELL_SECONDS if parameters["profile"] == "smoke" else None,
            coalesce_streams=True,
            kernel_manager_class=Manager,
            extra_arguments=[
                "--log-level=ERROR"
            ],  # else it warns that its connection, on this machine, is not encrypted
        )
    except papermill.PapermillExecutionError as error:
        raise ChapterError(
            f"{name}: cell {error.cell_index} (In [{error.exec_count}]) failed\n\n{error.source}\n\n"
            + "\n".join(error.traceback)
        ) from None
    except Exception as error:  # the kernel died, a cell ran out of time, the notebook is not one
        raise ChapterError(f"{name}: {type(error).__name__}: {error}") from error
    finally:
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
    seconds = time.perf_counter() - start

    notebook = freeze(nbformat.read(failed, as_version=4))
    notebook.metadata["executed"] = {
        "key": key,
        "seconds": round(seconds, 2),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(parameters["device"]),
        **parameters,
    }
    temporary = stored.with_suffix(".partial")
    nbformat.write(notebook, temporary)
    os.replace(temporary, stored)
    failed.unlink()
    return stored, False


def assemble(executed: dict[str, Path]) -> None:
    """Make `_build/executed`: `book/` and the table of contents, each notebook in its executed form."""
    shutil.rmtree(EXECUTED, ignore_errors=True)
    ignore = shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints")
    shutil.copytree(ROOT / "book", EXECUTED / "book", ignore=ignore)
    shutil.copy2(ROOT / "_toc.yml", EXECUTED / "_toc.yml")
    timings = {}
    for name, path in executed.items():
        shutil.copy2(path, EXECUTED / name)
        timings[name.removesuffix(".ipynb")] = nbformat.read(path, as_version=4).metadata["executed"]
    (EXECUTED / "timings.json").write_text(json.dumps(timings, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="smoke", choices=["smoke", "short", "paper"])
    parser.add_argument("--seed", default=0, type=int)
    parser.add_argument("--device", default="auto", help='"auto", "cpu", "cuda"')
    parser.add_argument("--force", action="store_true", help="execute again what is stored and still valid")
    options = parser.parse_args()
    parameters = {"profile": options.profile, "seed": options.seed, "device": options.device}

    shared, executed, total = shared_digest(), {}, time.perf_counter()
    print(
        f"executing the chapters: profile {options.profile}, seed {options.seed}, device {options.device}", flush=True
    )
    for name in toc_notebooks():
        print(f"  {name} ... ", end="", flush=True)
        try:
            executed[name], was_stored = execute_chapter(name, parameters, force=options.force, shared=shared)
        except ChapterError as error:
            text = str(error) if sys.stdout.isatty() else re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # colours
            print(f"FAILED\n\n{text}\n\nThe notebook as far as it came: _build/failed/{name}", flush=True)
            return 1
        seconds = nbformat.read(executed[name], as_version=4).metadata["executed"]["seconds"]
        print(f"{seconds:.1f} s{' (unchanged, kept from an earlier run)' if was_stored else ''}", flush=True)
    assemble(executed)
    print(f"  all chapters: {time.perf_counter() - total:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
