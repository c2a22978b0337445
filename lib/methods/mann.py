"""MANN: one-shot learning with a memory-augmented neural network (Santoro et al. 2016, arXiv:1605.06065).

| here | paper | equation |
| --- | --- | --- |
| `hidden`, `cell` | h_t, c_t, the LSTM controller | 9 to 15 |
| `read_keys`, `write_keys` | k_t, one for each head: what it looks for, and what it stores | text of 3.1; 17, 23 |
| `gate` | σ(α), one for each head | 7, 22 |
| `write_weights` | w^w_t | 7, 22 |
| `memory` | M_t | 8, 23 |
| `read_weights` | w^r_t | 2 and 3, 17 and 18 |
| `read` | r_t, all heads side by side | 4, 19 |
| `usage` | w^u_t | 5, 20 |
| `least_used` | w^lu_t | 6, 21 |
| `output` | o_t = (h_t, r_t) | 16 |

One step runs in this order: the controller sees the input, the last label and what was read last; its write keys go to
the slots that the *last* step's weights name; the memory *after* this write is read with its read keys.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.config import added
from lib.memory import addressing, lrua
from lib.methods.controller import lstm_cell
from lib.methods.online import OnlineLearner
from lib.tasks.labels import LabelKind, make_labels


@dataclass(frozen=True)
class MANNConfig:
    """Sizes and readings of a MANN; the defaults are those of the paper's Omniglot runs (supplement 9)."""

    features: int = 400
    """Length of an input: 20 x 20 pixels."""
    classes: int = 5
    """Classes in an episode, and length of a one-hot label; no other kind of label depends on it."""
    controller: Literal["lstm", "feedforward"] = "lstm"
    """The controller network."""
    hidden: int = 200
    """Units of the controller."""
    slots: int = 128
    """Rows of the memory, N."""
    width: int = 40
    """Length of a row, M."""
    reads: int = 4
    """Heads: each reads once and writes once in a step."""
    usage_decay: float = 0.99
    """γ of equation 5."""
    keys: Literal["separate", "shared"] = "separate"
    """`separate`: a head stores one vector and looks for another; `shared`: the vector it stores is its query too."""
    write_to: Literal["all", "own"] = "all"
    """`all`: every head writes to all of the n least used slots; `own`: head j writes to the j-th of them."""
    gate: Literal["dynamic", "constant", "fixed"] = "dynamic"
    """`dynamic`: the controller gives α at each step (supplement 6.1); `constant`: α is one learnt number a head;
    `fixed`: α is 0 and not learnt, so that half of a write goes to either place."""
    labels: LabelKind = added("one-hot")
    """What it is told and predicts: `one-hot` classes, `strings` of five letters, or a `real` number."""


class MANNState(NamedTuple):
    """All that a MANN carries from one step to the next."""

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]
    memory: Float[Tensor, "batch slots width"]
    usage: Float[Tensor, "batch slots"]
    read_weights: Float[Tensor, "batch heads slots"]
    write_weights: Float[Tensor, "batch heads slots"]
    least_used: Float[Tensor, "batch heads slots"]
    read: Float[Tensor, "batch heads_times_width"]


