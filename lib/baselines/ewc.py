"""Elastic weight consolidation (Kirkpatrick et al. 2017): weights that mattered to earlier tasks are held in place.

| here | paper | equation |
| --- | --- | --- |
| `fisher` | F_i, the diagonal of the Fisher information | below 3 |
| `Consolidation.penalty` | λ/2 Σ_tasks Σ_i F_i (θ_i - θ*_i)² | 3 |

F is the mean of the squares of each example's gradient of log p(y | x), y being its true label; the square of a batch's
mean gradient would be another and smaller thing. The penalty of all tasks is one parabola for each weight: its three
coefficients are kept, whatever the number of tasks.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

EXAMPLES_AT_ONCE = 64
Weights = dict[str, Tensor]


def fisher(network: nn.Module, xs: Float[Tensor, "examples ..."], ys: Int[Tensor, " examples"]) -> Weights:
    """F of each weight of a classifier, by name, on examples of one task. No gradient is left on the weights."""
    theta = {name: weight.detach() for name, weight in network.named_parameters()}

    def log_p(weights: Weights, x: Tensor, y: Tensor) -> Tensor:
        return -F.cross_entropy(functional_call(network, weights, (x.unsqueeze(0),)), y.unsqueeze(0))

    total = {name: torch.zeros_like(weight) for name, weight in theta.items()}
    for some, labels in zip(xs.split(EXAMPLES_AT_ONCE), ys.split(EXAMPLES_AT_ONCE), strict=True):
        gradients = vmap(grad(log_p), in_dims=(None, 0, 0))(theta, some, labels)
        for name, gradient in gradients.items():
            total[name] += gradient.square().sum(0)
    return {name: each / len(ys) for name, each in total.items()}


class Consolidation:
    """What is known of the tasks that were learnt so far: nothing, at first."""

    def __init__(self, network: nn.Module):
        self.tasks = 0
        zeros = {name: torch.zeros_like(weight) for name, weight in network.named_parameters()}
        # Σ F, Σ F θ* and Σ F θ*² of all tasks: the coefficients of Σ F (θ - θ*)².
        self._parabolas = {name: torch.stack([each] * 3) for name, each in zeros.items()}

    def add(self, network: nn.Module, information: Weights) -> None:
        """End a task: its weights are the network's present ones, its F is `information`."""
        for name, weight in network.named_parameters():
            own = weight.detach()
            self._parabolas[name] += information[name] * torch.stack([torch.ones_like(own), own, own.square()])
        self.tasks += 1

    def penalty(self, network: nn.Module, strength: float) -> Float[Tensor, ""]:
        """λ/2 Σ F (θ - θ*)² over all tasks, differentiable. strength: λ."""
        total = torch.zeros((), device=next(network.parameters()).device)
        for name, weight in network.named_parameters():
            square, linear, constant = self._parabolas[name]
            total = total + (square * weight.square() - 2 * linear * weight + constant).sum()
        return strength / 2 * total
