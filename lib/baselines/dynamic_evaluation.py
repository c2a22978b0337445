"""Dynamic evaluation: a language model that goes on learning from the text on which it is tested (Krause et al. 2017).

After every `window` words all weights take a step down the gradient of the loss of these words, which have been scored
by then. Sprechmann et al. 2018 try it in this form, with windows of 5 words and Adam, and gain one point of perplexity
at most. The network that is handed over stays as it is: each text begins with a copy of it.
"""

import copy
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.baselines.sequence import check_pairs


@dataclass(frozen=True)
class DynamicConfig:
    """How the network goes on learning; the rate is chosen on validation text."""

    rate: float = 1e-4
    """Of the optimizer."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """`adam` begins without what it knew in training, unless `optimizer_state` is given (paper: loaded)."""
    window: int = 5
    """Words between two steps, and through which the gradient passes (paper: 5)."""
    clip: float = 1.0
    """Largest norm of the gradient (paper: silent)."""

    def __post_init__(self):
        if self.window < 1:
            raise ValueError(f"a window has at least one word, not {self.window}")


class Learning(NamedTuple):
    """What is carried from one block of a text to the next."""

    network: nn.Module
    """The copy that learns."""
    optimizer: torch.optim.Optimizer
    state: Any
    """Of the network; with its gradient, back to where the window began."""
    pending: list[Tensor]
    """Log-likelihoods of the window's words so far."""


class DynamicEvaluation:
    """A language model that reads one text, or several side by side that share what is learnt.

    network: has `episode`, which gives the log-likelihoods of a block of text, and `carry_over`. optimizer_state: a
    state of Adam over the network's weights to begin with, as `state_dict` gives it.
    """

    def __init__(self, network: nn.Module, config: DynamicConfig, optimizer_state: dict[str, Any] | None = None):
        self.network, self.config, self.optimizer_state = network, config, optimizer_state

    def eval(self) -> "DynamicEvaluation":
        """As a module's: the copies that learn are always in evaluation mode, without dropout."""
        return self

    @torch.enable_grad()
    def episode(
        self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], carried: Learning | None = None
    ) -> tuple[Float[Tensor, "batch time"], Learning]:
        """A block of each text: log-likelihood of what came true, in nats, before anything was learnt from it; and what
        to go on with. How a text is cut into blocks does not matter. Raises ValueError for shapes that differ."""
        check_pairs(xs, ys)
        learning, found, start = carried or self._begin(), [], 0
        while start < xs.shape[1]:
            end = start + self.config.window - sum(part.shape[1] for part in learning.pending)
            x, y = xs[:, start:end], ys[:, start:end]
            log_likelihood, state = learning.network.episode(x, y, learning.state)
            found.append(log_likelihood.detach())
            learning = learning._replace(state=state, pending=[*learning.pending, log_likelihood])
            if sum(part.shape[1] for part in learning.pending) == self.config.window:
                learning = self._step(learning)
            start = end
        return torch.cat(found, 1), learning

    def _begin(self) -> Learning:
        own = copy.deepcopy(self.network).requires_grad_(True).eval()
        kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[self.config.optimizer]
        # In one pass over the weights: with three million of them a window takes two thirds of the time on a CPU.
        fused = all(weight.device.type == "cpu" for weight in own.parameters())
        optimizer = kind(own.parameters(), lr=self.config.rate, fused=fused or None)
        if self.optimizer_state is not None:
            groups = optimizer.state_dict()["param_groups"]
            state = copy.deepcopy(self.optimizer_state["state"])  # else what is given would change with each step
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        return Learning(own, optimizer, None, [])

    def _step(self, learning: Learning) -> Learning:
        learning.optimizer.zero_grad()
        (-torch.cat(learning.pending, 1).mean()).backward()
        nn.utils.clip_grad_norm_(learning.network.parameters(), self.config.clip)
        learning.optimizer.step()
        return learning._replace(state=learning.network.carry_over(learning.state), pending=[])
