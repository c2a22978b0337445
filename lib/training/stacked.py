"""Several learners of one config, each with its own seed, trained at once as one batched model.

A GPU does eight small products in about the time of one. Every parameter gets a leading dimension, one entry a learner;
each learner keeps its own batches, its own norm of the gradient, its own score and its own checkpoint, so that it ends
where it would have ended alone, to rounding, and can go on alone.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from tqdm import tqdm

from lib.methods import online
from lib.methods.online import OnlineLearner
from lib.training import distributed, loop
from lib.training.graph import WholeStep
from lib.training.loop import GRAPHS, TrainingConfig, TrainingResult
from lib.training.update import Update, counters


class _Method(nn.Module):
    """One method of a learner as a module, which `functional_call` asks for."""

    def __init__(self, learner: OnlineLearner, name: str):
        super().__init__()
        self.learner, self.name = learner, name

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.learner, self.name)(*arguments)


class StackedLearners:
    """Learners side by side: S of them take (S, B, T, features) and (S, B, T), and give logits (S, B, T, classes).

    Raises ValueError for learners that differ in more than their weights, or that hold a network of PyTorch's which
    cannot be stacked (LSTM, GRU and RNN).
    """

    def __init__(self, learners: Sequence[OnlineLearner]):
        if any(isinstance(module, nn.RNNBase) for module in learners[0].modules()):
            raise ValueError(f"{type(learners[0]).__name__} holds a recurrent network of PyTorch's, train it alone")
        try:
            stacked, _ = stack_module_state(list(learners))
        except RuntimeError as error:
            raise ValueError(f"only learners of one config can be trained together ({error})") from error
        self.count = len(learners)
        self.named = {
            f"learner.{name}": nn.Parameter(tensor.detach(), tensor.requires_grad) for name, tensor in stacked.items()
        }
        shape_of_one = copy.deepcopy(learners[0]).to("meta")
        self._methods = {name: _Method(shape_of_one, name) for name in ("prepare", "unroll", "read_out")}

    def parameters(self) -> list[nn.Parameter]:
        """In the order of one learner's, each (S, ...)."""
        return list(self.named.values())

    def __call__(self, xs: Tensor, ys: Tensor, unroll: Callable | None = None) -> Tensor:
        outputs, _ = (unroll or self.unroll)(*self._each("prepare", xs, ys))
        return self._each("read_out", outputs)

    def unroll(self, projected: Float[Tensor, "learners batch time projected"], state: Any) -> tuple[Tensor, Any]:
        """Each learner's `unroll`."""
        return self._each("unroll", projected, state)

    def fast_unroll(self) -> None:
        """None: it is for one learner on a CPU."""
        return None

    def compiled_unroll(self) -> Callable:
        """`unroll` compiled by PyTorch, some steps at a time, all learners at once."""
        compiled = torch.compile(self.unroll, dynamic=False)

        def unroll(projected: Tensor, state: Any) -> tuple[Tensor, Any]:
            outputs = []
            for chunk in projected.split(online.CHUNK, dim=2):
                output, state = compiled(chunk, state)
                outputs.append(output)
            return torch.cat(outputs, dim=2), state

        return unroll

    def _each(self, method: str, *arguments: Any) -> Any:
        def call(weights, *own):
            return functional_call(self._methods[method], weights, own)

        return vmap(call)(self.named, *arguments)


def clip_each(parameters: Iterable[nn.Parameter], largest: float) -> Float[Tensor, " learners"]:
    """Scale each learner's gradient down to the norm `largest`, as `clip_grad_norm_` does for one. Gives the norms."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norms = torch.stack([gradient.reshape(len(gradient), -1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    scale = (largest / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.ndim - 1)))
    return norms


def compose_each(sampler: Any, numbers: list[tuple[Tensor, ...]]) -> Any:
    """One batch of all learners, each field (S, B, ...), from the random numbers that each learner's sampler drew."""
    batch = sampler.compose(tuple(torch.cat(same) for same in zip(*numbers, strict=True)))
    return type(batch)(*(field.unflatten(0, (len(numbers), -1)) for field in batch))


