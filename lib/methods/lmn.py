"""LMN: a trained network with a memory keyed by label as its second stage (Shankar & Sarawagi 2018).

| here | paper | equation |
| --- | --- | --- |
| `hidden`, `network_p` | h_t and r_ty, of the primary classification network (PCN) | 1 |
| `memory`, `memory_p` | M_ty and α_ty, read by label; s_ty | 2 and 3, in `lib/memory/labelled.py` |
| `Combiner`, `mu`, `theta` | the RNN, its state μ_ty for each label, and θ_ty | 4 |
| `mixed` | P_t(y \\| x_t) | 5 |
| `observe` | the write, if the margin is too small | figure 2 |

One step runs in this order: the network and the memory each predict; the combiner, which has been told how both did at
the last step, weighs them label by label; the true label is revealed; if the mixture's margin was too small, h is
written under that label.

A label that is not in memory has s_ty = 0 at every step. All such labels share one state of the combiner, whose input
r_{t-1,y} is 0 in place of the label's own, which is close to it where there are thousands of labels. So the combiner
costs what the labels in memory cost. `states="all"` keeps a state for every label, as equation 4 has it.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from lib.memory.labelled import TINY, LabelledMemory, Write
from lib.tasks.streams import Scored, rank_of


@runtime_checkable
class Network(Protocol):
    """All that LMN asks of the network that it adapts; `TokenNetwork` of `lib/baselines/sequence.py` is one.

    It is a `torch.nn.Module` with weights of its own.
    """

    hidden_size: int
    labels: int

    def hidden(self, xs: Shaped[Tensor, "batch time ..."], state: Any = None) -> tuple[Tensor, Any]:
        """h_t (batch, time, hidden_size) of consecutive inputs, and the state to go on from; None is a fresh start."""

    def scores(self, hidden: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any labels"]:
        """Logits: the scores of equation 1 before its softmax."""


@dataclass(frozen=True)
class LMNConfig:
    """Sizes, settings and readings of an LMN."""

    cells: int = 1
    """Memory cells of a label (paper: 1 for sequences, 2, 3 and 5 for few-shot learning)."""
    margin: float = 1.0
    """In nats: write unless log P(y) exceeds the best other label's log P by so much (paper: «a hyper-parameter»).

    A tie is no loss at a margin of 0: what gives all labels the same chance, as an empty memory does, never writes."""
    decay: float = 0.99
    """Of a label's weights when one of its cells is written (paper: 0.99)."""
    sharpness: float = 5.0
    """λ of the kernel exp(λ cosine) (paper: silent)."""
    strength: float = 1.0
    """δ of equation 3 (paper: silent)."""
    theta: float | None = None
    """A constant weight of the memory: LMN-fixed; 1 is the memory alone, the few-shot form. None: the combiner's."""
    units: int = 20
    """Of the combiner's RNN, a GRU (paper: silent on both)."""
    states: Literal["held", "all"] = "held"
    """`held`: one combiner state for each label in memory and one for all others; `all`: for every label."""
    update_weights: Literal["cosine", "kernel"] = "cosine"
    """What shares a write among a label's cells: the bare cosine of figure 2, or the kernel of equation 2."""
    new_cells: Literal["on demand", "zeros"] = "on demand"
    """How a label gets its cells, see `LabelledMemory`; the same where a label has one cell (paper: silent)."""
    budget: int | None = None
    """Largest number of cells over all labels; None: no limit."""
    evict: Literal["least", "oldest"] = "least"
    """Whose cells a new label gets when the budget is spent (paper: silent)."""


class Combiner(nn.Module):
    """Equation 4: a GRU that runs on a state of its own for each label, with the same weights for all.

    Its inputs: h_t and the two errors of the last step, which all labels share, and what network and memory gave this
    label in the last step. The shared part of its gates is computed once.
    """

    def __init__(self, hidden: int, units: int):
        super().__init__()
        self.from_shared = nn.Linear(hidden + 2, 3 * units)
        self.from_label = nn.Linear(2, 3 * units, bias=False)
        self.from_state = nn.Linear(units, 3 * units)
        self.to_theta = nn.Linear(units, 1)

    def forward(
        self,
        hidden: Float[Tensor, "batch hidden"],
        errors: Float[Tensor, "batch 2"],
        given: Float[Tensor, "batch states 2"],
        mu: Float[Tensor, "batch states units"],
    ) -> tuple[Float[Tensor, "batch states"], Float[Tensor, "batch states units"]]:
        """θ_ty in (0, 1) and μ_ty of each label's state.

        errors: 1 where network and memory were wrong at the last step. given: r_{t-1,y} and s_{t-1,y}. mu: μ_{t-1,y}.
        """
        shared = self.from_shared(torch.cat([hidden, errors], dim=1)).unsqueeze(1)
        reset, update, new = (shared + self.from_label(given)).chunk(3, dim=2)
        reset_state, update_state, new_state = self.from_state(mu).chunk(3, dim=2)
        reset, update = torch.sigmoid(reset + reset_state), torch.sigmoid(update + update_state)
        mu = torch.lerp(torch.tanh(new + reset * new_state), mu, update)
        return torch.sigmoid(self.to_theta(mu)).squeeze(2), mu


