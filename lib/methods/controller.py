"""The LSTM controller that the networks with an external memory share (Santoro et al. 2016, equations 11 to 15)."""

import torch
from jaxtyping import Float
from torch import Tensor


def lstm_cell(
    gates: Float[Tensor, "batch four_times_hidden"], cell: Float[Tensor, "batch hidden"]
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    """The new (hidden, cell) from the gates before they are squashed, forget, write, output and update side by side."""
    forget, write, output, update = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(write) * torch.tanh(update)
    return torch.sigmoid(output) * torch.tanh(cell), cell
