"""One training loop for any learner. The n-th batch depends on (seed, n) alone: n and the weights suffice to resume."""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lib.atomic import write_atomically
from lib.methods.online import OnlineLearner
from lib.training.checkpoint import CheckpointError, load_checkpoint, read_details, save_checkpoint
from lib.training.graph import WholeStep, require_cuda
from lib.training.update import Trainable, Update, counters

GRAPHS = ("graph", "compiled-graph")
UNROLLS = ("auto", "plain", "fast", "compiled", *GRAPHS)
COMPILING_PAYS = 3_000  # updates after which compiling for a minute has saved more than a minute


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the paper's where it states them (Santoro et al. 2016, supplement 9)."""

    updates: int = 100_000
    """Minibatches to train on."""
    batch_size: int = 16
    """Episodes in a minibatch (paper: 16)."""
    learning_rate: float = 1e-4
    """RMSprop's step (paper: 1e-4)."""
    decay: float = 0.95
    """RMSprop's decay of the mean square (paper: 0.95)."""
    momentum: float = 0.9
    """RMSprop's momentum (paper: 0.9)."""
    clip: float = 10.0
    """Largest norm of the gradient; larger ones are scaled down to it (paper: silent)."""
    log_every: int = 500
    """Updates averaged in one line of the log."""
    validate_every: int = 5_000
    """Updates between two validations on held-out classes; a multiple of `log_every`."""
    validation_batches: int = 20
    """Minibatches of a validation."""
    checkpoint_every: int = 500
    """Updates between two checkpoints; a multiple of `log_every`."""

    def __post_init__(self):
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every ({self.log_every}), "
                "or a resumed run would average the log's last line over fewer updates"
            )
        if self.validate_every % self.log_every:
            raise ValueError(
                f"validate_every ({self.validate_every}) must be a multiple of log_every ({self.log_every}), "
                "or validations would be left out: a line of the log holds them"
            )


@dataclass(frozen=True)
class TrainingResult:
    """Where a training run stands."""

    updates: int
    complete: bool
    seconds: float
    """Wall time of all the run's processes together."""
    log: list[dict[str, Any]]


class NonFiniteLoss(RuntimeError):
    """The loss or its gradient became infinite or not a number."""


def pick_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA if there is one, else the CPU; other names are PyTorch's. Raises ValueError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"the device {name!r} cannot be used here ({error}); try --device auto or cpu") from error
    return device


def pick_unroll(learner: Trainable, how: str, updates: int) -> tuple[str, Callable | None]:
    """How to do the steps of an episode: its name, and what to hand to `learner` (None: the learner's own `unroll`).

    `plain` is the code beside the equations; `fast` the learner's hand-written form; `compiled` is PyTorch's compiler,
    which takes a minute before the first update; `graph` and `compiled-graph` are the plain and the compiled steps in
    one CUDA graph with the rest of the update. `auto` is `fast` where there is one, else `compiled` if it can be had
    and there are enough updates to pay for it, else `plain`; on a GPU the graph of what it chose. All give the same,
    to rounding. updates: of the whole run, so that a run goes on as it began.

    Raises ValueError for another name, or if what is asked for is not to be had.
    """
    if how not in UNROLLS:
        raise ValueError(f"there is no way {how!r} to unroll; known: {', '.join(UNROLLS)}")
    fast = learner.fast_unroll() if how in ("auto", "fast") else None
    if fast:
        return "fast", fast
    device = next(iter(learner.parameters())).device
    on_gpu = device.type == "cuda"
    if how in GRAPHS:
        require_cuda(device)
    can = any(shutil.which(name) for name in ("g++", "clang++", "c++")) and (find_spec("triton") or not on_gpu)
    pays = can and updates >= COMPILING_PAYS
    asked = how in ("compiled", "compiled-graph")
    compiled = learner.compiled_unroll() if asked or (how == "auto" and pays) else None
    graph = how in GRAPHS or (how == "auto" and on_gpu)
    if compiled:
        return "compiled-graph" if graph else "compiled", compiled
    if asked or how == "fast":
        raise ValueError(f"there is no {how} form of {type(learner).__name__} here; try --unroll auto")
    return "graph" if graph else "plain", None


def make_optimizer(learner: Trainable, config: TrainingConfig) -> torch.optim.Optimizer:
    """RMSprop as the paper's supplement 9.0.1 sets it."""
    return torch.optim.RMSprop(
        learner.parameters(), lr=config.learning_rate, alpha=config.decay, momentum=config.momentum
    )


