"""What an experiment is: a table or figure of a paper, its variants and its profiles."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import ledger
from lib.report import Table

PROFILES = ("smoke", "short", "paper")


@dataclass(frozen=True)
class RunOptions:
    """How a run is done; none of this changes what is computed, but for rounding."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1 ..."""
    unroll: str = "auto"
    """How the steps of an episode are done; see `lib.training.loop.pick_unroll`."""
    progress: bool = True
    """Show a progress bar."""
    minutes: float | None = None
    """Stop after so many minutes, to be resumed later."""
    record_unfinished: bool = False
    """Also evaluate and record a run that the time limit stopped."""
    keep_checkpoint: bool = False
    """Keep the trained weights under data/checkpoints, to be committed with the record."""
    runs: Path = ledger.ROOT / "runs"
    """Folder of checkpoints of runs in progress."""


@dataclass(frozen=True)
class Experiment:
    """One table or figure."""

    name: str
    """Such as `mann.table1`."""
    paper: str
    title: str
    variants: tuple[str, ...]
    """Its rows or curves."""
    run: Callable[[str, str, int, RunOptions], ledger.Record | None] | None
    """(variant, profile, seed, options) to a record, which is saved if the run is complete; None in all but the first
    of several processes that train together. None itself if `drawn_from`."""
    config: Callable[[str, str], dict[str, Any]]
    """(variant, profile) to everything that determines a run besides seed and data."""
    table: Callable[[], Table]
    """The paper's numbers beside the ledger's."""
    costs: dict[str, str]
    """Profile to what one run takes, a rough bound in words; records hold measured times."""
    wanted: tuple[tuple[str, int], ...] = ()
    """(variant, seed) to sweep, most wanted first."""
    verify: Callable[[ledger.Record, str], tuple[bool | None, str]] | None = None
    """(record, device) to whether its committed checkpoint scores as recorded (None: its data is not here), and a
    sentence on it."""
    run_together: Callable[[str, str, list[int], RunOptions], list[ledger.Record]] | None = None
    """Like `run` for several seeds, trained at once as one batched model; a record for each."""
    drawn_from: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Variant to the (experiment, variant) whose records it shows, if it needs no runs of its own."""

    @property
    def profiles(self) -> tuple[str, ...]:
        """The profiles, each a config of the same code."""
        return PROFILES

    def check(self, variant: str, profile: str) -> None:
        """Raises ValueError for a variant or profile that does not exist."""
        if variant not in self.variants:
            raise ValueError(f"{self.name} has no variant {variant!r}; known: {', '.join(self.variants)}")
        if profile not in PROFILES:
            raise ValueError(f"there is no profile {profile!r}; known: {', '.join(PROFILES)}")
