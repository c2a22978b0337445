"""One update of the weights, all of it on the device: run as it is, or captured as a CUDA graph (`graph.py`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor


@runtime_checkable
class Trainable(Protocol):
    """What is trained: an `OnlineLearner`, or several stacked ones."""

    def parameters(self) -> Any: ...

    def fast_unroll(self) -> Callable | None: ...

    def compiled_unroll(self) -> Callable | None: ...

    def __call__(self, xs: Tensor, ys: Tensor, unroll: Callable | None = None) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Update:
    """Forward, backward, clipping, optimizer and score of a batch, for one learner or for several stacked ones.

    Nothing here asks the device for a value, which would make a GPU wait, and what is counted is counted in place, so
    that a CUDA graph finds it again.
    """

    learner: Trainable
    optimizer: torch.optim.Optimizer
    loss: Callable[[Tensor, Any], Tensor]
    """(logits, batch) to the loss: one number, or one for each stacked learner."""
    clip: Callable[[], Tensor]
    """Scales the gradients down to the largest norm; gives the norm that they had, or one for each learner."""
    tally: Any
    """Its `add` counts a batch."""
    unroll: Callable | None
    """How the steps of an episode are done, None for the learner's own way."""
    number: Int[Tensor, "*learners"]
    """Updates done, those of the processes before this one included."""
    first_bad: Int[Tensor, "*learners"]
    """The first update whose loss or gradient was not finite; the largest int64 while there is none."""

    def __call__(self, batch: Any) -> None:
        """Do the next update, on this batch."""
        logits = self.learner(batch.xs, batch.ys, self.unroll)
        loss = self.loss(logits, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        norm = self.clip()
        self.optimizer.step()
        loss = loss.detach()
        self.number.add_(1)
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        self.first_bad.copy_(torch.where(bad, torch.minimum(self.first_bad, self.number), self.first_bad))
        self.tally.add(logits.detach(), batch, loss)


def counters(done: list[int] | int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`number` and `first_bad` of an Update that goes on after so many updates, of one learner or of each."""
    number = torch.tensor(done, dtype=torch.int64, device=device)
    return number, torch.full_like(number, torch.iinfo(torch.int64).max)
