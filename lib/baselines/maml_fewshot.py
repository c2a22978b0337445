"""Model-agnostic meta-learning over thousands of labels (Finn, Abbeel & Levine 2017; Shankar & Sarawagi 2018, table 4).

What was shown so far is learnt by a few steps of gradient descent on all weights, from where training has put them:

    φ_0 = θ      φ_{i+1} = φ_i - rate · ∇ mean(-log P(y | x; φ_i))      meta-loss(θ) = -log P of what is shown next

The softmax layer has a row for each label, and all begin at zero: nothing is known of a label that nobody has seen, and
a softmax does not change when all of its scores do by the same. So the first step moves this layer alone, and gives
each label the mean vector of its images, less that of all others.

Batch normalisation is by the images at hand, up to 512 at a time, in the test as in training, as with Finn et al.: the
statistics of training are not those of a network that has moved.

Each tensor of the network has a rate, and so has the softmax layer; all are learnt with θ. The softmax layer's counts
once for each label, so that a label's row moves alike in a space of 64 labels and in one of thousands.
"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from lib.baselines.convnet import ConvNet, ConvNetConfig
from lib.baselines.maml import Weights
from lib.tasks.online_images import SIDE

AT_ONCE = 512  # most images that are normalised together, and whose gradient is taken at a time
HEAD = "softmax layer"


@dataclass(frozen=True)
class FewShotMAMLConfig:
    """Steps, rates and order of MAML in a large space of labels (paper: silent on all)."""

    steps: int = 1
    """Of the descent on what was shown so far (Finn et al., 20-way: 5). Of 1 and 3, 1 was better on validation labels
    after 200 updates: a rate that suits three steps among the few labels of an episode is too large among many."""
    body_rate: float = 0.01
    """Of each of the network's tensors, learnt from there on."""
    head_rate: float = 10.0
    """Of the softmax layer, learnt from there on; its vectors have length 1."""
    order: Literal[1, 2] = 2
    """2: the meta-gradient flows through the descent; 1: only from where it ends, Finn et al.'s cheaper form."""

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps must be 1 or more, not {self.steps}")


class FewShotMAML(nn.Module):
    """A network of images, all of whose weights learn what was shown, and the rates at which they do."""

    def __init__(self, network: ConvNetConfig, config: FewShotMAMLConfig):
        super().__init__()
        self.network, self.config = ConvNet(network), config
        for module in self.network.layers:
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None
        self.names = [name for name, _ in self.network.layers.named_parameters()]
        rates = [config.body_rate] * len(self.names) + [config.head_rate]
        self.log_rates = nn.Parameter(torch.tensor(rates).log())

    def forward(
        self, xs: Float[Tensor, "images 784"], ys: Int[Tensor, " images"], unroll: Any = None
    ) -> Float[Tensor, "asked two"]:
        """An episode in which all labels come, then all once more, and so on: for each image but those of the first
        round, its loss after the rounds before were learnt, and 1 where its label was found. `unroll` is for learners
        that have several forms."""
        labels, ys = ys.unique(return_inverse=True)
        n, outputs = len(labels), []
        for start in range(n, len(ys), n):
            asked = ys[start : start + n]
            logits = self.logits(self.adapted(xs[:start], ys[:start], n), xs[start : start + n])
            loss = F.cross_entropy(logits, asked, reduction="none")
            outputs.append(torch.stack([loss, (logits.argmax(1) == asked).to(loss)], dim=1))
        return torch.cat(outputs)

    @torch.no_grad()
    def answer(
        self,
        shown: tuple[Float[Tensor, "shown 784"], Int[Tensor, " shown"]],
        asked: tuple[Float[Tensor, "asked 784"], Int[Tensor, " asked"]],
        labels: int,
    ) -> Bool[Tensor, " asked"]:
        """Whether the labels of images are found after others were shown with theirs; images and labels of either."""
        weights = self.adapted(*shown, labels)
        found = [self.logits(weights, xs).argmax(1) for xs in _pieces(asked[0])]
        return torch.cat(found) == asked[1]

    def adapted(self, xs: Float[Tensor, "shown 784"], ys: Int[Tensor, " shown"], labels: int) -> Weights:
        """φ after the last step on all of these images. In training, its gradient flows to θ and the rates."""
        weights = dict(self.network.layers.named_parameters())
        weights[HEAD] = xs.new_zeros(labels, self.network.hidden_size, requires_grad=True)
        rates = dict(zip(weights, self.log_rates.exp(), strict=True))
        rates[HEAD] = labels * rates[HEAD]
        through = self.training and self.config.order == 2 and torch.is_grad_enabled()
        for _ in range(self.config.steps):
            gradient = self._gradient(weights, xs, ys, through)
            weights = {name: each - rates[name] * gradient[name] for name, each in weights.items()}
        return weights

    def logits(self, weights: Weights, xs: Float[Tensor, "images 784"]) -> Float[Tensor, "images labels"]:
        """The scores of all labels by some weights."""
        body = {name: weights[name] for name in self.names}
        hs = functional_call(self.network.layers, body, (xs.view(-1, 1, SIDE, SIDE),))
        return F.normalize(hs, dim=1) @ weights[HEAD].T

    @torch.enable_grad()
    def _gradient(self, weights: Weights, xs: Tensor, ys: Tensor, through: bool) -> Weights:
        """∇ mean(-log P(y | x)); a constant, unless its own gradient is to flow `through` it."""
        if not through:
            weights = {name: each.detach().requires_grad_() for name, each in weights.items()}
        total = dict.fromkeys(weights, 0.0)
        for some, told in zip(_pieces(xs), _pieces(ys), strict=True):
            loss = F.cross_entropy(self.logits(weights, some), told, reduction="sum") / len(ys)
            found = torch.autograd.grad(loss, list(weights.values()), create_graph=through)
            total = {name: total[name] + each for name, each in zip(weights, found, strict=True)}
        return total


def _pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    return tensor.tensor_split(-(-len(tensor) // AT_ONCE))
