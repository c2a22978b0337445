"""What a slot stands for, measured: the image that was seen when it was written, or the one before it?"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

WARM_UP = 10  # steps of an episode that are not counted: little is stored yet


class Preference(NamedTuple):
    """How much more of a read goes to a slot of the own class than to one of another, in shares of an even read."""

    mean: float
    error: float
    """Of the mean: two standard errors. Episodes are taken to be independent, the steps of one are not."""


def reads(
    learner: Any, xs: Float[Tensor, "batch time features"], ys: Int[Tensor, "batch time"]
) -> tuple[Float[Tensor, "batch time heads slots"], Int[Tensor, "batch time slots"]]:
    """What each head reads at each step, in shares of an even read; and which earlier step wrote each slot last, -1 for
    none and for the slots that the step itself takes.

    learner: one whose state has `read_weights` and `least_used`, the slots that its next write takes.
    """
    batch, steps = ys.shape
    writer = torch.full((batch, learner.config.slots), -1, device=ys.device)
    shares, writers = [], []
    with torch.no_grad():
        projected, state = learner.prepare(xs, ys)
        for t in range(steps):
            taken = state.least_used.sum(1) > 0
            _, state = learner.step(projected[:, t], state)
            shares.append(state.read_weights * learner.config.slots)
            writers.append(writer.masked_fill(taken, -1))
            writer = writer.masked_fill(taken, t)
    return torch.stack(shares, 1), torch.stack(writers, 1)


def preference(
    learner: Any, xs: Float[Tensor, "batch time features"], ys: Int[Tensor, "batch time"], delay: int
) -> list[Preference]:
    """Compare, for each head, its reads of slots of the own class with those of other classes, in two episodes or more.

    delay: a slot written at step s is taken to be of the class of step s - delay: 0, the image that was seen then; 1,
    the one whose label was told then. A preference below zero finds a class as well as one above: what matters to who
    reads a weighted sum is that the weights differ.
    """
    shares, writers = reads(learner, xs, ys)
    batch, steps, _, slots = shares.shape
    source = (writers - delay).clamp(min=0)
    stored = ys.gather(1, source.flatten(1)).view(batch, steps, slots)
    known, own = writers >= delay, stored == ys.unsqueeze(2)
    same, other = known & own, known & ~own
    counted = same.any(2) & other.any(2) & (torch.arange(steps, device=ys.device) >= WARM_UP)
    found = []
    for of_head in shares.unbind(2):
        own_mean, other_mean = ((of_head * which).sum(2) / which.sum(2).clamp(min=1) for which in (same, other))
        differences = (own_mean - other_mean) * counted
        mean = differences.sum() / counted.sum()
        by_episode = (differences - mean * counted).sum(1)
        error = 2 * by_episode.std() * batch**0.5 / counted.sum()
        found.append(Preference(mean.item(), error.item()))
    return found
