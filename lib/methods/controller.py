"""The LSTM controller that the networks with an external memory share (Santoro et al. 2016, equations 11 to 15)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def lstm_cell(
    gates: Float[Tensor, "batch four_times_hidden"], cell: Float[Tensor, "batch hidden"]
) -> tuple[Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
    """The new (hidden, cell) from the gates before they are squashed, forget, write, output and update side by side."""
    forget, write, output, update = gates.chunk(4, dim=-1)
    cell = torch.sigmoid(forget) * cell + torch.sigmoid(write) * torch.tanh(update)
    return torch.sigmoid(output) * torch.tanh(cell), cell


@torch.no_grad()
def glorot(learner: nn.Module) -> None:
    """Initial weights in place of PyTorch's, as TensorFlow's layers had them when the papers were written: uniform by
    Glorot and Bengio (2010), biases zero, but the forget gate's one.

    learner: its linear layers are changed, and `from_input` is the LSTM's. Drawn from PyTorch's global generator.
    """
    for layer in learner.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                layer.bias.zero_()
    forget, *_ = learner.from_input.bias.chunk(4)
    forget.fill_(1.0)
