"""What a table of accuracy by instance trades between its columns.

A drawing can be called new or known. A network that calls more of them new is right more often on first instances, and
less on second ones, whatever its memory is worth. To compare two networks by one column, hold the other equal.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lib.tasks.episodes import instance_numbers

BIASES = tuple(x / 4 for x in range(-16, 25))  # nats


def trade(
    learner: Any,
    xs: Float[Tensor, "batch time features"],
    ys: Int[Tensor, "batch time"],
    instances: Iterable[int],
    biases: Iterable[float] = BIASES,
) -> list[dict[int, float]]:
    """Accuracy by instance if the logit of each label that was not told yet is lowered, once for each bias in nats."""
    with torch.no_grad():
        logits = learner(xs, ys, learner.fast_unroll())
    seen = F.one_hot(ys, logits.shape[-1]).cumsum(1) > 0
    told = F.pad(seen[:, :-1], (0, 0, 1, 0))
    numbers = instance_numbers(ys, logits.shape[-1])
    found = []
    for bias in biases:
        right = (logits - bias * ~told).argmax(-1) == ys
        found.append({k: right[numbers == k].double().mean().item() for k in instances})
    return found


def where_first_is(share: float, points: list[dict[int, float]]) -> dict[int, float] | None:
    """The accuracies where the one of first instances is `share`, by a line between two points; None if it never is."""
    for one, next_one in zip(points, points[1:], strict=False):
        low, high = sorted((one[1], next_one[1]))
        if low <= share <= high and low < high:
            way = (share - one[1]) / (next_one[1] - one[1])
            return {k: one[k] + way * (next_one[k] - one[k]) for k in one}
    return None
