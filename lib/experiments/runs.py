"""From a config to a record: train, test, keep. What every trained experiment shares, whatever its task."""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib import ledger
from lib.atomic import write_atomically
from lib.config import to_dict
from lib.experiments.base import RunOptions
from lib.tasks.seeds import generator
from lib.training import TrainingConfig, distributed, pick_device, train
from lib.training.checkpoint import CheckpointError, file_digest, load_checkpoint, read_details, save_checkpoint
from lib.training.loop import TrainingResult
from lib.training.stacked import train_together


def fresh(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A learner with PyTorch's default initial weights, a function of what is built and the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights", 0).initial_seed())
        return build()


@dataclass(eq=False)
class Run:
    """One run, made ready to be trained, alone or together with others. Raises LedgerError if it must not be recorded.

    Where several processes do it together, the first one alone reads and writes files.
    """

    experiment: str
    variant: str
    profile: str
    seed: int
    options: RunOptions
    config: Any
    """A dataclass whose `training` is a TrainingConfig."""
    data: dict[str, Any]
    """Name and digest of the data, and whether it is a stand-in."""
    task: Any
    """What `lib.training.train` asks of a task."""
    build: Callable[[], nn.Module]
    """Makes the learner."""
    test: Callable[[Any], dict[str, Any]]
    """From the trained learner to the record's metrics."""
    after: Callable[[ledger.Record, Any], object] | None = None
    """Is called with a record that was saved with its checkpoint, and the learner."""
    trained_as: tuple[str, Any] | None = None
    """A name in place of the variant's, and what of the config training depends on, where variants differ in their
    tests alone: whichever runs first trains for all."""

    def __post_init__(self):
        self.device = pick_device(self.options.device)
        self.name = ledger.record_name(self.experiment, self.variant, self.profile, self.seed)
        distributed.in_first(partial(ledger.refuse_stand_in, self.name, self.data))  # before the work, not after it
        self.learner = fresh(self.build, self.seed).to(self.device)
        trained_as, config = self.trained_as or (self.variant, self.config)
        trained = ledger.record_name(self.experiment, trained_as, self.profile, self.seed)
        self.identity = {"run": trained, "config": to_dict(config), "data": self.data}
        self.in_progress = self.options.runs / trained / "checkpoint.safetensors"
        fetch = partial(_fetch_unfinished, self.name, self.in_progress, self.identity, self.config.training)
        distributed.in_first(fetch)

    def training_options(self) -> dict[str, Any]:
        """What training alone and together are told alike."""
        minutes = self.options.minutes
        return {
            "provenance": {"commit": ledger.code_commit(), "machine": ledger.describe_machine(self.device)},
            "unroll": self.options.unroll,
            "progress": self.options.progress,
            "until": math.inf if minutes is None else time.monotonic() + 60 * minutes,
        }

    def record(self, result: TrainingResult) -> ledger.Record | None:
        """Test what was trained; save the record if the run is complete, or if that is not asked for. None in all but
        the first process."""
        learner, options = self.learner, self.options
        if not result.complete:
            # What was learnt after the last checkpoint is not part of the record.
            if result.updates:
                distributed.load_first_checkpoint(self.in_progress, learner)
            else:
                learner = fresh(self.build, self.seed).to(self.device)
        finished = result.complete or options.record_unfinished
        metrics = self.test(learner) if finished else {}
        if not distributed.is_first():
            return None
        keeps = finished and options.keep_checkpoint
        record = ledger.Record(
            experiment=self.experiment,
            variant=self.variant,
            profile=self.profile,
            seed=self.seed,
            config=to_dict(self.config),
            metrics=metrics,
            updates=result.updates,
            complete=result.complete,
            seconds=result.seconds,
            machine=ledger.describe_machine(self.device),
            commit=ledger.code_commit(),
            data=self.data,
            checkpoint=_keep(learner, self.name, self.identity, result, self.in_progress) if keeps else None,
            curve=curve_of(result.log),
            trained_by=read_details(self.in_progress).get("trained_by") if result.updates else None,
        )
        if finished:
            ledger.save_record(record)
            if options.keep_checkpoint and self.after:
                self.after(record, learner)
        return record


def run_alone(run: Run) -> ledger.Record | None:
    """Train, test and record one run, going on from where it was left."""
    folder, training = run.in_progress.parent, run.config.training
    result = train(run.learner, run.task, training, folder=folder, identity=run.identity, **run.training_options())
    return run.record(result)


def run_together(runs: Sequence[Run]) -> list[ledger.Record]:
    """Runs that differ in their seeds alone, trained at once as one batched model; a record for each."""
    results = train_together(
        [run.learner for run in runs],
        [run.task for run in runs],
        runs[0].config.training,
        folders=[run.in_progress.parent for run in runs],
        identities=[run.identity for run in runs],
        **runs[0].training_options(),
    )
    return [run.record(result) for run, result in zip(runs, results, strict=True)]


def curve_of(log: list[dict[str, Any]]) -> dict[str, Any]:
    """The training log as columns: update, loss, the task's score, and validations at their own updates.

    The score is accuracy by instance, or negative log-likelihood by sample for a regression; where the loss is the only
    score, that of validations.
    """
    validated = [line for line in log if "validation" in line]
    losses = {"update": [line["update"] for line in log], "loss": [round(line["loss"], 5) for line in log]}
    validation_updates = [line["update"] for line in validated]
    if log and not {"negative_log_likelihood", "accuracy"} & log[0].keys():
        validation_losses = [round(line["validation"]["loss"], 5) for line in validated]
        return {**losses, "validation_update": validation_updates, "validation_loss": validation_losses}
    score = "negative_log_likelihood" if log and "negative_log_likelihood" in log[0] else "accuracy"

    def rounded(summary: dict[str, Any]) -> list[float | None]:
        return [None if value is None else round(value, 4) for value in summary.get(score, [])]

    return {
        **losses,
        score: [rounded(line) for line in log],
        "validation_update": validation_updates,
        f"validation_{score}": [rounded(line["validation"]) for line in validated],
    }


def recorded(
    experiment: str,
    variant: str,
    profile: str,
    seed: int,
    config: Any,
    metrics: dict[str, Any],
    *,
    data: dict[str, Any],
    device: torch.device,
    seconds: float,
    updates: int = 0,
) -> ledger.Record:
    """Save the record of what was done whole, and not as a `Run`. config: a dataclass."""
    record = ledger.Record(
        experiment=experiment,
        variant=variant,
        profile=profile,
        seed=seed,
        config=to_dict(config),
        metrics=metrics,
        updates=updates,
        complete=True,
        seconds=seconds,
        machine=ledger.describe_machine(device),
        commit=ledger.code_commit(),
        data=data,
    )
    ledger.save_record(record)
    return record


def kept_path(name: str) -> Path:
    """Where the weights that go with a record are."""
    return ledger.ROOT / "data" / "checkpoints" / f"{name}.safetensors"


def _keep(
    learner: nn.Module, name: str, identity: dict[str, Any], result: TrainingResult, in_progress: Path
) -> dict[str, str]:
    path = kept_path(name)
    if result.complete or not result.updates:
        digest = save_checkpoint(path, learner, {"identity": identity, "update": result.updates})
    else:  # with the optimizer's state, so that the run can go on anywhere
        write_atomically(path, lambda file: file.write(in_progress.read_bytes()))
        digest = file_digest(path)
    return {"file": path.relative_to(ledger.ROOT).as_posix(), "sha256": digest}


def _fetch_unfinished(name: str, in_progress: Path, identity: dict[str, Any], training: TrainingConfig) -> None:
    """Go on from the kept checkpoint of an unfinished run where this machine has none of its own."""
    kept = kept_path(name)
    if in_progress.exists() or not kept.exists():
        return
    details = read_details(kept)
    same_run = details["identity"] == json.loads(json.dumps({"training": to_dict(training), **identity}))
    if same_run and details["update"] < training.updates:
        write_atomically(in_progress, lambda file: file.write(kept.read_bytes()))


def restore(record: ledger.Record, config: Any, build: Callable[[], nn.Module], device: str) -> nn.Module | str:
    """What a record trained, from its committed weights; or a sentence on why it is not what the code now has.

    config: what the code has for the record; build: makes what was trained.
    """
    try:
        trained = load_weights(record, fresh(build, record.seed)).to(pick_device(device))
    except CheckpointError as error:
        return str(error)
    if record.config != json.loads(json.dumps(to_dict(config))):
        return f"its config is not the one that the code now has for {record.variant}, {record.profile} profile"
    return trained


def load_weights(record: ledger.Record, learner: nn.Module) -> nn.Module:
    """`learner` with the weights that a record keeps. Raises CheckpointError if the file is not the recorded one."""
    if record.checkpoint is None:
        raise CheckpointError(f"{record.name} keeps no checkpoint; run it with --keep-checkpoint")
    path = ledger.ROOT / record.checkpoint["file"]
    load_checkpoint(path, learner)
    if (found := file_digest(path)) != record.checkpoint["sha256"]:
        raise CheckpointError(f"{path} has sha256 {found}, its record says {record.checkpoint['sha256']}; restore it")
    return learner.eval()
