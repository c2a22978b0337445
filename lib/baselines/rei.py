"""A network of tokens with one vector that goes on learning at test time (Rei 2015).

M. Rei, «Online Representation Learning in Recurrent Neural Language Models», EMNLP 2015, as Shankar & Sarawagi 2018
compare with it: the base learner is an LSTM of size 50, and only a «sequence vector» s is adapted. As in Rei's paper it
enters the output layer, so that each revealed token has a gradient for it at once:

    logits_t = W_h h_t + W_s s_t + b                    s_0: where every sequence starts
    s_{t+1}  = s_t - rate · ∂(-log P_t(y_t))/∂s_t  =  s_t - rate · W_s^T (p_t - e_{y_t})

The closed form is exact, since s meets nothing but the softmax layer. In training the vector moves in the same way
along each sequence, while the shared weights learn by backpropagation. By default no gradient flows through the
vector's moves (Rei trains so: the vector is one more input, whose value happens to have been found by its own descent).
The weights then learn to use the vector that they find, not to make its next move better; for that set `through`.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lib.baselines.sequence import OneStepAtATime, check_pairs, score_in_chunks
from lib.tasks.streams import Scored

STEPS_KEPT = 8  # steps whose probabilities autograd holds at once, where it goes through the vector's moves


@dataclass(frozen=True)
class ReiConfig:
    """Sizes and rate of Rei's learner."""

    labels: int = 5135
    """Tokens, each of which is an input and a label."""
    embedding: int = 50
    """Length of a token's embedding (paper: silent)."""
    hidden: int = 50
    """Units of the LSTM (paper: 50)."""
    vector: int = 50
    """Length of the sequence vector (paper: silent)."""
    rate: float = 0.1
    """Step of the vector's own gradient descent (paper: silent)."""
    learn_rate: bool = False
    """Learn the rate with the weights, from `rate` on (paper: silent)."""
    start: Literal["learnt", "zero"] = "learnt"
    """The vector that each sequence begins with (paper: silent)."""
    through: bool = False
    """In training, let gradients flow through the vector's moves (paper: silent; Rei 2015 does not)."""

    def __post_init__(self):
        if self.start not in ("learnt", "zero"):
            raise ValueError(f"there is no start {self.start!r}; known: learnt, zero")
        if not self.rate > 0:
            raise ValueError(f"rate must be above 0, it is {self.rate}")


class ReiState(NamedTuple):
    """All that Rei's learner carries from one step to the next."""

    recurrent: Any
    """The LSTM's, as PyTorch has it."""
    moved: Float[Tensor, "batch vector"]
    """The sum of the vector's gradients so far: the vector is its start minus rate times this."""


class Rei(OneStepAtATime):
    """An LSTM with a sequence vector beside its hidden state; that vector alone adapts."""

    def __init__(self, config: ReiConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.labels, config.embedding)
        self.recurrent = nn.LSTM(config.embedding, config.hidden, batch_first=True)
        # One layer for both: its last columns are W_s.
        self.to_logits = nn.Linear(config.hidden + config.vector, config.labels)
        self.start = nn.Parameter(torch.zeros(config.vector), requires_grad=config.start == "learnt")
        self.log_rate = nn.Parameter(torch.tensor(math.log(config.rate)), requires_grad=config.learn_rate)

    def forward(self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of streams from a fresh start. `unroll` is ignored: there is one form.

        Raises ValueError for shapes that differ.
        """
        check_pairs(xs, ys)
        hs, _ = self.recurrent(self.embedding(xs))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.through):
            moved = self.moves(hs, ys)
        # The start and the rate have their gradients even where the moves are constants.
        vectors = self.start - self.log_rate.exp() * moved
        return score_in_chunks(self.to_logits, torch.cat([hs, vectors], -1), ys, self.config.labels)

    def moves(
        self, hs: Float[Tensor, "batch time hidden"], ys: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time vector"]:
        """The sum of the vector's gradients before each step."""
        moved, rows = self.start.new_zeros(len(hs), self.config.vector), []
        for chunk in zip(hs.split(STEPS_KEPT, 1), ys.split(STEPS_KEPT, 1), strict=True):
            # The probabilities of all steps would be gigabytes where autograd must keep them: done again there instead.
            if torch.is_grad_enabled():
                found, moved = checkpoint(self._moves_of_chunk, *chunk, moved, use_reentrant=False)
            else:
                found, moved = self._moves_of_chunk(*chunk, moved)
            rows.append(found)
        return torch.cat(rows, 1)

    def _moves_of_chunk(self, hs: Tensor, ys: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
        rows = []
        for h, y in zip(hs.unbind(1), ys.unbind(1), strict=True):
            rows.append(moved)
            moved = moved + self.gradient(h, moved, y)
        return torch.stack(rows, 1), moved

    def gradient(
        self, h: Float[Tensor, "batch hidden"], moved: Float[Tensor, "batch vector"], y: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch vector"]:
        """∂(-log P(y))/∂s = W_s^T (p - e_y)."""
        p = self._logits(h, moved).softmax(-1)
        vector_weights = self.to_logits.weight[:, self.config.hidden :]
        return p @ vector_weights - vector_weights[y]

    def _logits(self, h: Tensor, moved: Tensor) -> Tensor:
        return self.to_logits(torch.cat([h, self.start - self.log_rate.exp() * moved], -1))

    def initial_state(self, batch_size: int) -> ReiState:
        """A fresh LSTM, and a vector that has not moved."""
        zeros = self.start.new_zeros(1, batch_size, self.config.hidden)
        return ReiState((zeros, zeros), self.start.new_zeros(batch_size, self.config.vector))

    def logits(self, x: Int[Tensor, " batch"], state: ReiState) -> Float[Tensor, "batch labels"]:
        """What is predicted to follow x, with the vector as it is."""
        return self._logits(self._hidden(x, state)[0], state.moved)

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: ReiState) -> ReiState:
        """The LSTM after x, and the vector moved by its gradient."""
        h, recurrent = self._hidden(x, state)
        return ReiState(recurrent, state.moved + self.gradient(h, state.moved, y))

    def _hidden(self, x: Tensor, state: ReiState) -> tuple[Tensor, Any]:
        hs, recurrent = self.recurrent(self.embedding(x.unsqueeze(1)), state.recurrent)
        return hs[:, 0], recurrent
