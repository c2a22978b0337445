"""One training loop for any learner. The n-th batch depends on (seed, n) alone: n and the weights suffice to resume."""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from tqdm import tqdm

from lib.atomic import write_atomically
from lib.config import added, to_dict
from lib.training import distributed
from lib.training.checkpoint import CheckpointError, load_extra, read_details, save_checkpoint
from lib.training.graph import WholeStep, require_cuda
from lib.training.update import Update, counters

GRAPHS = ("graph", "compiled-graph")
UNROLLS = ("auto", "plain", "fast", "compiled", *GRAPHS)
COMPILING_PAYS = 3_000  # updates after which compiling for a minute has saved more than a minute


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the paper's where it states them (Santoro et al. 2016, supplement 9)."""

    updates: int = 100_000
    """Minibatches to train on."""
    batch_size: int = 16
    """Episodes in a minibatch (paper: 16), of all processes together."""
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
    optimizer: Literal["rmsprop", "adam"] = added("rmsprop")
    """`adam`: with `learning_rate`, and PyTorch's defaults in place of `decay` and `momentum`."""
    wipe_memory: bool = added(True)
    """Begin each episode with an empty memory; False: with the memory that the last episode of its row left."""
    rate_falls_from: float = added(1.0)
    """Share of the updates after which the learning rate falls, in a straight line, to 0 at the end; 1: it stays."""

    def __post_init__(self):
        if not 0 <= self.rate_falls_from <= 1:
            raise ValueError(f"rate_falls_from is a share of the updates, from 0 to 1, not {self.rate_falls_from}")
        if self.optimizer not in ("rmsprop", "adam"):
            raise ValueError(f"there is no optimizer {self.optimizer!r}; known: rmsprop, adam")
        for name in ("updates", "batch_size", "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, it is {getattr(self, name)}")
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


def pick_unroll(learner: Any, how: str, updates: int, capturable: bool = True) -> tuple[str, Callable | None]:
    """How to do the steps of an episode: its name, and what to hand to `learner` (None: the learner's own `unroll`).

    `plain` is the code beside the equations; `fast` the learner's hand-written form; `compiled` is PyTorch's compiler,
    which takes a minute before the first update; `graph` and `compiled-graph` are the plain and the compiled steps in
    one CUDA graph with the rest of the update. `auto` is `fast` where there is one, else `compiled` if it can be had
    and there are enough updates to pay for it, else `plain`; on a GPU the graph of what it chose, if the run is
    `capturable`. All give the same, to rounding. learner: an `OnlineLearner`, or several stacked ones; updates: of the
    whole run, so that a run goes on as it began.

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
        if not capturable:
            raise ValueError(
                "no CUDA graph can hold a run whose episodes grow or are drawn on the CPU, whose memory is not wiped, "
                "whose learning rate falls, or that several processes share; try --unroll auto"
            )
    can = any(shutil.which(name) for name in ("g++", "clang++", "c++")) and (find_spec("triton") or not on_gpu)
    pays = can and updates >= COMPILING_PAYS
    asked = how in ("compiled", "compiled-graph")
    compiled = learner.compiled_unroll() if asked or (how == "auto" and pays) else None
    graph = how in GRAPHS or (how == "auto" and on_gpu and capturable)
    if compiled:
        return "compiled-graph" if graph else "compiled", compiled
    if asked or how == "fast":
        raise ValueError(f"there is no {how} form of {type(learner).__name__} here; try --unroll auto")
    return "graph" if graph else "plain", None


def make_optimizer(learner: Any, config: TrainingConfig) -> torch.optim.Optimizer:
    """RMSprop as the paper's supplement 9.0.1 sets it, or Adam."""
    parameters = list(learner.parameters())
    if config.optimizer == "adam":
        # In one pass over the weights; with ten million of them, as words need, it is eight times faster on a CPU.
        fused = all(parameter.device.type == "cpu" for parameter in parameters)
        return torch.optim.Adam(parameters, lr=config.learning_rate, fused=fused or None)
    return torch.optim.RMSprop(parameters, lr=config.learning_rate, alpha=config.decay, momentum=config.momentum)


def rate_left(config: TrainingConfig, update: int) -> float:
    """The share of the learning rate that an update, counted from 1, still has; see `rate_falls_from`."""
    falls_from = config.rate_falls_from * config.updates
    return 1.0 if update <= falls_from else (config.updates + 1 - update) / (config.updates + 1 - falls_from)