class LMNState(NamedTuple):
    """What an LMN carries from one step to the next, besides its memory.

    `states` counts the labels of the memory's rows, then one state for all other labels; or all labels, in their order.
    """

    network: Any
    mu: Float[Tensor, "batch states units"]
    errors: Float[Tensor, "batch 2"]
    given: Float[Tensor, "batch states 2"]


class Step(NamedTuple):
    """One step, before the label is revealed."""

    hidden: Float[Tensor, "batch hidden"]
    network: Any
    """The network's state after the step."""
    network_p: Float[Tensor, "batch labels"]
    """r_ty"""
    memory_p: Float[Tensor, "batch rows"]
    """s_ty of the label of each row of the memory."""
    theta: Float[Tensor, "batch states"]
    mu: Float[Tensor, "batch states units"]
    mixed: Float[Tensor, "batch labels"]
    """P_t(y | x_t)"""


class LMN(nn.Module):
    """A trained network, which stays as it is, a labelled memory, and the combiner, the only part that is trained.

    The network that is handed over is put into evaluation mode, and its weights take no gradient from then on.
    xs may be anything that the network's `hidden` takes, (batch, time, ...). Writing is decided by the mixture and
    changes what comes later, but no gradient passes through memory: h is the network's, and the combiner only chooses
    whether it is stored.
    """

    def __init__(self, network: Network, config: LMNConfig):
        super().__init__()
        if config.theta is not None and not 0 <= config.theta <= 1:
            raise ValueError(f"theta weighs memory against network: from 0 to 1, not {config.theta}")
        if config.theta == 1 and config.margin <= 0:
            raise ValueError("with theta=1 an empty memory ties all labels: it needs a margin above 0 ever to write")
        self.network, self.config = network.requires_grad_(False).eval(), config
        if config.theta is None:
            self.combiner = Combiner(network.hidden_size, config.units)
        self.memory: LabelledMemory | None = None
        self.state: LMNState | None = None
        self.last_write: Write | None = None
        self._ahead: tuple[Tensor, Step] | None = None

    def train(self, mode: bool = True) -> "LMN":
        """As any module's, but the network stays in evaluation mode: it is trained already."""
        super().train(mode)
        self.network.eval()
        return self

    def begin(self, batch_size: int = 1) -> None:
        """Start so many streams side by side, each with an empty memory."""
        config, network = self.config, self.network
        like = next(network.parameters())
        self.memory = LabelledMemory(
            batch_size,
            network.labels,
            network.hidden_size,
            config.cells,
            new_cells=config.new_cells,
            budget=config.budget,
            evict=config.evict,
            like=like,
        )
        states = network.labels if config.states == "all" else 1
        self.state = LMNState(
            network=None,
            mu=like.new_zeros(batch_size, states, config.units if config.theta is None else 0),
            errors=like.new_zeros(batch_size, 2),
            given=like.new_zeros(batch_size, states, 2),
        )
        self._ahead = None

    def forward(
        self, xs: Shaped[Tensor, "batch time ..."], ys: Int[Tensor, "batch time"], unroll: Any = None
    ) -> Scored:
        """Score a batch of streams from a fresh start; differentiable in the combiner's weights."""
        self.begin(len(ys))
        with torch.no_grad():
            hidden, _ = self.network.hidden(xs)
        log_likelihoods, ranks = [], []
        for now, y in zip(hidden.unbind(1), ys.unbind(1), strict=True):
            step = self._step(now, None)
            log_likelihoods.append(self._log_likelihood(step, y))
            ranks.append(rank_of(step.mixed, step.mixed.gather(1, y.unsqueeze(1))))
            self._reveal(step, y)
        self.memory = self.state = None  # the streams are over
        return Scored(torch.stack(log_likelihoods, 1), torch.stack(ranks, 1))

    @torch.no_grad()
    def predict(self, x: Shaped[Tensor, "batch ..."]) -> Float[Tensor, "batch labels"]:
        """P_t(y | x_t) (equation 5). Changes nothing: ask as often as you like."""
        return self.look(x).mixed

    @torch.no_grad()
    def look(self, x: Shaped[Tensor, "batch ..."]) -> Step:
        """All that goes into the prediction for x: both stages' probabilities and their weights."""
        if self.state is None:
            raise RuntimeError("the stream has not begun: call lmn.begin(batch_size) first")
        if self._ahead is None or not torch.equal(self._ahead[0], x):
            hidden, network_state = self.network.hidden(x.unsqueeze(1), self.state.network)
            self._ahead = x.clone(), self._step(hidden.squeeze(1), network_state)
        return self._ahead[1]

    @torch.no_grad()
    def observe(self, x: Shaped[Tensor, "batch ..."], y: Int[Tensor, " batch"]) -> None:
        """Reveal y, the label of x: written to memory where the margin was too small (figure 2)."""
        self._reveal(self.look(x), y)
        self._ahead = None

    def _step(self, hidden: Tensor, network_state: Any) -> Step:
        config, memory = self.config, self.memory
        with torch.no_grad():
            network_p = torch.softmax(self.network.scores(hidden), dim=1)
            memory_p = memory.scores(hidden, config.sharpness, config.strength)
        if config.theta is None:
            theta, mu = self.combiner(hidden, self.state.errors, self.state.given, self.state.mu)
        else:
            states = self.network.labels if config.states == "all" else memory.rows + 1
            theta, mu = hidden.new_full((len(hidden), states), config.theta), self.state.mu
        with torch.no_grad():
            p = self._mixed(network_p, memory.row_labels, memory_p, theta)
        return Step(hidden, network_state, network_p, memory_p, theta, mu, p)

    def _mixed(self, network_p: Tensor, row_labels: Tensor, memory_p: Tensor, theta: Tensor) -> Tensor:
        if self.config.states == "all":
            return normalised((1 - theta) * network_p + theta * over_all(row_labels, memory_p, self.network.labels))
        return mixed(network_p, row_labels, memory_p, theta[:, :-1], theta[:, -1:])

    def _log_likelihood(self, step: Step, y: Tensor) -> Tensor:
        """log P_t(y | x_t), by the labels in memory alone: the gradient needs no tensor over all labels."""
        y = y.unsqueeze(1)
        if self.config.states == "all":  # there every label has a θ of its own
            p = self._mixed(step.network_p, self.memory.row_labels, step.memory_p, step.theta)
            return p.gather(1, y).squeeze(1).clamp(min=TINY).log()
        labels, (theta, elsewhere) = self.memory.row_labels, (step.theta[:, :-1], step.theta[:, -1:])
        held, total = held_and_total(step.network_p, labels, step.memory_p, theta, elsewhere)
        own = labels == y
        in_memory = own.any(1, keepdim=True)
        p = torch.where(in_memory, (held * own).sum(1, keepdim=True), (1 - elsewhere) * step.network_p.gather(1, y))
        p = torch.where(total > 0, p / total.clamp(min=TINY), 1 / self.network.labels)
        return p.squeeze(1).clamp(min=TINY).log()

    def _reveal(self, step: Step, y: Tensor) -> None:
        config, memory, labels = self.config, self.memory, self.memory.row_labels
        own, other = own_and_best_other(step.mixed, y)
        with_loss, wrong = margin_too_small(own, other, config.margin), ~(own > other)
        own, other = own_and_best_other(step.network_p, y)
        errors = [~(own > other), memory_is_wrong(labels, step.memory_p, y)]
        sharpness = config.sharpness if config.update_weights == "kernel" else 1.0
        self.last_write = memory.write(step.hidden, y, with_loss, wrong, config.decay, sharpness)
        mu, given = self._states_after(step, labels)
        self.state = LMNState(step.network, mu, torch.stack(errors, dim=1).to(step.hidden), given)

    def _states_after(self, step: Step, labels: Tensor) -> tuple[Tensor, Tensor]:
        """μ and what the combiner is given next: as before, and for labels that came into memory, as for all others."""
        if self.config.theta is not None:  # no combiner, nothing to be given
            return self.state.mu, self.state.given
        if self.config.states == "all":
            memory_p = over_all(labels, step.memory_p, self.network.labels)
            return step.mu, torch.stack([step.network_p, memory_p], dim=2)
        now = self.memory.row_labels
        rows, before = now.shape[1], labels.shape[1]
        network_p = step.network_p.gather(1, now.clamp(min=0)) * (now >= 0)
        memory_p, mu = F.pad(step.memory_p, (0, rows - before)), step.mu
        if self.last_write.new_row.any():  # else no state moves, and there may be many
            came = torch.ones_like(now, dtype=torch.bool)
            came[:, :before] = labels != now[:, :before]
            memory_p = memory_p * ~came
            elsewhere = mu[:, -1:]
            mu = torch.cat([mu[:, :before], elsewhere.expand(-1, rows - before, -1)], dim=1)
            mu = torch.cat([torch.where(came.unsqueeze(2), elsewhere, mu), elsewhere], dim=1)
        return mu, F.pad(torch.stack([network_p, memory_p], dim=2), (0, 0, 0, 1))


