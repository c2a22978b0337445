"""Model-agnostic meta-learning, applied online to images (Finn et al. 2017; Shankar & Sarawagi 2018, table 3).

A trained network goes on learning in each sequence: after each true label one step of gradient descent on all its
weights,

    φ_1 = θ      φ_{t+1} = φ_t - rate · ∇ (-log P(y_t | x_t; φ_t))      meta-loss(θ) = -Σ_t log P(y_t | x_t; φ_t)

and what is trained is where each sequence begins, θ, from the trained network's weights on, and the rate. The
statistics of batch normalisation stay those of the trained network.

A label that is new to a sequence begins with the mean of the softmax layer's rows of all labels without training
images. So does, in training, a seen label that plays a new one: nothing of what its own row has learnt is left.

One rate for all weights, as Finn et al. have it, was of no use to a network that is trained already and does not
normalise by its batch: what moves the softmax layer enough destroys the convolutions. So each tensor has a rate, and
all are learnt.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lib.baselines.convnet import ConvNet
from lib.baselines.maml import Weights, descent
from lib.tasks.online_images import Shown
from lib.tasks.streams import Scored, score

HEAD = ("to_logits.weight", "to_logits.bias")


@dataclass(frozen=True)
class ImageMAMLConfig:
    """Rate and order of online MAML (paper: silent on both)."""

    body_rate: float = 0.001
    """Step of the inner gradient descent for the convolutions, learnt from there on (Finn et al.: one of 0.4)."""
    head_rate: float = 0.1
    """For the softmax layer, learnt from there on."""
    order: Literal[1, 2] = 1
    """2: the meta-gradient flows through the updates; 1: not, Finn et al.'s cheaper form."""


class ImageMAML(nn.Module):
    """A network of images, all of whose weights go on learning in each sequence, and begin where that pays.

    seen: the first labels, which the network was trained on.
    """

    def __init__(self, network: ConvNet, seen: int, config: ImageMAMLConfig):
        super().__init__()
        self.network, self.seen, self.config = network.eval(), seen, config
        rates = [config.head_rate if name in HEAD else config.body_rate for name, _ in network.named_parameters()]
        self.log_rates = nn.Parameter(torch.tensor(rates).log())
        self.weights: Weights | None = None

    def train(self, mode: bool = True) -> "ImageMAML":
        """As any module's, but the network keeps the statistics that it was trained with."""
        super().train(mode)
        self.network.eval()
        return self

    def start(self, batch_size: int, known: Bool[Tensor, " labels"] | None = None) -> Weights:
        """θ for so many sequences. known: the labels that are not new; None: those seen in training."""
        weights = dict(self.network.named_parameters())
        if known is None:
            known = torch.arange(self.network.labels, device=self.log_rates.device) < self.seen
        for name in HEAD:
            own, new = weights[name], weights[name][self.seen :].mean(0, keepdim=True)
            weights[name] = torch.where(known.view(-1, *[1] * (own.ndim - 1)), own, new)
        return {name: each.expand(batch_size, *each.shape) for name, each in weights.items()}

    def forward(self, xs: Shown, ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of sequences, each from a fresh start. `unroll` is ignored: there is one form."""
        weights = self.start(len(ys), xs.known)
        scored = []
        for x, y in zip(xs.images.unbind(1), ys.unbind(1), strict=True):
            logits, moves = self._learn(weights, x, y)
            scored.append(score(logits, y))
            weights = {name: each + moves[name] for name, each in weights.items()}
        return Scored(*(torch.stack(each, 1) for each in zip(*scored, strict=True)))

    @torch.no_grad()
    def begin(self, batch_size: int = 1) -> None:
        """Start so many sequences side by side; what was learnt in the last ones is forgotten."""
        self.weights = self.start(batch_size)

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "batch 784"]) -> Float[Tensor, "batch labels"]:
        """Probabilities of the labels of x. Changes nothing. Raises RuntimeError before `begin`."""
        self._check_begun()
        return vmap(self._logits)(self.weights, x).softmax(-1)

    @torch.no_grad()
    def observe(self, x: Float[Tensor, "batch 784"], y: Int[Tensor, " batch"]) -> None:
        """Reveal the label of x: one step of gradient descent. Raises RuntimeError before `begin`."""
        self._check_begun()
        _, moves = self._learn(self.weights, x, y)
        self.weights = {name: each + moves[name] for name, each in self.weights.items()}

    def _learn(self, weights: Weights, x: Tensor, y: Tensor) -> tuple[Tensor, Weights]:
        """The logits of x with each sequence's own weights, and what its label adds to these."""

        rates = dict(zip(weights, self.log_rates.exp(), strict=True))

        def of_one(weights: Weights, x: Tensor, y: Tensor) -> tuple[Weights, Tensor]:
            def loss(weights: Weights) -> tuple[Tensor, Tensor]:
                logits = self._logits(weights, x)
                return F.cross_entropy(logits, y), logits

            moves, logits = descent(loss, weights, 1.0, self.config.order)
            return {name: rates[name] * move for name, move in moves.items()}, logits

        moves, logits = vmap(of_one)(weights, x, y)
        return logits, moves

    def _logits(self, weights: Weights, x: Tensor) -> Tensor:
        return functional_call(self.network, weights, (x.unsqueeze(0),))[0]

    def _check_begun(self) -> None:
        if self.weights is None:
            raise RuntimeError("the sequence has not begun: call learner.begin(batch_size) first")