@dataclass(frozen=True)
class _Tallies:
    each: list[Any]

    def add(self, logits: Tensor, batch: Any, loss: Tensor) -> None:
        for index, tally in enumerate(self.each):
            tally.add(logits[index], type(batch)(*(field[index] for field in batch)), loss[index])


class _Member:
    """One of the learners that are trained together, with what `train` keeps of its run."""

    def __init__(self, learner: OnlineLearner, task: Any, config: TrainingConfig, folder: Path | None, identity: dict):
        self.learner, self.task, self.config, self.folder = learner, task, config, folder
        self.identity = loop.full_identity(config, identity)
        self.optimizer = loop.make_optimizer(learner, config)
        resumed = loop.resume(folder, learner, self.optimizer, self.identity)
        self.number, self.seconds, self.log, self.trained_by, _ = resumed
        self.tally = task.tally()
        self.started = time.monotonic() - self.seconds

    def is_complete(self) -> bool:
        return self.number >= self.config.updates

    def is_due(self) -> bool:
        """Whether this update ends a line of its log."""
        return self.number % self.config.log_every == 0 or self.number == self.config.updates

    def keep(self) -> None:
        """Write the line of the log and, if it is time, validate and write the checkpoint."""
        self.seconds = time.monotonic() - self.started
        line = {"update": self.number, "seconds": self.seconds, **self.tally.summary()}
        self.tally.reset()
        last = self.number == self.config.updates
        if last or self.number % self.config.validate_every == 0:
            validation = (self.learner, self.task, self.task.validation, self.config.validation_batches)
            line["validation"] = loop.evaluate(*validation)
        self.log.append(line)
        if last or self.number % self.config.checkpoint_every == 0:
            state = (self.number, self.seconds, self.log, self.trained_by, None)
            loop.save(self.folder, self.learner, self.optimizer, self.identity, *state)

    def result(self) -> TrainingResult:
        self.learner.eval()
        update, log = min(self.number, self.config.updates), self.log
        if self.folder and not self.is_complete():  # what was done after the last checkpoint is lost
            update -= update % self.config.checkpoint_every
            log = [line for line in log if line["update"] <= update]
        return TrainingResult(update, self.is_complete(), self.seconds, log)


def train_together(
    learners: Sequence[OnlineLearner],
    tasks: Sequence[Any],
    config: TrainingConfig,
    *,
    folders: Sequence[Path | None] | None = None,
    identities: Sequence[dict[str, Any]] | None = None,
    provenance: dict[str, Any] | None = None,
    unroll: str = "auto",
    progress: bool = True,
    until: float = math.inf,
) -> list[TrainingResult]:
    """`lib.training.loop.train` for several learners of one config at once; a result for each.

    tasks: one for each learner, alike but for the seed of `train`, on one bank of images; their samplers have `draw`
    and `compose` (see `lib.tasks.episodes.EpisodeSampler`). folders, identities: one for each learner, as in `train`.
    Each learner goes on from its own checkpoint, also from one that it reached alone, and they need not stand at the
    same update. The other arguments are `train`'s. `seconds` of a result is the time that all of them took together.

    Raises ValueError for learners that cannot be stacked, NonFiniteLoss if that happens to any of them, and
    CheckpointError as `train` does.
    """
    folders, identities = folders or [None] * len(learners), identities or [{}] * len(learners)
    each = zip(learners, tasks, folders, identities, strict=True)
    members = [_Member(learner, task, config, *run) for learner, task, *run in each]
    waiting = [member for member in members if not member.is_complete()]
    if waiting:
        _train(waiting, config, provenance or {}, unroll, progress, until)
    return [member.result() for member in members]


