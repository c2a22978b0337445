"""One model trained by several processes, as `torchrun` starts them: each takes its own rows of the joint minibatch.

Everything here is the identity in a process that stands alone. Where several train, all of them make the same calls in
the same order, each call waiting for the others; the first one (rank 0) alone has the files and shows progress.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.training.checkpoint import load_checkpoint

FROM_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
T = TypeVar("T")


def launched() -> bool:
    """Whether torchrun started this process."""
    return all(name in os.environ for name in FROM_TORCHRUN)


@contextmanager
def joined(device: str = "auto") -> Iterator[str]:
    """Join the processes that torchrun started, if it did, and leave them at the end. Gives this one's device.

    Gradients go through NCCL between GPUs, one for each process of a machine, and through Gloo on the CPU. Raises
    ValueError if there are fewer GPUs than processes, or if all processes are asked to share a numbered one.
    """
    if not launched():
        yield device
        return
    local = int(os.environ["LOCAL_RANK"])
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda:") and int(os.environ["WORLD_SIZE"]) > 1:
        raise ValueError(f"each process needs a GPU of its own, and all were given {device}; ask for --device cuda")
    if device == "cuda":
        if local >= torch.cuda.device_count():
            raise ValueError(
                f"this machine has {torch.cuda.device_count()} GPUs, and torchrun started more processes on it; "
                "start as many as there are GPUs, or ask for --device cpu"
            )
        device = f"cuda:{local}"
        torch.cuda.set_device(local)
    # Objects and the agreement on the time go through the CPU, so that they make no GPU wait.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that reads and writes files: one that stands alone is."""
    return rank() == 0


def parallel(learner: nn.Module) -> nn.Module:
    """`learner` with the first process's weights; each `backward` then gives the mean gradient of all processes."""
    if size() == 1:
        return learner
    device = next(learner.parameters()).device
    return DistributedDataParallel(learner, device_ids=[device.index] if device.type == "cuda" else None)


def check_divides(batch_size: int) -> None:
    """Raises ValueError if the processes cannot take equal shares of a minibatch: means would not be means then."""
    if batch_size % size():
        divisors = ", ".join(str(n) for n in range(1, batch_size + 1) if batch_size % n == 0)
        raise ValueError(
            f"a minibatch of {batch_size} cannot be divided equally among {size()} processes; "
            f"start one of these numbers of processes: {divisors}"
        )


def own_rows(batch: T) -> T:
    """This process's share of a joint minibatch, a named tuple of tensors with a row for each episode."""
    if size() == 1:
        return batch
    share = len(batch[0]) // size()
    return batch._make(field[rank() * share : (rank() + 1) * share] for field in batch)


def summed(tally: T) -> T:
    """A score, a dataclass, with each tensor and number in it added up over the processes."""
    if size() == 1:
        return tally
    values = {field.name: getattr(tally, field.name) for field in fields(tally)}
    return replace(tally, **{name: _sum(value) for name, value in values.items() if isinstance(value, Tensor | int)})


def lowest(value: Tensor) -> Tensor:
    """The smallest of the processes' values."""
    if size() == 1:
        return value
    dist.all_reduce(value := value.clone(), dist.ReduceOp.MIN)
    return value


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any of the processes: the same answer in all of them."""
    if size() == 1:
        return flag
    dist.all_reduce(flags := torch.tensor(int(flag)), dist.ReduceOp.MAX)
    return bool(flags)


def in_first(function: Callable[[], T]) -> T:
    """Call `function` in the first process alone; all get what it returns, or raise the exception that it raised."""
    if size() == 1:
        return function()
    outcome: list[Any] = [None, None]
    if is_first():
        try:
            outcome[0] = function()
        except Exception as error:
            outcome[1] = error
    dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


def load_first_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None
) -> dict[str, Any]:
    """`load_checkpoint` of the first process's file, in all of them: they may not share a file system."""
    if size() == 1:
        return load_checkpoint(path, model, optimizer)
    details, content = in_first(lambda: (load_checkpoint(path, model, optimizer), path.read_bytes()))
    if not is_first():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(content)
            load_checkpoint(copy, model, optimizer)
    return details


def _sum(value: Any) -> Any:
    dist.all_reduce(total := torch.as_tensor(value).clone())
    return total if isinstance(value, Tensor) else total.item()
