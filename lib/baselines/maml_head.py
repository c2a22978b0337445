"""Model-agnostic meta-learning over thousands of labels, of the softmax layer alone (Shankar & Sarawagi 2018, table 4).

Retuning every weight of a convolutional network for each of some 18 000 steps, and training through that, is left out.
What is meta-learnt is the embedding and the rate; online, each step is one of gradient descent on a softmax layer over
all labels:

    W_{t+1} = W_t - rate · (p_t - e_{y_t}) h_tᵀ

Its beginning need not be learnt. Labels that nobody has seen must begin alike, with one row for all, and a softmax
does not change when all of its scores do by the same: W_1 = 0 is as good as any.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lib.baselines.convnet import ConvNet, ConvNetConfig

BLOCK = 64  # steps after which W is added up


@torch.no_grad()
def answer_online(
    hidden: Float[Tensor, "time width"], ys: Int[Tensor, " time"], labels: int, rate: float
) -> Bool[Tensor, " time"]:
    """Whether the label of each step was found before it was revealed, beginning with W = 0.

    Inside a block of 64 steps the scores are W h_t - rate · Σ_i (h_i · h_t) (p_i - e_i), so W changes once a block.
    """
    matrix = hidden.new_zeros(labels, hidden.shape[1])
    right = torch.zeros(len(ys), dtype=torch.bool, device=ys.device)
    for start in range(0, len(ys), BLOCK):
        ahead, told = hidden[start : start + BLOCK], ys[start : start + BLOCK].tolist()
        scores, alike = ahead @ matrix.T, rate * (ahead @ ahead.T)
        errors = torch.zeros_like(scores)
        for i, y in enumerate(told):
            now = torch.addmv(scores[i], errors[:i].T, alike[:i, i], alpha=-1.0)
            p = now.softmax(0)
            own, now[y] = float(now[y]), -torch.inf
            right[start + i] = own > float(now.max())
            p[y] -= 1
            errors[i] = p
        matrix.addmm_(errors.T, ahead, alpha=-rate)
    return right


class HeadMAML(nn.Module):
    """A network of images and a rate, learnt through episodes of gradient descent on a softmax layer.

    rate: to begin with. Vectors of images are scaled to length 1, so that the rate means the same throughout.
    """

    def __init__(self, network: ConvNetConfig, rate: float = 3.0):
        super().__init__()
        self.network = ConvNet(network)
        self.log_rate = nn.Parameter(torch.tensor(math.log(rate)))

    @property
    def rate(self) -> float:
        """The step of the descent."""
        return self.log_rate.exp().item()

    def embed(self, xs: Float[Tensor, "batch 784"]) -> Float[Tensor, "batch width"]:
        """h_t of images, of length 1."""
        return F.normalize(self.network.embed(xs), dim=1)

    def forward(
        self, xs: Float[Tensor, "time 784"], ys: Int[Tensor, " time"], unroll: Any = None
    ) -> Float[Tensor, "last two"]:
        """An episode in which all labels come once and then once more: the loss of each step of the second half, and 1
        where its label was found. `unroll` is for learners that have several forms."""
        hs = self.embed(xs)
        labels, ys = ys.unique(return_inverse=True)
        matrix, rate = hs.new_zeros(len(labels), hs.shape[1]), self.log_rate.exp()
        scores, targets = [], F.one_hot(ys, len(labels)).to(hs)
        for h, target in zip(hs.unbind(), targets.unbind(), strict=True):
            now = matrix @ h
            matrix = matrix - torch.outer(rate * (now.softmax(0) - target), h)
            scores.append(now)
        half = len(ys) // 2
        logits = torch.stack(scores[half:])
        loss = F.cross_entropy(logits, ys[half:], reduction="none")
        return torch.stack([loss, (logits.argmax(1) == ys[half:]).to(loss)], dim=1)
