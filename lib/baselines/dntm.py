"""A dynamic neural Turing machine (Gülçehre et al. 2016, arXiv:1607.00036), as Shankar & Sarawagi 2018 altered it.

A cell has an address, which is learnt and the same in all streams, and a content, which is zero when a stream begins.
The altered part, in LMN's words: «we use the previous read address as the new write address, and second we derive the
new content from read memory content and y_{t-1}». The rest is D-NTM's with continuous attention.

| here | Gülçehre et al. 2016 |
| --- | --- |
| `addresses`, `contents` | A and C, the two parts of the memory M |
| `key`, `strength` | k_t and β_t = 1 + softplus(·), which sharpens |
| `usage` | v_t, the mean of the past similarities, which γ_t times is taken off the next ones |
| `weights` | w_t, of the read; and of the write that follows it |
| `read` | r_t, a mean of whole cells, addresses included |
| `erase`, `add` | e_t and the candidate content |

Readings. Both papers leave the order open that is taken here, the one in which D-NTM can do most: the controller sees
x_t and r_{t-1}, then reads with a key from its new state, and the softmax layer sees that state and r_t; in D-NTM as it
was, the key would not know x_t. What was read at t is written to once y_t is known: that is «the previous read address»
of the next step. There is one read head. D-NTM's usage term is there for finding a cell to write to; with no write head
of its own it would drive a read from the cell just written, so it is off unless asked for. Its cell that does nothing
is left out. y's embedding is that of the inputs.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lib.baselines.sequence import OneStepAtATime, check_pairs, score_in_chunks
from lib.memory import addressing, ntm
from lib.tasks.streams import Scored

# Steps whose memories autograd holds at once: 0.5 GB for 16 streams. Of longer streams it keeps the memory once in
# so many steps, and does those steps again in the backward pass, for a fifth more time.
STEPS_KEPT = 200
USAGE_DECAY = 0.1  # of the usage at each step; the newest similarities have the rest (D-NTM's)


@dataclass(frozen=True)
class DNTMConfig:
    """Sizes of the altered D-NTM."""

    labels: int = 5135
    """Tokens, each of which is an input and a label."""
    embedding: int = 50
    """Length of a token's embedding (paper: silent)."""
    hidden: int = 50
    """Units of the controller, a GRU as in D-NTM (paper: silent; 50 for the other baselines)."""
    cells: int = 128
    """Cells of the memory (paper: silent)."""
    address: int = 16
    """Length of a cell's address (paper: silent)."""
    content: int = 50
    """Length of a cell's content (paper: silent)."""
    usage: bool = False
    """Turn reads away from cells that were like the last keys, by D-NTM's usage term (paper: silent)."""

    def __post_init__(self):
        for name in ("labels", "embedding", "hidden", "cells", "address", "content"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, it is {getattr(self, name)}")


class DNTMState(NamedTuple):
    """All that a D-NTM carries from one step to the next."""

    hidden: Float[Tensor, "batch hidden"]
    contents: Float[Tensor, "batch cells content"]
    read: Float[Tensor, "batch address_and_content"]
    usage: Float[Tensor, "batch 1 cells"]


class DNTM(OneStepAtATime):
    """A GRU with a memory of cells that have learnt addresses, written to where it was last read."""

    def __init__(self, config: DNTMConfig):
        super().__init__()
        self.config = config
        width = config.address + config.content
        self.embedding = nn.Embedding(config.labels, config.embedding)
        self.controller = nn.GRUCell(config.embedding + width, config.hidden)
        self.addresses = nn.Parameter(torch.randn(config.cells, config.address))
        # One head: key, strength, and how much of the usage counts; what to erase.
        self.to_head = nn.Linear(config.hidden, width + 2)
        self.to_erase = nn.Linear(config.hidden, config.content)
        self.to_content = nn.Linear(width + config.embedding, config.content)
        self.to_logits = nn.Linear(config.hidden + width, config.labels)

    def forward(self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of streams, each from an empty memory. `unroll` is ignored: there is one form.

        Raises ValueError for shapes that differ.
        """
        check_pairs(xs, ys)
        state, outputs = self.initial_state(len(xs)), []
        for chunk in zip(xs.split(STEPS_KEPT, 1), ys.split(STEPS_KEPT, 1), strict=True):
            if torch.is_grad_enabled() and xs.shape[1] > STEPS_KEPT:
                found, state = checkpoint(self._several_steps, *chunk, state, use_reentrant=False)
            else:
                found, state = self._several_steps(*chunk, state)
            outputs.append(found)
        return score_in_chunks(self.to_logits, torch.cat(outputs, 1), ys, self.config.labels)

    def _several_steps(self, xs: Tensor, ys: Tensor, state: DNTMState) -> tuple[Tensor, DNTMState]:
        """What the softmax layer sees at each step, and the state after the last."""
        outputs = []
        for seen, told in zip(self.embedding(xs).unbind(1), self.embedding(ys).unbind(1), strict=True):
            state, weights = self.look(seen, state)
            outputs.append(torch.cat([state.hidden, state.read], 1))
            state = self.write(told, state, weights)
        return torch.stack(outputs, 1), state

    def initial_state(self, batch_size: int) -> DNTMState:
        """An empty memory, of which nothing was read yet."""
        config, zeros = self.config, self.addresses.new_zeros
        return DNTMState(
            hidden=zeros(batch_size, config.hidden),
            contents=zeros(batch_size, config.cells, config.content),
            read=zeros(batch_size, config.address + config.content),
            usage=zeros(batch_size, 1, config.cells),
        )

    def look(
        self, seen: Float[Tensor, "batch embedding"], state: DNTMState
    ) -> tuple[DNTMState, Float[Tensor, "batch 1 cells"]]:
        """The controller sees a token and what was read last, then reads; also returns where it read."""
        hidden = self.controller(torch.cat([seen, state.read], 1), state.hidden)
        cells = torch.cat([self.addresses.expand(len(seen), -1, -1), state.contents], 2)
        key, strength, share = self.to_head(hidden).unsqueeze(1).split([cells.shape[2], 1, 1], dim=2)
        similarity = (1 + F.softplus(strength)) * addressing.cosine_similarity(key, cells)
        if self.config.usage:
            weights = torch.softmax(similarity - torch.sigmoid(share) * state.usage, dim=2)
            usage = USAGE_DECAY * state.usage + (1 - USAGE_DECAY) * similarity
        else:
            weights, usage = torch.softmax(similarity, dim=2), state.usage
        return DNTMState(hidden, state.contents, addressing.read(weights, cells).squeeze(1), usage), weights

    def write(
        self, told: Float[Tensor, "batch embedding"], state: DNTMState, weights: Float[Tensor, "batch 1 cells"]
    ) -> DNTMState:
        """Erase and add where it read, from what it read there and the token that came true."""
        erase = torch.sigmoid(self.to_erase(state.hidden))
        add = torch.relu(self.to_content(torch.cat([state.read, told], 1)))
        return state._replace(contents=ntm.erase_and_add(state.contents, weights, erase.unsqueeze(1), add.unsqueeze(1)))

    def logits(self, x: Int[Tensor, " batch"], state: DNTMState) -> Float[Tensor, "batch labels"]:
        """What is predicted to follow x."""
        state, _ = self.look(self.embedding(x), state)
        return self.to_logits(torch.cat([state.hidden, state.read], 1))

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: DNTMState) -> DNTMState:
        """The controller after x, and the memory with y written to where x made it read."""
        return self.write(self.embedding(y), *self.look(self.embedding(x), state))
