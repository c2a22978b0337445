"""FLMN: a memory split into features and labels (Mureja, Park & Yoo 2017, Feature-Label Memory Network).

| here | paper | equation |
| --- | --- | --- |
| `key`, `feature`, `label` | k_t, a^f_t, a^l_t: what is looked for, and what is added to either memory | section 4 |
| `gate` | σ(α) | 6 |
| `write_weights` | w^wf_t | 6 |
| `feature_memory` | M^f_t | 7 and 8 |
| `label_weights` | w^wl_t, the feature memory's write weights of the step before | 9 |
| `label_memory` | M^l_t | 10 |
| `read_weights` | w^r_t, addressed by the features | 1 and 2 |
| `read` | r_t, read from the labels | 3 |
| `usage` | w^u_t | 4 |
| `least_used` | w^lu_t | 5 |

One step runs in this order: the controller sees the input, the last label and what was read last; the feature of this
input goes to the slots that the *last* step's weights name, and the label of the *last* input to where that one's
feature went; then the key looks for features, and reads the labels beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lib.config import added
from lib.memory import addressing, lrua
from lib.methods.controller import lstm_cell
from lib.methods.online import OnlineLearner
from lib.tasks.labels import LabelKind, make_labels


@dataclass(frozen=True)
class FLMNConfig:
    """Sizes and readings of an FLMN; half of MANN's 128 slots for each memory."""

    features: int = 400
    """Length of an input: 20 x 20 pixels."""
    reads: ClassVar[int] = 1
    """Read heads (equation 3 has one)."""
    classes: int = 5
    """Classes in an episode, and length of a one-hot label; no other kind of label depends on it."""
    hidden: int = 200
    """Units of the LSTM controller (paper: silent; MANN's)."""
    slots: int = 64
    """Rows of each of the two memories, N/2 (paper: N is silent; MANN's)."""
    width: int = 40
    """Length of a row, M (paper: silent; MANN's)."""
    usage_decay: float = 0.99
    """γ of equation 4 (paper: silent; MANN's)."""
    gate: Literal["constant", "dynamic"] = "constant"
    """`constant`: α is one learnt number, «a scalar gate parameter»; `dynamic`: the controller's at each step."""
    label_write: Literal["recursive", "same-step"] = added("recursive")
    """`recursive`: the label of the last input goes to where that one's feature went (equation 9); `same-step`: to
    where this step's feature goes, as if label and feature had come together."""
    answer_from: Literal["both", "memory"] = added("both")
    """`both`: the softmax sees the hidden state and what was read, as Santoro's equation 16 says in the sentence's
    place; `memory`: what was read alone, «as an input to a softmax classifier» to the letter."""
    labels: LabelKind = "one-hot"
    """What it is told and predicts, see `lib/tasks/labels.py`."""


class FLMNState(NamedTuple):
    """All that an FLMN carries from one step to the next; `one` stands for its one head."""

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]
    feature_memory: Float[Tensor, "batch slots width"]
    label_memory: Float[Tensor, "batch slots width"]
    usage: Float[Tensor, "batch slots"]
    read_weights: Float[Tensor, "batch one slots"]
    write_weights: Float[Tensor, "batch one slots"]
    label_weights: Float[Tensor, "batch one slots"]
    least_used: Float[Tensor, "batch one slots"]
    read: Float[Tensor, "batch width"]


class FLMN(OnlineLearner):
    """An LSTM controller with one memory to find what looks alike, and another for what it was called."""

    def __init__(self, config: FLMNConfig):
        super().__init__(config.features, make_labels(config.labels, config.classes))
        self.config = config
        self.from_input = nn.Linear(config.features + self.labels.width, 4 * config.hidden)
        self.from_state = nn.Linear(config.hidden + config.width, 4 * config.hidden, bias=False)
        self.to_vectors = nn.Linear(config.hidden, 3 * config.width)
        if config.gate == "dynamic":
            self.to_gate = nn.Linear(config.hidden, 1)
        else:
            self.alpha = nn.Parameter(torch.zeros(1))
        seen = config.width if config.answer_from == "memory" else config.hidden + config.width
        self.to_logits = nn.Linear(seen, self.labels.outputs)

    def initial_state(self, batch_size: int) -> FLMNState:
        """Two empty memories whose first slot is the least used one."""
        config, zeros = self.config, self.from_input.weight.new_zeros
        usage = zeros(batch_size, config.slots)
        no_weights = zeros(batch_size, 1, config.slots)
        empty = zeros(batch_size, config.slots, config.width)
        return FLMNState(
            hidden=zeros(batch_size, config.hidden),
            cell=zeros(batch_size, config.hidden),
            feature_memory=empty,
            label_memory=empty,
            usage=usage,
            read_weights=no_weights,
            write_weights=no_weights,
            label_weights=no_weights,
            least_used=lrua.least_used_slots(usage, 1),
            read=zeros(batch_size, config.width),
        )

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time gates"]:
        """The controller's part of the input, for all steps in one product."""
        return self.from_input(inputs)

    def step(
        self, projected: Float[Tensor, "batch gates"], state: FLMNState
    ) -> tuple[Float[Tensor, "batch out"], FLMNState]:
        """One step of the paper's equations, in the order of the module's table."""
        gates = projected + self.from_state(torch.cat([state.hidden, state.read], dim=-1))
        hidden, cell = lstm_cell(gates, state.cell)
        key, feature, label = self.vectors(cell)

        # The feature of this input goes to the slots read last and to the least used one.
        alpha = self.to_gate(hidden) if self.config.gate == "dynamic" else self.alpha.expand(len(hidden), -1)
        gate = torch.sigmoid(alpha).unsqueeze(2)
        write_weights = lrua.write_weights(gate, state.read_weights, state.least_used)
        feature_memory = lrua.write(state.feature_memory, state.least_used, write_weights, feature)

        # The label of the last input goes to where that one's feature went.
        label_weights = write_weights if self.config.label_write == "same-step" else state.write_weights
        label_memory = torch.baddbmm(state.label_memory, label_weights.transpose(1, 2), label)

        # Look among the features, read among the labels.
        read_weights = addressing.content_weights(key, feature_memory)
        read = addressing.read(read_weights, label_memory).squeeze(1)

        # Usage only chooses slots: no gradient passes through it.
        usage = lrua.update_usage(state.usage, read_weights.detach(), write_weights.detach(), self.config.usage_decay)
        least_used = lrua.least_used_slots(usage, 1)

        memories = (feature_memory, label_memory)
        weights = (read_weights, write_weights, label_weights, least_used)
        return torch.cat([hidden, read], dim=-1), FLMNState(hidden, cell, *memories, usage, *weights, read)

    def vectors(self, cell: Float[Tensor, "batch hidden"]) -> tuple[Tensor, Tensor, Tensor]:
        """k_t, a^f_t and a^l_t, each (batch, 1, width)."""
        return self.to_vectors(cell).unsqueeze(1).chunk(3, dim=-1)

    def fast_unroll(self) -> Callable | None:
        """See `lib/methods/flmn_fast.py`: on the CPU, with a C compiler at hand."""
        from lib.methods.flmn_fast import fast_unroll  # it imports this module

        return fast_unroll(self)

    def read_out(self, output: Float[Tensor, "*any out"]) -> Float[Tensor, "*any outputs"]:
        """The linear layer before the softmax."""
        return self.to_logits(output[..., -self.to_logits.in_features :])
