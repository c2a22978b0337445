"""How often something was right, by kinds of things: what tasks count in validation and test."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor


@dataclass
class HitTally:
    """How often some kinds of things were right; kept on the device until asked."""

    hits: Tensor
    """(kinds,), how many were right."""
    counts: Tensor
    """(kinds,), how many there were."""
    loss: Tensor
    """(), the sum of the batches' mean losses."""
    batches: Tensor
    """(), how many there were."""

    @classmethod
    def empty(cls, kinds: int, device: torch.device | str = "cpu", **more: Any) -> Any:
        """Nothing counted yet. more: fields of a subclass."""
        zeros = torch.zeros(kinds, dtype=torch.int64, device=device)
        return cls(zeros, zeros.clone(), torch.zeros((), device=device), zeros.sum(), **more)

    def count(self, right: Bool[Tensor, "kinds things"], there: Bool[Tensor, "kinds things"], loss: Tensor) -> None:
        """Count a batch: of each kind, which of its things are `there`, and which of these were right."""
        self.hits += (right & there).sum(1)
        self.counts += there.sum(1)
        self.loss += loss.detach()
        self.batches += 1

    def reset(self) -> None:
        """Nothing counted any more, in place: a CUDA graph goes on counting in the same tensors."""
        for counted in (self.hits, self.counts, self.loss, self.batches):
            counted.zero_()

    def summary(self) -> dict:
        """Mean loss (of a batch's), accuracy of each kind (0 to 1; None where nothing was counted) and the counts."""
        hits, counts = self.hits.tolist(), self.counts.tolist()
        return {
            "loss": self.loss.item() / max(self.batches.item(), 1),
            "accuracy": [h / c if c else None for h, c in zip(hits, counts, strict=True)],
            "hits": hits,
            "counts": counts,
        }