def _train(members: list[_Member], config: TrainingConfig, provenance: dict, unroll: str, progress: bool, until: float):
    """Until the last one is complete. One that is ahead is kept when it is complete, and then runs idle."""
    tasks, samplers = [member.task for member in members], [member.task.train for member in members]
    if distributed.size() > 1:
        raise ValueError("seeds are trained together in one process; leave torchrun or --together out")
    if not config.wipe_memory:
        raise ValueError("memories that are not wiped are trained one by one; leave --together out")
    if config.rate_falls_from < 1:
        raise ValueError("learners whose learning rate falls are trained one by one; leave --together out")
    if not all(hasattr(sampler, "draw") for sampler in samplers):
        raise ValueError("these episodes are drawn for one seed at a time; leave --together out")
    if any(sampler.bank is not samplers[0].bank or sampler.config != samplers[0].config for sampler in samplers):
        raise ValueError("learners that are trained together need episodes of one config from one bank of images")
    stack = StackedLearners([member.learner for member in members])
    optimizer = loop.make_optimizer(stack, config)
    _stack_optimizers(stack, optimizer, members)
    unroll, unroll_steps = loop.pick_unroll(stack, unroll, config.updates)
    for member in members:
        part = {"from_update": member.number + 1, "unroll": unroll, "together": len(members), **provenance}
        member.trained_by = [*member.trained_by, part]
        member.learner.train()
    update = Update(
        lambda batch: stack(batch.xs, batch.ys, unroll_steps),
        optimizer,
        vmap(tasks[0].loss),
        partial(clip_each, stack.parameters(), config.clip),
        _Tallies([member.tally for member in members]),
        *counters([member.number for member in members], tasks[0].device),
    )
    step = WholeStep(update, samplers, partial(compose_each, samplers[0]), config.batch_size, unroll in GRAPHS)
    slowest = min(members, key=lambda member: member.number)
    bar = tqdm(total=config.updates, initial=slowest.number, disable=not progress, unit="update", dynamic_ncols=True)
    with bar:
        while not slowest.is_complete():
            step([member.number + 1 for member in members])
            for member in members:
                member.number += 1
            bar.update()
            due, out_of_time = [member for member in members if member.is_due()], time.monotonic() > until
            if due or out_of_time:
                for member, first_bad in zip(members, update.first_bad.tolist(), strict=True):
                    loop.refuse_non_finite(first_bad, member.config, member.identity)
                _unstack(stack, optimizer, members)
            for member in due:
                if member.number <= config.updates:
                    member.keep()
            if due:
                losses = (f"{member.log[-1]['loss']:.3f}" for member in members if member.log)
                bar.set_postfix_str("losses " + ", ".join(losses))
            if out_of_time:
                break
    for member in members:
        if not member.is_complete():
            member.seconds = time.monotonic() - member.started


@torch.no_grad()
def _stack_optimizers(stack: StackedLearners, optimizer: torch.optim.Optimizer, members: list[_Member]) -> None:
    """RMSprop and Adam work on each number alone, so that states side by side are the state of the learners side by
    side; but Adam counts its updates."""
    if all(member.number == 0 for member in members):
        return
    if members[0].config.optimizer == "adam" and len({member.number for member in members}) > 1:
        raise ValueError("with Adam, seeds that stand at different updates cannot go on together: run them one by one")
    for index, parameter in enumerate(stack.parameters()):
        own = [list(member.learner.parameters())[index] for member in members]
        states = [member.optimizer.state.get(p, {}) for member, p in zip(members, own, strict=True)]
        filled = next((state for state in states if state), None)
        if filled is None:  # not learnt: a gate that is fixed
            continue
        optimizer.state[parameter] = {"step": filled["step"].clone()} | {
            name: torch.stack([state.get(name, torch.zeros_like(p)) for state, p in zip(states, own, strict=True)])
            for name in filled
            if name != "step"
        }


@torch.no_grad()
def _unstack(stack: StackedLearners, optimizer: torch.optim.Optimizer, members: list[_Member]) -> None:
    """Weights and optimizer's state back to each learner that is not complete yet, as if it had been trained alone."""
    for index, member in enumerate(members):
        if member.number > member.config.updates:
            continue
        for own, parameter in zip(member.learner.parameters(), stack.parameters(), strict=True):
            own.copy_(parameter[index])
            if not (state := optimizer.state.get(parameter)):
                continue
            member.optimizer.state[own] = {
                name: torch.full_like(value, member.number) if name == "step" else value[index].clone()
                for name, value in state.items()
            }
