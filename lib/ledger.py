"""The ledger: what was run here, and what the papers report.

A record is one JSON file, `data/results/<experiment>/<variant>-<profile>-<seed>.json`, written by `save_record`,
never by hand. The papers' numbers are in `data/paper/<method>.json`. The book's tables come from here alone.
"""

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lib.atomic import write_atomically

ROOT = Path(__file__).resolve().parent.parent
FORMAT = 1
# Two-sided 95% quantiles of Student's t for 1, 2, ... degrees of freedom; beyond the list, an expansion in 1/degrees.
T_QUANTILES = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


class LedgerError(RuntimeError):
    """A record is missing, damaged or cannot be written; the message names it and says what to do."""


@dataclass(frozen=True)
class Record:
    """One finished or unfinished run."""

    experiment: str
    variant: str
    profile: str
    seed: int
    config: dict[str, Any]
    """All that determines the run besides seed and data."""
    metrics: dict[str, Any]
    """Test scores with their counts."""
    updates: int
    """Updates done; fewer than asked for if the run is not complete."""
    complete: bool
    seconds: float
    """Wall time of training; of the test, where nothing is trained."""
    machine: dict[str, Any]
    """That tested and recorded: device, its threads, torch and Python versions."""
    commit: str | None
    """Of the code that tested and recorded; ends in `+` if files differed from it."""
    data: dict[str, Any]
    """Name and sha256 of the data, and whether it is a stand-in."""
    checkpoint: dict[str, str] | None = None
    """File (relative to the project) and sha256 of the committed weights, if they are."""
    curve: dict[str, Any] | None = None
    """The training log, by update."""
    trained_by: list[dict[str, Any]] | None = None
    """Code, machine and number of processes each time that the run was begun or taken up again, and from which update
    on; None where this was not kept."""
    format: int = FORMAT

    @property
    def name(self) -> str:
        """Such as `mann.table1/mann-paper-0`."""
        return record_name(self.experiment, self.variant, self.profile, self.seed)


def record_name(experiment: str, variant: str, profile: str, seed: int) -> str:
    """The name of a run, also that of its files."""
    return f"{experiment}/{variant}-{profile}-{seed}"


def results_dir() -> Path:
    """Where records are: `data/results` of the project, or what `BOOK_RESULTS_DIR` names."""
    return Path(os.environ.get("BOOK_RESULTS_DIR") or ROOT / "data" / "results")


def save_record(record: Record) -> Path:
    """Write a record, replacing an older one of the same run. Returns its path.

    Raises LedgerError if it cannot be written, if it holds nan or infinity, which JSON has no words for, or if a
    stand-in's record would replace one of the real data.
    """
    refuse_stand_in(record.name, record.data)
    path, content = results_dir() / f"{record.name}.json", asdict(record)
    if odd := _not_finite(content):
        raise LedgerError(
            f"the record {record.name} is not written: {', '.join(odd)} is no number; None may stand there"
        )
    text = json.dumps(content, indent=None, separators=(", ", ": "), allow_nan=False)
    try:
        write_atomically(path, lambda file: file.write(text.encode() + b"\n"))
    except OSError as error:
        raise LedgerError(f"the record {path} cannot be written: {error.strerror or error}; make room") from error
    return path


def refuse_stand_in(name: str, data: dict[str, Any]) -> None:
    """Raises LedgerError if a run on stand-in data would replace a record of the real data."""
    path = results_dir() / f"{name}.json"
    if data["is_standin"] and path.exists() and not read_record(path).data["is_standin"]:
        raise LedgerError(
            f"{path} was made with the real data and is not replaced by a run on the stand-in {data['name']!r}; "
            "set BOOK_DATA_DIR to the folder of the real data, or BOOK_RESULTS_DIR to another folder for records"
        )


def read_record(path: Path) -> Record:
    """Read one record. Raises LedgerError if the file is not a record of this format."""
    try:
        content = json.loads(path.read_text(), parse_constant=_no_number)
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, expected {FORMAT}")
        return Record(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LedgerError(
            f"{path} is not a record ({error}); restore it from the repository or run it again"
        ) from error


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _not_finite(value: Any, where: str = "") -> list[str]:
    """Where in a record's content nan or infinity is, such as `metrics.rows[2].loss`."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [where]
    if isinstance(value, dict):
        parts = [(f"{where}.{key}".lstrip("."), each) for key, each in value.items()]
    elif isinstance(value, (list, tuple)):
        parts = [(f"{where}[{i}]", each) for i, each in enumerate(value)]
    else:
        return []
    return [name for place, each in parts for name in _not_finite(each, place)]


def load_records(experiment: str | None = None, variant: str | None = None, profile: str | None = None) -> list[Record]:
    """All records, or those of an experiment, variant and profile, sorted by name and seed."""
    records = [read_record(path) for path in results_dir().glob(f"{experiment or '*'}/*.json")]
    wanted = [r for r in records if variant in (None, r.variant) and profile in (None, r.profile)]
    return sorted(wanted, key=lambda r: (r.experiment, r.variant, r.profile, r.seed))


def whole_records(experiment: str, variant: str, profile: str) -> list[Record]:
    """The records of finished runs on the real data, sorted by seed: those that a mean or a comparison may use."""
    found = load_records(experiment, variant, profile)
    return [record for record in found if record.complete and not record.data["is_standin"]]


def find_record(experiment: str, variant: str, profile: str, seed: int) -> Record | None:
    """The record of one run, or None."""
    path = results_dir() / f"{record_name(experiment, variant, profile, seed)}.json"
    return read_record(path) if path.exists() else None


def best_record(
    experiment: str, variant: str, seed: int = 0, profiles: Iterable[str] = ("paper", "short")
) -> Record | None:
    """The record of a run's first of these profiles, of the real data; None if there is none."""
    records = (find_record(experiment, variant, profile, seed) for profile in profiles)
    return next((record for record in records if record and not record.data["is_standin"]), None)


def shared_profile(runs: Iterable[tuple[str, str]], profiles: Iterable[str] = ("paper", "short")) -> str | None:
    """The first of these profiles of which all runs, (experiment, variant), have a record: for a fair comparison."""
    runs = list(runs)
    return next((each for each in profiles if all(best_record(*run, profiles=(each,)) for run in runs)), None)


def paper_numbers(method: str) -> dict[str, Any]:
    """What a paper reports, from `data/paper/<method>.json`. Raises LedgerError for an unknown method."""
    path = ROOT / "data" / "paper" / f"{method}.json"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.json")))
        raise LedgerError(f"there is no {path}; known: {known}")
    return json.loads(path.read_text())


def mean_and_interval(values: list[float]) -> tuple[float, float | None]:
    """The mean and the half-width of its 95% interval over seeds (Student's t); None for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    degrees = len(values) - 1
    z = 1.95996
    expansion = z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2)
    quantile = T_QUANTILES[degrees - 1] if degrees <= len(T_QUANTILES) else expansion
    return mean, quantile * deviation / len(values) ** 0.5


def describe_machine(device: torch.device) -> dict[str, Any]:
    """What a record says of the machine: device name, threads, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def code_commit() -> str | None:
    """The commit of the code, with a `+` if tracked files of `lib` differ from it; None outside a repository.

    `BOOK_CODE_COMMIT` names it where the code was sent without its repository.
    """
    if sent := os.environ.get("BOOK_CODE_COMMIT"):
        return sent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout

    try:
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "lib").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