class MANN(OnlineLearner):
    """An LSTM or feed-forward controller with an external memory that is written by least recently used access."""

    def __init__(self, config: MANNConfig):
        if not 1 <= config.reads <= config.slots:
            raise ValueError(f"{config.reads} heads cannot each have a slot of their own among {config.slots}")
        super().__init__(config.features, make_labels(config.labels, config.classes))
        self.config = config
        lstm = config.controller == "lstm"
        gates = 4 * config.hidden if lstm else config.hidden
        read_width = config.reads * config.width
        self.from_input = nn.Linear(config.features + self.labels.width, gates)
        self.from_state = nn.Linear(read_width + (config.hidden if lstm else 0), gates, bias=False)
        self.to_keys = nn.Linear(config.hidden, read_width * (2 if config.keys == "separate" else 1))
        if config.gate == "dynamic":
            self.to_gate = nn.Linear(config.hidden, config.reads)
        else:
            self.alpha = nn.Parameter(torch.zeros(config.reads), requires_grad=config.gate == "constant")
        self.to_logits = nn.Linear(config.hidden + read_width, self.labels.outputs)

    def initial_state(self, batch_size: int) -> MANNState:
        """An empty memory whose first slots are the least used ones."""
        config, like = self.config, self.from_input.weight
        zeros = like.new_zeros
        usage = zeros(batch_size, config.slots)
        no_weights = zeros(batch_size, config.reads, config.slots)
        return MANNState(
            hidden=zeros(batch_size, config.hidden),
            cell=zeros(batch_size, config.hidden),
            memory=zeros(batch_size, config.slots, config.width),
            usage=usage,
            read_weights=no_weights,
            write_weights=no_weights,
            least_used=lrua.least_used_slots(usage, config.reads),
            read=zeros(batch_size, config.reads * config.width),
        )

    def carry_over(self, state: MANNState) -> MANNState:
        """The external memory as it was left, with usage and weights, without gradient; the controller begins anew."""
        fresh = self.initial_state(len(state.memory))
        left = MANNState(*(part.detach() for part in state))
        return left._replace(hidden=fresh.hidden, cell=fresh.cell, read=fresh.read)

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time gates"]:
        """W_xh (x_t, y_{t-1}) + b_h of equation 9, for all steps in one product."""
        return self.from_input(inputs)

    def step(
        self, projected: Float[Tensor, "batch gates"], state: MANNState
    ) -> tuple[Float[Tensor, "batch out"], MANNState]:
        """One step of the paper's equations, in the order of the module's table."""
        config = self.config
        hidden, cell = self.control(projected, state)

        # Write: the write keys go to the slots read last and to the least used ones.
        read_keys, write_keys = self.keys(cell)
        alpha = self.to_gate(hidden) if config.gate == "dynamic" else self.alpha.expand(len(hidden), -1)
        gate = torch.sigmoid(alpha).unsqueeze(2)
        target = state.least_used if config.write_to == "own" else state.least_used.sum(1, keepdim=True)
        write_weights = lrua.write_weights(gate, state.read_weights, target)
        memory = lrua.write(state.memory, state.least_used, write_weights, write_keys)

        # Read the new memory by content.
        read_weights = addressing.content_weights(read_keys, memory)
        read = addressing.read(read_weights, memory).flatten(1)

        # Usage only chooses slots: no gradient passes through it.
        usage = lrua.update_usage(state.usage, read_weights.detach(), write_weights.detach(), config.usage_decay)
        least_used = lrua.least_used_slots(usage, config.reads)

        next_state = MANNState(hidden, cell, memory, usage, read_weights, write_weights, least_used, read)
        return torch.cat([hidden, read], dim=-1), next_state

    def fast_unroll(self) -> Callable | None:
        """See `lib/methods/mann_fast.py`: on the CPU, with a C compiler at hand."""
        from lib.methods.mann_fast import fast_unroll  # it imports this module

        return fast_unroll(self)

    def control(self, projected: Tensor, state: MANNState) -> tuple[Tensor, Tensor]:
        """The controller's new (hidden, cell): an LSTM (equations 9 to 15), or one tanh layer that is both."""
        if self.config.controller == "feedforward":
            hidden = torch.tanh(projected + self.from_state(state.read))
            return hidden, hidden
        gates = projected + self.from_state(torch.cat([state.hidden, state.read], dim=-1))
        return lstm_cell(gates, state.cell)

    def keys(
        self, cell: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch heads width"], Float[Tensor, "batch heads width"]]:
        """What each head looks for and what it stores; the same where one key serves both."""
        keys = self.to_keys(cell).unflatten(-1, (-1, self.config.reads, self.config.width))
        return keys[:, 0], keys[:, -1]

    def read_out(self, output: Float[Tensor, "*any out"]) -> Float[Tensor, "*any outputs"]:
        """The linear layer before the softmax of equation 24, or before the Gaussian of a regression."""
        return self.to_logits(output)
