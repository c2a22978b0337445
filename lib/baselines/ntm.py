"""MANN with the access of a Neural Turing Machine: by content and by location (Graves et al. 2014).

Santoro et al. 2016 compare with «a MANN with a standard NTM access module» (section 4.2) and say no more of it.
Reading: controller, sizes and number of reads are MANN's; one head writes, as least recently used access fills one new
row a step; a write is followed by a read, as in MANN; all heads begin on slot 0, so that the write head can walk along
an empty memory.

| here | Graves et al. 2014 | equation |
| --- | --- | --- |
| `keys`, `strength`, `gate`, `shifts`, `power` | k_t, β_t, g_t, s_t, γ_t | 5 to 9 |
| `erase`, `add` | e_t, a_t | 3 and 4 |
| `read` | r_t | 2 |
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lib.config import added
from lib.memory import addressing, ntm
from lib.methods.controller import lstm_cell
from lib.methods.online import OnlineLearner
from lib.tasks.labels import LabelKind, make_labels


@dataclass(frozen=True)
class NTMConfig:
    """Sizes; the defaults are those of MANN."""

    features: int = 400
    """Length of an input: 20 x 20 pixels."""
    classes: int = 5
    """Classes in an episode, and length of a one-hot label; no other kind of label depends on it."""
    hidden: int = 200
    """Units of the LSTM controller."""
    slots: int = 128
    """Rows of the memory, N."""
    width: int = 40
    """Length of a row, M."""
    reads: int = 4
    """Read heads."""
    writes: int = 1
    """Write heads."""
    labels: LabelKind = added("one-hot")
    """What it is told and predicts, see `lib/tasks/labels.py`."""


class NTMState(NamedTuple):
    """All that an NTM carries from one step to the next."""

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]
    memory: Float[Tensor, "batch slots width"]
    read_weights: Float[Tensor, "batch reads slots"]
    write_weights: Float[Tensor, "batch writes slots"]
    read: Float[Tensor, "batch reads_times_width"]


class NTM(OnlineLearner):
    """An LSTM controller with an external memory that is addressed by content and by location."""

    def __init__(self, config: NTMConfig):
        super().__init__(config.features, make_labels(config.labels, config.classes))
        self.config = config
        read_width = config.reads * config.width
        self.from_input = nn.Linear(config.features + self.labels.width, 4 * config.hidden)
        self.from_state = nn.Linear(config.hidden + read_width, 4 * config.hidden, bias=False)
        # A head: key, strength, gate, three shifts, power; a write head also what to erase and to add.
        self.to_read_heads = nn.Linear(config.hidden, config.reads * (config.width + 6))
        self.to_write_heads = nn.Linear(config.hidden, config.writes * (3 * config.width + 6))
        self.to_logits = nn.Linear(config.hidden + read_width, self.labels.outputs)

    def initial_state(self, batch_size: int) -> NTMState:
        """An empty memory, all heads on slot 0."""
        config, zeros = self.config, self.from_input.weight.new_zeros
        first = F.one_hot(torch.zeros(batch_size, 1, dtype=torch.int64), config.slots).to(self.from_input.weight)
        return NTMState(
            hidden=zeros(batch_size, config.hidden),
            cell=zeros(batch_size, config.hidden),
            memory=zeros(batch_size, config.slots, config.width),
            read_weights=first.expand(-1, config.reads, -1),
            write_weights=first.expand(-1, config.writes, -1),
            read=zeros(batch_size, config.reads * config.width),
        )

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time gates"]:
        """The controller's part of the input, for all steps in one product."""
        return self.from_input(inputs)

    def step(
        self, projected: Float[Tensor, "batch gates"], state: NTMState
    ) -> tuple[Float[Tensor, "batch out"], NTMState]:
        """One step: the controller, a write, a read."""
        gates = projected + self.from_state(torch.cat([state.hidden, state.read], dim=-1))
        hidden, cell = lstm_cell(gates, state.cell)

        width = self.config.width
        heads = self.to_write_heads(hidden).unflatten(-1, (self.config.writes, -1))
        write_weights = self.focus(heads[..., : width + 6], state.memory, state.write_weights)
        erase, add = heads[..., width + 6 :].chunk(2, dim=-1)
        memory = ntm.erase_and_add(state.memory, write_weights, torch.sigmoid(erase), add)

        heads = self.to_read_heads(hidden).unflatten(-1, (self.config.reads, -1))
        read_weights = self.focus(heads, memory, state.read_weights)
        read = addressing.read(read_weights, memory).flatten(1)
        return torch.cat([hidden, read], dim=-1), NTMState(hidden, cell, memory, read_weights, write_weights, read)

    def fast_unroll(self) -> Callable | None:
        """See `lib/baselines/ntm_fast.py`: on the CPU, with a C compiler at hand and one write head."""
        from lib.baselines.ntm_fast import fast_unroll  # it imports this module

        return fast_unroll(self)

    def focus(
        self,
        head: Float[Tensor, "batch heads key_and_6"],
        memory: Float[Tensor, "batch slots width"],
        previous: Float[Tensor, "batch heads slots"],
    ) -> Float[Tensor, "batch heads slots"]:
        """Equations 5 to 9: by content, then from where the head was, then on by a shift, then sharpened."""
        keys, strength, gate, shifts, power = head.split([self.config.width, 1, 1, len(ntm.SHIFTS), 1], dim=-1)
        weights = ntm.focus_by_content(keys, F.softplus(strength), memory)
        weights = ntm.interpolate(torch.sigmoid(gate), weights, previous)
        weights = ntm.shift(weights, shifts.softmax(-1))
        return ntm.sharpen(weights, 1 + F.softplus(power))

    def read_out(self, output: Float[Tensor, "*any out"]) -> Float[Tensor, "*any outputs"]:
        """The linear layer before the softmax."""
        return self.to_logits(output)
