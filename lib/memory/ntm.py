"""Addressing by content and by location (Graves, Wayne & Danihelka 2014, Neural Turing Machines, arXiv:1410.5401).

| here | paper | equation |
| --- | --- | --- |
| `erase_and_add` | M_t | 3 and 4 |
| `focus_by_content` | w^c_t | 5 and 6 |
| `interpolate` | w^g_t | 7 |
| `shift` | w~_t | 8 |
| `sharpen` | w_t | 9 |
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lib.memory.addressing import cosine_similarity

SHIFTS = (-1, 0, 1)  # in slots: back, stay, on
EPSILON = 1e-6  # added to a weight before it is raised to a power, for a finite gradient at zero


def focus_by_content(
    keys: Float[Tensor, "batch heads width"],
    strength: Float[Tensor, "batch heads 1"],
    memory: Float[Tensor, "batch slots width"],
) -> Float[Tensor, "batch heads slots"]:
    """Softmax of the cosine similarities, each head's multiplied by its strength β >= 0."""
    return torch.softmax(strength * cosine_similarity(keys, memory), dim=-1)


def interpolate(
    gate: Float[Tensor, "batch heads 1"],
    by_content: Float[Tensor, "batch heads slots"],
    previous: Float[Tensor, "batch heads slots"],
) -> Float[Tensor, "batch heads slots"]:
    """Content weights where the gate is 1, the last step's weights where it is 0."""
    return gate * by_content + (1 - gate) * previous


def shift(
    weights: Float[Tensor, "batch heads slots"], by: Float[Tensor, "batch heads 3"]
) -> Float[Tensor, "batch heads slots"]:
    """Circular convolution with a distribution over `SHIFTS`."""
    return sum(share * weights.roll(places, dims=-1) for places, share in zip(SHIFTS, by.split(1, dim=-1), strict=True))


def sharpen(
    weights: Float[Tensor, "batch heads slots"], power: Float[Tensor, "batch heads 1"]
) -> Float[Tensor, "batch heads slots"]:
    """Weights to the power γ >= 1, normalised to sum to 1."""
    weights = weights + EPSILON
    raised = (weights / weights.detach().amax(-1, keepdim=True)) ** power  # the largest is 1: not all become zero
    return raised / raised.sum(-1, keepdim=True)


def erase_and_add(
    memory: Float[Tensor, "batch slots width"],
    weights: Float[Tensor, "batch heads slots"],
    erase: Float[Tensor, "batch heads width"],
    add: Float[Tensor, "batch heads width"],
) -> Float[Tensor, "batch slots width"]:
    """Every head erases, then every head adds, each where and as much as its weights say; erase is in [0, 1]."""
    for w, e in zip(weights.unbind(1), erase.unbind(1), strict=True):
        memory = memory * (1 - w.unsqueeze(2) * e.unsqueeze(1))
    return memory + weights.transpose(1, 2) @ add
