"""A trained language model that stays as it is, and the last of its hidden states: of the neural cache, and of MbPA.

Step i of the past is (h_i, x_{i+1}): what was seen, and the word that followed.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.baselines.sequence import OneStepAtATime
from lib.methods.lmn import Network


class Past(NamedTuple):
    """What is carried from one step to the next: the network's state, and what it saw of late."""

    network: Any
    hidden: Float[Tensor, "batch steps hidden"]
    words: Int[Tensor, "batch steps"]
    """The word that followed each step."""

    def followed_by(
        self, network: Any, hidden: Float[Tensor, "batch time hidden"], words: Int[Tensor, "batch time"]
    ) -> "Past":
        """This past and some steps more, after which the network is in this state."""
        return Past(network, torch.cat([self.hidden, hidden], 1), torch.cat([self.words, words], 1))

    def last(self, size: int) -> "Past":
        """What a memory of this many steps still holds."""
        return Past(self.network, self.hidden[:, -size:], self.words[:, -size:])


class LooksBack(OneStepAtATime):
    """A language model, which is trained no more, and a memory of its last `size` steps."""

    def __init__(self, network: Network, size: int):
        super().__init__()
        self.network, self.size = network.requires_grad_(False).eval(), size

    def train(self, mode: bool = True) -> "LooksBack":
        """As any module's, but the network stays in evaluation mode: it is trained already."""
        super().train(mode)
        self.network.eval()
        return self

    def initial_state(self, batch_size: int) -> Past:
        """Nothing seen yet."""
        like = next(self.network.parameters())
        hidden = like.new_zeros(batch_size, 0, self.network.hidden_size)
        return Past(None, hidden, torch.zeros(batch_size, 0, dtype=torch.int64, device=like.device))

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: Past) -> Past:
        """The past, with the step that saw x and was followed by y."""
        now, network_state = self.network.hidden(x.unsqueeze(1), state.network)
        return state.followed_by(network_state, now, y.unsqueeze(1)).last(self.size)
