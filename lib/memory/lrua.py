"""Least recently used access, LRUA: where to write (Santoro et al. 2016, section 3.2 and supplement 6.1).

| here | paper | equation |
| --- | --- | --- |
| `update_usage` | w^u_t | 5, 20 |
| `least_used_slots` | w^lu_t, from m(w^u_t, n) | 6, 21 |
| `write_weights` | w^w_t | 7, 22 |
| `write` | M_t, after the least used slots were set to zero | 8, 23 |

`least_used` holds one row a head: row j marks the j-th least used slot. Their sum over the heads is the paper's
w^lu, which marks the n least used slots.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def update_usage(
    usage: Float[Tensor, "batch slots"],
    read_weights: Float[Tensor, "batch heads slots"],
    write_weights: Float[Tensor, "batch heads slots"],
    decay: float,
) -> Float[Tensor, "batch slots"]:
    """Decay the usage and add what was read and written in this step, summed over the heads (equation 5)."""
    return decay * usage + read_weights.sum(1) + write_weights.sum(1)


def least_used_slots(usage: Float[Tensor, "batch slots"], count: int) -> Float[Tensor, "batch {count} slots"]:
    """One-hot rows of the `count` least used slots, the least used first (equation 6).

    Where slots tie, the lowest index comes first and exactly `count` are marked; equation 6 taken literally would
    mark every slot of an untouched memory.
    """
    slots = torch.sort(usage, dim=-1, stable=True).indices[:, :count]
    return torch.zeros_like(usage).unsqueeze(1).expand(-1, count, -1).scatter(2, slots.unsqueeze(2), 1.0)


def write_weights(
    gate: Float[Tensor, "batch heads 1"],
    previous_read_weights: Float[Tensor, "batch heads slots"],
    least_used: Float[Tensor, "batch #heads slots"],
) -> Float[Tensor, "batch heads slots"]:
    """Mix the slots read in the last step and the least used ones; `gate` is σ(α), in (0, 1) (equation 7)."""
    return least_used + gate * (previous_read_weights - least_used)


def write(
    memory: Float[Tensor, "batch slots width"],
    least_used: Float[Tensor, "batch heads slots"],
    weights: Float[Tensor, "batch heads slots"],
    keys: Float[Tensor, "batch heads width"],
) -> Float[Tensor, "batch slots width"]:
    """Set the least used slots to zero, then add each head's key by its write weights (equation 8)."""
    kept = 1.0 - least_used.sum(1)
    return torch.baddbmm(memory * kept.unsqueeze(2), weights.transpose(1, 2), keys)
