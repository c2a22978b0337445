"""The feed-forward baseline of Santoro et al. 2016: no memory but of the label that it is told, so it stays at chance.

At chance from the second instance on: a first sight is never of the class that was named last, and whoever leaves that
label out is right on 24% of the first instances of five classes, the paper's 24.4%.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from lib.config import added
from lib.methods.online import OnlineLearner
from lib.tasks.labels import LabelKind, make_labels


@dataclass(frozen=True)
class FeedForwardConfig:
    """Sizes of the feed-forward baseline."""

    features: int = 400
    """Length of an input: 20 x 20 pixels."""
    classes: int = 5
    """Classes in an episode, and length of a one-hot label; no other kind of label depends on it."""
    hidden: int = 200
    """Units of the one hidden layer."""
    labels: LabelKind = added("one-hot")
    """What it is told and predicts, see `lib/tasks/labels.py`."""


class FeedForwardState(NamedTuple):
    """Nothing is carried from one step to the next."""


class FeedForward(OnlineLearner):
    """One hidden tanh layer that sees (x_t, y_{t-1})."""

    def __init__(self, config: FeedForwardConfig):
        super().__init__(config.features, make_labels(config.labels, config.classes))
        self.config = config
        self.to_hidden = nn.Sequential(nn.Linear(config.features + self.labels.width, config.hidden), nn.Tanh())
        self.to_logits = nn.Linear(config.hidden, self.labels.outputs)

    def initial_state(self, batch_size: int) -> FeedForwardState:
        """Empty."""
        return FeedForwardState()

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time hidden"]:
        """The whole network but its last layer: no step depends on another."""
        return self.to_hidden(inputs)

    def unroll(
        self, projected: Float[Tensor, "batch time hidden"], state: FeedForwardState
    ) -> tuple[Float[Tensor, "batch time hidden"], FeedForwardState]:
        """Nothing left to do."""
        return projected, state

    def compiled_unroll(self) -> None:
        """None: `unroll` has nothing to do."""
        return None

    def step(
        self, projected: Float[Tensor, "batch hidden"], state: FeedForwardState
    ) -> tuple[Float[Tensor, "batch hidden"], FeedForwardState]:
        """Nothing left to do."""
        return projected, state

    def read_out(self, output: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any outputs"]:
        """A linear layer on the hidden units."""
        return self.to_logits(output)
