"""One update of the weights, all of it on the device: run as it is, or captured as a CUDA graph (`graph.py`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Update:
    """Forward, backward, clipping, optimizer and score of a batch, for one learner or for several stacked ones.

    Nothing here asks the device for a value, which would make a GPU wait, and what is counted is counted in place, so
    that a CUDA graph finds it again.
    """

    outputs: Callable[[Any], Any]
    """From a batch to what is predicted for it."""
    optimizer: torch.optim.Optimizer
    loss: Callable[[Any, Any], Tensor]
    """(outputs, batch) to the loss: one number, or one for each stacked learner."""
    clip: Callable[[], Tensor]
    """Scales the gradients down to the largest norm; gives the norm that they had, or one for each learner."""
    tally: Any
    """Its `add` counts a batch."""
    number: Int[Tensor, "*learners"]
    """Updates done, those of the processes before this one included."""
    first_bad: Int[Tensor, "*learners"]
    """The first update whose loss or gradient was not finite; the largest int64 while there is none."""

    def __call__(self, batch: Any) -> None:
        """Do the next update, on this batch."""
        outputs = self.outputs(batch)
        loss = self.loss(outputs, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.sum().backward()
        norm = self.clip()
        self.optimizer.step()
        loss = loss.detach()
        self.number.add_(1)
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        self.first_bad.copy_(torch.where(bad, torch.minimum(self.first_bad, self.number), self.first_bad))
        self.tally.add(outputs.detach(), batch, loss)


def counters(done: list[int] | int, device: torch.device) -> tuple[Tensor, Tensor]:
    """`number` and `first_bad` of an Update that goes on after so many updates, of one learner or of each."""
    number = torch.tensor(done, dtype=torch.int64, device=device)
    return number, torch.full_like(number, torch.iinfo(torch.int64).max)
