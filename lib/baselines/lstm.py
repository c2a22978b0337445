"""The LSTM baseline of Santoro et al. 2016: the controller without its memory (equations 9 to 15)."""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from lib.config import added
from lib.methods.online import OnlineLearner
from lib.tasks.labels import LabelKind, make_labels


@dataclass(frozen=True)
class LSTMConfig:
    """Sizes of the LSTM baseline."""

    features: int = 400
    """Length of an input: 20 x 20 pixels."""
    classes: int = 5
    """Classes in an episode, and length of a one-hot label; no other kind of label depends on it."""
    hidden: int = 200
    """Units."""
    labels: LabelKind = added("one-hot")
    """What it is told and predicts, see `lib/tasks/labels.py`."""


class LSTMState(NamedTuple):
    """All that an LSTM carries from one step to the next."""

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]


class LSTM(OnlineLearner):
    """An LSTM that sees (x_t, y_{t-1}) and classifies from its hidden state."""

    def __init__(self, config: LSTMConfig):
        super().__init__(config.features, make_labels(config.labels, config.classes))
        self.config = config
        self.lstm = nn.LSTM(config.features + self.labels.width, config.hidden, batch_first=True)
        self.to_logits = nn.Linear(config.hidden, self.labels.outputs)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Zeros."""
        zeros = self.to_logits.weight.new_zeros(batch_size, self.config.hidden)
        return LSTMState(zeros, zeros)

    def unroll(
        self, projected: Float[Tensor, "batch time inputs"], state: LSTMState
    ) -> tuple[Float[Tensor, "batch time hidden"], LSTMState]:
        """Several steps in one call of PyTorch's own LSTM."""
        outputs, (hidden, cell) = self.lstm(projected, (state.hidden.unsqueeze(0), state.cell.unsqueeze(0)))
        return outputs, LSTMState(hidden[0], cell[0])

    def compiled_unroll(self) -> None:
        """None: `unroll` is one call of PyTorch's own LSTM."""
        return None

    def step(
        self, projected: Float[Tensor, "batch inputs"], state: LSTMState
    ) -> tuple[Float[Tensor, "batch hidden"], LSTMState]:
        """`unroll` over one step."""
        outputs, state = self.unroll(projected.unsqueeze(1), state)
        return outputs[:, 0], state

    def read_out(self, output: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any outputs"]:
        """A linear layer on the hidden state."""
        return self.to_logits(output)