def train(
    learner: nn.Module,
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

    learner: an `OnlineLearner`; with unroll `plain`, any network that is called with (xs, ys, None).
    task: gives `train.batch(n, size)`, `validation.batch(n, size)`, `loss(logits, batch)` and `tally()`, such as
    `lib.tasks.classification.ClassificationTask`. folder: for `checkpoint.safetensors` and `log.jsonl`; None keeps
    nothing. identity: what the run is (its config, its data's digest); a checkpoint of another identity is refused.
    unroll: how the steps of an episode are done, see `pick_unroll`. provenance: what trains (code, machine); each
    process that goes on with the run adds its own to the checkpoint. until: a `time.monotonic()` after which the run is
    left, to go on at its last checkpoint another time. on_log: is called with each line of the log.

    Where several processes train together (see `distributed.joined`), all of them call this. Each takes an equal share
    of every minibatch; loss, gradient, log and tallies are those of the whole one. The first has the folder, the
    progress bar and `on_log`; all return the same, but for the seconds.

    Raises NonFiniteLoss, CheckpointError if the folder's checkpoint is damaged or of another run, and ValueError if the
    processes cannot share a minibatch equally or are not of the same run.
    """
    identity = full_identity(config, identity)
    distributed.check_divides(config.batch_size)
    if distributed.size() > 1 and not config.wipe_memory:
        raise ValueError("a memory that is not wiped belongs to one process; train this run without torchrun")
    if distributed.any_process(distributed.in_first(lambda: identity) != identity):
        raise ValueError("the processes have different configs or data; give all machines the same data and arguments")
    optimizer = make_optimizer(learner, config)
    first, seconds, log, trained_by, memory = resume(folder, learner, optimizer, identity)
    # A graph holds one shape of batch and carries nothing from one to the next.
    drawn_alike = hasattr(task.train, "draw") and hasattr(learner, "episode")
    capturable = config.wipe_memory and distributed.size() == 1 and drawn_alike and config.rate_falls_from == 1
    unroll, unroll_steps = pick_unroll(learner, unroll, config.updates, capturable)
    model = distributed.parallel(learner)
    processes = {"from_update": first + 1, "unroll": unroll, "processes": distributed.size(), **(provenance or {})}
    trained_by = [*trained_by, processes]
    started, tally = time.monotonic() - seconds, task.tally()

    def outputs(batch: Any) -> Any:
        nonlocal memory
        if config.wipe_memory:
            return model(batch.xs, batch.ys, unroll_steps)
        predicted, state = learner.episode(batch.xs, batch.ys, memory, unroll_steps)
        memory = learner.carry_over(state)
        return predicted

    clip = partial(nn.utils.clip_grad_norm_, list(learner.parameters()), config.clip)
    one_update = Update(outputs, optimizer, task.loss, clip, tally, *counters(first, task.device))
    step = None
    if unroll in GRAPHS:
        compose = task.train.compose
        step = WholeStep(one_update, [task.train], lambda drawn: compose(*drawn), config.batch_size, capture=True)
    learner.train()
    update = first
    hidden = not (progress and distributed.is_first())
    bar = tqdm(total=config.updates, initial=first, disable=hidden, unit="update", dynamic_ncols=True)
    with bar:
        for update in range(first + 1, config.updates + 1):
            if config.rate_falls_from < 1:
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * rate_left(config, update)
            if step:
                step([update])
            else:
                one_update(distributed.own_rows(task.train.batch(update, config.batch_size)))
            bar.update()

            out_of_time = until < math.inf and distributed.any_process(time.monotonic() > until)
            log_now = update % config.log_every == 0 or update == config.updates
            if log_now or out_of_time:
                refuse_non_finite(distributed.lowest(one_update.first_bad).item(), config, identity)
            if log_now:
                line = {"update": update, "seconds": time.monotonic() - started, **distributed.summed(tally).summary()}
                if update % config.validate_every == 0 or update == config.updates:
                    line["validation"] = evaluate(
                        learner, task, task.validation, config.validation_batches, wipe_memory=config.wipe_memory
                    )
                bar.set_postfix_str(_postfix(line))
                log.append(line)
                if on_log and distributed.is_first():
                    on_log(line)
                tally.reset()
            if update % config.checkpoint_every == 0 or update == config.updates:
                state = (identity, update, time.monotonic() - started, log, trained_by, memory)
                distributed.in_first(partial(save, folder, learner, optimizer, *state))
            if out_of_time:
                break
    learner.eval()
    complete = update == config.updates
    if folder and not complete:  # what was done after the last checkpoint is lost, as after a kill
        update -= update % config.checkpoint_every
        log = [line for line in log if line["update"] <= update]
    return TrainingResult(update, complete, time.monotonic() - started, log)


@torch.no_grad()
def evaluate(
    learner: nn.Module,
    task,
    sampler,
    batches: int,
    batch_size: int = 16,
    progress: bool = False,
    wipe_memory: bool = True,
) -> dict:
    """The learner's summary (see the task's tally) on the first `batches` batches of a sampler; no weight changes.

    wipe_memory: as in `TrainingConfig`; the memory is empty before the first batch in either case. Processes that train
    together all call this, and divide the batches among them.
    """
    was_training, memory = learner.training, None
    learner.eval()
    tally = task.tally()
    own = range(distributed.rank(), batches, distributed.size())
    for index in tqdm(own, disable=not (progress and distributed.is_first()), desc="evaluating", leave=False):
        batch = sampler.batch(index, batch_size)
        if wipe_memory:
            logits = learner(batch.xs, batch.ys)
        else:
            logits, state = learner.episode(batch.xs, batch.ys, memory)
            memory = learner.carry_over(state)
        tally.add(logits, batch, task.loss(logits, batch))
    learner.train(was_training)
    return distributed.summed(tally).summary()


def full_identity(config: TrainingConfig, identity: dict[str, Any] | None) -> dict[str, Any]:
    """What a run is, as its checkpoint keeps it."""
    return json.loads(json.dumps({"training": to_dict(config), **(identity or {})}))


def refuse_non_finite(first_bad: int, config: TrainingConfig, identity: dict[str, Any]) -> None:
    """Raises NonFiniteLoss if an update of the run was bad."""
    if first_bad <= config.updates:
        raise NonFiniteLoss(
            f"the loss or its gradient was not finite at update {first_bad}; the weights saved before it are kept. "
            f"Config: {json.dumps(identity)}"
        )


def resume(folder, learner, optimizer, identity) -> tuple[int, float, list[dict[str, Any]], list[dict[str, Any]], Any]:
    """Updates, seconds, log, provenance and memory of the run in `folder`, if there is one; its weights are loaded."""
    details = distributed.in_first(partial(_saved_details, folder, identity))
    if details is None:
        return 0, 0.0, [], [], None
    path = folder / "checkpoint.safetensors"
    distributed.load_first_checkpoint(path, learner, optimizer)
    memory = None
    if distributed.is_first() and not TrainingConfig(**identity["training"]).wipe_memory:
        memory = _carried(path, learner)
    # A kill may have come between the checkpoint and its log.
    distributed.in_first(partial(_save_log, folder, details["log"]))
    unknown = [{"from_update": 1, "unknown": True}]  # trained before checkpoints kept this
    return details["update"], details["seconds"], details["log"], details.get("trained_by", unknown), memory


def _carried(path: Path, learner: Any) -> Any:
    like, kept = learner.initial_state(1), load_extra(path)
    if missing := set(like._fields) - kept.keys():
        raise CheckpointError(
            f"{path} lacks parts of the memory that is carried over ({', '.join(sorted(missing))}); "
            "delete it and train again"
        )
    return type(like)(*(kept[name].to(part) for name, part in like._asdict().items()))


def _saved_details(folder, identity) -> dict[str, Any] | None:
    if folder is None:
        return None
    for left_by_a_kill in folder.glob(".*.tmp"):
        left_by_a_kill.unlink()
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return None
    details = read_details(path)
    if details["identity"] != identity:
        raise CheckpointError(
            f"{path} is of another run (another config, seed or data); delete the folder or choose another. "
            f"There: {json.dumps(details['identity'])}. Here: {json.dumps(identity)}"
        )
    return details


def save(folder, learner, optimizer, identity, update, seconds, log, trained_by, memory) -> None:
    """Write checkpoint and log to `folder`, if there is one."""
    if folder is None:
        return
    details = {"identity": identity, "update": update, "seconds": seconds, "log": log, "trained_by": trained_by}
    save_checkpoint(
        folder / "checkpoint.safetensors", learner, details, optimizer, memory._asdict() if memory else None
    )
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
