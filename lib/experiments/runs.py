"""From a config to a record: train, test, keep. What every trained experiment shares, whatever its task."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lib import ledger
from lib.atomic import write_atomically
from lib.config import to_dict
from lib.experiments.base import RunOptions
from lib.methods.online import OnlineLearner
from lib.tasks.seeds import generator
from lib.training import TrainingConfig, pick_device, train
from lib.training.checkpoint import CheckpointError, file_digest, load_checkpoint, read_details, save_checkpoint
from lib.training.loop import TrainingResult


def fresh(build: Callable[[], OnlineLearner], seed: int) -> OnlineLearner:
    """A learner with PyTorch's default initial weights, a function of what is built and the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(seed, "weights", 0).initial_seed())
        return build()


def run_trained(
    experiment: str,
    variant: str,
    profile: str,
    seed: int,
    options: RunOptions,
    *,
    config: Any,
    data: dict[str, Any],
    task: Any,
    build: Callable[[], OnlineLearner],
    test: Callable[[OnlineLearner], dict[str, Any]],
    after: Callable[[ledger.Record, OnlineLearner], object] | None = None,
) -> ledger.Record:
    """Train, test and record one run, going on from where it was left.

    config: a dataclass whose `training` is a TrainingConfig; data: name, digest and kind of the data; task: see
    `train`; build: makes the learner; test: from the trained learner to the record's metrics; after: is called with a
    record that was saved with its checkpoint.
    """
    device = pick_device(options.device)
    name = ledger.record_name(experiment, variant, profile, seed)
    ledger.refuse_stand_in(name, data)  # before the work, not after it
    learner = fresh(build, seed).to(device)
    identity = {"run": name, "config": to_dict(config), "data": data}
    in_progress = options.runs / name / "checkpoint.safetensors"
    _fetch_unfinished(name, in_progress, identity, config.training)
    result = train(
        learner,
        task,
        config.training,
        folder=in_progress.parent,
        identity=identity,
        provenance={"commit": ledger.code_commit(), "machine": ledger.describe_machine(device)},
        unroll=options.unroll,
        progress=options.progress,
        until=math.inf if options.minutes is None else time.monotonic() + 60 * options.minutes,
    )
    if not result.complete:
        # What was learnt after the last checkpoint is not part of the record.
        if result.updates:
            load_checkpoint(in_progress, learner)
        else:
            learner = fresh(build, seed).to(device)
    finished = result.complete or options.record_unfinished
    metrics = test(learner) if finished else {}
    record = ledger.Record(
        experiment=experiment,
        variant=variant,
        profile=profile,
        seed=seed,
        config=to_dict(config),
        metrics=metrics,
        updates=result.updates,
        complete=result.complete,
        seconds=result.seconds,
        machine=ledger.describe_machine(device),
        commit=ledger.code_commit(),
        data=data,
        checkpoint=_keep(learner, name, identity, result, in_progress)
        if finished and options.keep_checkpoint
        else None,
        curve=curve_of(result.log),
        trained_by=read_details(in_progress).get("trained_by") if result.updates else None,
    )
    if finished:
        ledger.save_record(record)
        if options.keep_checkpoint and after:
            after(record, learner)
    return record


def curve_of(log: list[dict[str, Any]]) -> dict[str, Any]:
    """The training log as columns: update, loss, the task's score, and validations at their own updates.

    The score is accuracy by instance, or negative log-likelihood by sample for a regression.
    """
    score = "negative_log_likelihood" if log and "negative_log_likelihood" in log[0] else "accuracy"

    def rounded(summary: dict[str, Any]) -> list[float | None]:
        return [None if value is None else round(value, 4) for value in summary.get(score, [])]

    validated = [line for line in log if "validation" in line]
    return {
        "update": [line["update"] for line in log],
        "loss": [round(line["loss"], 5) for line in log],
        score: [rounded(line) for line in log],
        "validation_update": [line["update"] for line in validated],
        f"validation_{score}": [rounded(line["validation"]) for line in validated],
    }


def _kept_path(name: str) -> Path:
    return ledger.ROOT / "data" / "checkpoints" / f"{name}.safetensors"


def _keep(
    learner: OnlineLearner, name: str, identity: dict[str, Any], result: TrainingResult, in_progress: Path
) -> dict[str, str]:
    path = _kept_path(name)
    if result.complete or not result.updates:
        digest = save_checkpoint(path, learner, {"identity": identity, "update": result.updates})
    else:  # with the optimizer's state, so that the run can go on anywhere
        write_atomically(path, lambda file: file.write(in_progress.read_bytes()))
        digest = file_digest(path)
    return {"file": path.relative_to(ledger.ROOT).as_posix(), "sha256": digest}


def _fetch_unfinished(name: str, in_progress: Path, identity: dict[str, Any], training: TrainingConfig) -> None:
    """Go on from the kept checkpoint of an unfinished run where this machine has none of its own."""
    kept = _kept_path(name)
    if in_progress.exists() or not kept.exists():
        return
    details = read_details(kept)
    same_run = details["identity"] == json.loads(json.dumps({"training": to_dict(training), **identity}))
    if same_run and details["update"] < training.updates:
        write_atomically(in_progress, lambda file: file.write(kept.read_bytes()))


def load_weights(record: ledger.Record, learner: OnlineLearner) -> OnlineLearner:
    """`learner` with the weights that a record keeps. Raises CheckpointError if the file is not the recorded one."""
    if record.checkpoint is None:
        raise CheckpointError(f"{record.name} keeps no checkpoint; run it with --keep-checkpoint")
    path = ledger.ROOT / record.checkpoint["file"]
    load_checkpoint(path, learner)
    if (found := file_digest(path)) != record.checkpoint["sha256"]:
        raise CheckpointError(f"{path} has sha256 {found}, its record says {record.checkpoint['sha256']}; restore it")
    return learner.eval()