def mixed(
    network_p: Float[Tensor, "batch labels"],
    row_labels: Int[Tensor, "batch rows"],
    memory_p: Float[Tensor, "batch rows"],
    theta: Float[Tensor, "batch rows"],
    elsewhere: Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch labels"]:
    """P_t(y | x_t) ∝ (1 - θ_ty) r_ty + θ_ty s_ty (equation 5). Not differentiable: see `held_and_total`.

    theta: of the labels of the memory's rows; row_labels is -1 where a row is not in use. elsewhere: θ of all other
    labels, whose s_ty is 0.
    """
    held, total = held_and_total(network_p, row_labels, memory_p, theta, elsewhere)
    batch, labels = network_p.shape
    scale = 1 / total.clamp(min=TINY)
    p = network_p.new_empty(batch, labels + 1)  # the last is for the rows that are not in use
    torch.mul(network_p, (1 - elsewhere) * scale, out=p[:, :labels])  # the only pass over all labels
    p = p.scatter_(1, torch.where(row_labels < 0, labels, row_labels), held * scale)[:, :labels]
    return p if (total > 0).all() else torch.where(total > 0, p, 1 / labels)


def held_and_total(
    network_p: Float[Tensor, "batch labels"],
    row_labels: Int[Tensor, "batch rows"],
    memory_p: Float[Tensor, "batch rows"],
    theta: Float[Tensor, "batch rows"],
    elsewhere: Float[Tensor, "batch 1"],
) -> tuple[Float[Tensor, "batch rows"], Float[Tensor, "batch 1"]]:
    """Equation 5 before it is normalised, of each row's label, and its sum over all labels; by the rows alone.

    The sum is 0 where nothing has any chance, as with θ = 1 and an empty memory.
    """
    network_p = network_p.gather(1, row_labels.clamp(min=0)) * (row_labels >= 0)
    held = (1 - theta) * network_p + theta * memory_p
    return held, held.sum(1, keepdim=True) + (1 - elsewhere) * (1 - network_p.sum(1, keepdim=True)).clamp(min=0)


def normalised(p: Float[Tensor, "batch labels"]) -> Float[Tensor, "batch labels"]:
    """Rows that sum to 1; equal chances where a row has nothing, as with θ = 1 and an empty memory."""
    total = p.sum(1, keepdim=True)
    return torch.where(total > 0, p / total.clamp(min=TINY), 1 / p.shape[1])


def over_all(
    row_labels: Int[Tensor, "batch rows"], values: Float[Tensor, "batch rows"], labels: int
) -> Float[Tensor, "batch labels"]:
    """Values of rows as values of all labels, 0 for labels without a row."""
    places = torch.where(row_labels < 0, labels, row_labels)
    return values.new_zeros(len(values), labels + 1).scatter(1, places, values)[:, :labels]


def own_and_best_other(
    p: Float[Tensor, "batch labels"], y: Int[Tensor, " batch"]
) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The chance of y, and the best that another label has; y was predicted if the first is greater."""
    chosen = y.unsqueeze(1)
    return p.gather(1, chosen).squeeze(1), p.scatter(1, chosen, -1.0).amax(1)


def margin_too_small(
    own: Float[Tensor, " batch"], other: Float[Tensor, " batch"], margin: float
) -> Bool[Tensor, " batch"]:
    """The loss of figure 2 is not zero: log P(y) does not exceed the best other label's log P by `margin`."""
    return ~(own.log() - other.log() >= margin)


def memory_is_wrong(
    row_labels: Int[Tensor, "batch rows"], memory_p: Float[Tensor, "batch rows"], y: Int[Tensor, " batch"]
) -> Bool[Tensor, " batch"]:
    """Memory alone would not choose y; an empty one chooses nothing."""
    if not memory_p.shape[1]:
        return torch.ones_like(y, dtype=torch.bool)
    own = row_labels == y.unsqueeze(1)
    return ~((memory_p * own).sum(1) > memory_p.masked_fill(own, 0.0).amax(1))