def train(
    learner: OnlineLearner,
    task,
    config: TrainingConfig,
    *,
    folder: Path | None = None,
    identity: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    unroll: str = "auto",
    progress: bool = True,
    until: float = math.inf,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> TrainingResult:
    """Train `learner` on `task`, going on from the checkpoint in `folder` if there is one.

    task: gives `train.batch(n, size)`, `validation.batch(n, size)`, `loss(logits, batch)` and `tally()`, such as
    `lib.tasks.classification.ClassificationTask`. folder: for `checkpoint.safetensors` and `log.jsonl`; None keeps
    nothing. identity: what the run is (its config, its data's digest); a checkpoint of another identity is refused.
    unroll: how the steps of an episode are done, see `pick_unroll`. provenance: what trains (code, machine); each
    process that goes on with the run adds its own to the checkpoint. until: a `time.monotonic()` after which the run is
    left, to go on at its last checkpoint another time. on_log: is called with each line of the log.

    Raises NonFiniteLoss, and CheckpointError if the folder's checkpoint is damaged or of another run.
    """
    identity = full_identity(config, identity)
    optimizer = make_optimizer(learner, config)
    first, seconds, log, trained_by = resume(folder, learner, optimizer, identity)
    unroll, unroll_steps = pick_unroll(learner, unroll, config.updates)
    trained_by = [*trained_by, {"from_update": first + 1, "unroll": unroll, **(provenance or {})}]
    started, tally = time.monotonic() - seconds, task.tally()
    clip = partial(torch.nn.utils.clip_grad_norm_, list(learner.parameters()), config.clip)
    one_update = Update(learner, optimizer, task.loss, clip, tally, unroll_steps, *counters(first, task.device))
    step = None
    if unroll in GRAPHS:
        step = WholeStep(
            one_update, [task.train], lambda drawn: task.train.compose(*drawn), config.batch_size, capture=True
        )
    learner.train()
    update = first
    bar = tqdm(total=config.updates, initial=first, disable=not progress, unit="update", dynamic_ncols=True)
    with bar:
        for update in range(first + 1, config.updates + 1):
            if step:
                step([update])
            else:
                one_update(task.train.batch(update, config.batch_size))
            bar.update()

            out_of_time = time.monotonic() > until
            log_now = update % config.log_every == 0 or update == config.updates
            if log_now or out_of_time:
                refuse_non_finite(one_update.first_bad.item(), config, identity)
            if log_now:
                line = {"update": update, "seconds": time.monotonic() - started, **tally.summary()}
                if update % config.validate_every == 0 or update == config.updates:
                    line["validation"] = evaluate(learner, task, task.validation, config.validation_batches)
                bar.set_postfix_str(_postfix(line))
                log.append(line)
                if on_log:
                    on_log(line)
                tally.reset()
            if update % config.checkpoint_every == 0 or update == config.updates:
                save(folder, learner, optimizer, identity, update, time.monotonic() - started, log, trained_by)
            if out_of_time:
                break
    learner.eval()
    complete = update == config.updates
    if folder and not complete:  # what was done after the last checkpoint is lost, as after a kill
        update -= update % config.checkpoint_every
        log = [line for line in log if line["update"] <= update]
    return TrainingResult(update, complete, time.monotonic() - started, log)


@torch.no_grad()
def evaluate(learner: OnlineLearner, task, sampler, batches: int, batch_size: int = 16, progress: bool = False) -> dict:
    """The learner's summary (see the task's tally) on the first `batches` batches of a sampler; no weight changes."""
    was_training = learner.training
    learner.eval()
    tally = task.tally()
    for index in tqdm(range(batches), disable=not progress, desc="evaluating", leave=False):
        batch = sampler.batch(index, batch_size)
        logits = learner(batch.xs, batch.ys)
        tally.add(logits, batch, task.loss(logits, batch))
    learner.train(was_training)
    return tally.summary()


def full_identity(config: TrainingConfig, identity: dict[str, Any] | None) -> dict[str, Any]:
    """What a run is, as its checkpoint keeps it."""
    return json.loads(json.dumps({"training": asdict(config), **(identity or {})}))


def refuse_non_finite(first_bad: int, config: TrainingConfig, identity: dict[str, Any]) -> None:
    """Raises NonFiniteLoss if an update of the run was bad."""
    if first_bad <= config.updates:
        raise NonFiniteLoss(
            f"the loss or its gradient was not finite at update {first_bad}; the weights saved before it are kept. "
            f"Config: {json.dumps(identity)}"
        )


def resume(folder, learner, optimizer, identity) -> tuple[int, float, list[dict[str, Any]], list[dict[str, Any]]]:
    """Updates done, seconds, log and provenance of the run in `folder`, whose checkpoint is loaded, or a new run's."""
    if folder is None:
        return 0, 0.0, [], []
    for left_by_a_kill in folder.glob(".*.tmp"):
        left_by_a_kill.unlink()
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0, 0.0, [], []
    details = read_details(path)
    if details["identity"] != identity:
        raise CheckpointError(
            f"{path} is of another run (another config, seed or data); delete the folder or choose another. "
            f"There: {json.dumps(details['identity'])}. Here: {json.dumps(identity)}"
        )
    load_checkpoint(path, learner, optimizer)
    # A kill may have come between the checkpoint and its log.
    _save_log(folder, details["log"])
    unknown = [{"from_update": 1, "unknown": True}]  # trained before checkpoints kept this
    return details["update"], details["seconds"], details["log"], details.get("trained_by", unknown)


def save(folder, learner, optimizer, identity, update, seconds, log, trained_by) -> None:
    """Write checkpoint and log to `folder`, if there is one."""
    if folder is None:
        return
    details = {"identity": identity, "update": update, "seconds": seconds, "log": log, "trained_by": trained_by}
    save_checkpoint(folder / "checkpoint.safetensors", learner, details, optimizer)
    _save_log(folder, log)


def _save_log(folder, log) -> None:
    # Written from the checkpoint's own list, so that it never holds a line of updates that were lost.
    path, text = folder / "log.jsonl", "".join(json.dumps(line) + "\n" for line in log)
    try:
        write_atomically(path, lambda file: file.write(text.encode()))
    except OSError as error:
        raise CheckpointError(f"the log {path} cannot be written: {error.strerror or error}; make room") from error


def _postfix(line: dict[str, Any]) -> str:
    accuracy = line.get("accuracy") or []
    shown = [f"{k}: {accuracy[k - 1]:.0%}" for k in (1, 2, 5, 10) if k <= len(accuracy) and accuracy[k - 1] is not None]
    return f"loss {line['loss']:.3f}" + (f", by instance {', '.join(shown)}" if shown else "")
