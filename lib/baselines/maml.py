"""Model-agnostic meta-learning, applied online to streams of tokens (Finn, Abbeel & Levine 2017, arXiv:1703.03400).

As Shankar & Sarawagi 2018 compare with it: the base learner is an LSTM of size 50, and after each true label the
gradient of its loss with respect to all parameters is applied before the next input is processed:

    φ_1 = θ        φ_{t+1} = φ_t - rate · ∇ loss_t(φ_t)        meta-loss(θ) = Σ_t loss_t(φ_t)

loss_t is -log P(y_t | x_t), given the LSTM's state of the step before, which is a constant in the inner gradient: that
is of one step, not through time. Each stream has fast weights φ of its own, and they are forgotten after it.

Training. The meta-gradient is truncated to windows of `window` steps: inside one it flows through the LSTM's state and,
for order 2, through the updates; at its end fast weights and state become constants, whose value is θ plus a constant.
So windows meet in θ only, and need not be remembered together. `_Windows` scores the whole batch without gradients;
when the gradients of the scores are known, it walks the streams again, one window at a time. That is once more forward,
and never holds more than one window, whatever the length.

Two forms give the same. `plain` is PyTorch's `vmap` of `grad`, as for any network. The default is for this
one: its gradients are outer products, so a window's changes of the softmax layer stay a list of vectors, added to the
fast weights once a window; of the embedding only the rows seen change. No gradient as large as the weights is formed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lib.baselines.sequence import OneStepAtATime, check_pairs
from lib.methods.controller import lstm_cell
from lib.tasks.streams import Scored, rank_of

Weights = dict[str, Tensor]


def descent(
    loss: Callable[[Weights], tuple[Tensor, Any]], params: Weights, rate: float | Tensor, order: Literal[1, 2]
) -> tuple[Weights, Any]:
    """-rate · ∇ loss(params), and what else `loss` returned beside its value."""
    gradient, rest = grad(loss, has_aux=True)(params)
    return {name: -rate * (each if order == 2 else each.detach()) for name, each in gradient.items()}, rest


@dataclass(frozen=True)
class MAMLConfig:
    """Sizes, rate and order of online MAML."""

    labels: int = 5135
    """Tokens, each of which is an input and a label."""
    embedding: int = 50
    """Length of a token's embedding (paper: silent)."""
    hidden: int = 50
    """Units of the LSTM (paper: 50)."""
    order: Literal[1, 2] = 1
    """2: the meta-gradient flows through the updates; 1: not, the cheaper form of Finn et al. (paper: silent)."""
    rate: float = 0.1
    """Step of the inner gradient descent (paper: silent)."""
    learn_rate: bool = False
    """Learn the rate with the weights, from `rate` on (paper: silent)."""
    window: int = 8
    """Steps through which the meta-gradient flows (paper: silent)."""

    def __post_init__(self):
        if self.order not in (1, 2):
            raise ValueError(f"there is no order {self.order!r}; known: 1, 2")
        if not self.rate > 0:
            raise ValueError(f"rate must be above 0, it is {self.rate}")
        if self.window < 1:
            raise ValueError(f"window must be at least 1, it is {self.window}")


class LSTMStep(nn.Module):
    """One step of a token LSTM: made of linear layers, since `vmap` cannot give PyTorch's own LSTM many weights."""

    def __init__(self, config: MAMLConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.labels, config.embedding)
        self.to_gates = nn.Linear(config.embedding + config.hidden, 4 * config.hidden)
        self.to_logits = nn.Linear(config.hidden, config.labels)

    def forward(
        self, x: Int[Tensor, " batch"], hidden: Float[Tensor, "batch hidden"], cell: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch labels"], Float[Tensor, "batch hidden"], Float[Tensor, "batch hidden"]]:
        """Logits of what follows x, and the next (hidden, cell)."""
        hidden, cell = lstm_cell(self.to_gates(torch.cat([self.embedding(x), hidden], -1)), cell)
        return self.to_logits(hidden), hidden, cell


class PlainState(NamedTuple):
    """All that the plain form carries from one step to the next."""

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]
    changes: Weights
    """Of every weight, one for each stream: φ_t - θ."""


class FastState(NamedTuple):
    """All that the default form carries from one step to the next: φ_t - θ, in four parts.

    A linear layer's bias is the last column of its matrix, and its input ends in 1.
    """

    hidden: Float[Tensor, "batch hidden"]
    cell: Float[Tensor, "batch hidden"]
    tokens: Int[Tensor, "batch steps"]
    """Each token seen so far, ..."""
    row_changes: Float[Tensor, "batch steps embedding"]
    """... and what that step added to its embedding."""
    gate_changes: Float[Tensor, "batch gates inputs_and_1"]
    softmax_changes: Float[Tensor, "batch labels hidden_and_1"]
    """What the softmax layer had changed when the window began."""
    errors: Float[Tensor, "batch since labels"]
    """p - e_y of the steps since then, ..."""
    scaled_inputs: Float[Tensor, "batch since hidden_and_1"]
    """... and -rate times the layer's input there: their outer products are to be added."""


class MAML(OneStepAtATime):
    """An LSTM, all of whose weights go on learning in each stream, and begin where that pays."""

    def __init__(self, config: MAMLConfig):
        super().__init__()
        self.config = config
        self.network = LSTMStep(config)
        self.log_rate = nn.Parameter(torch.tensor(math.log(config.rate)), requires_grad=config.learn_rate)

    def forward(self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of streams from fresh weights θ. unroll: `plain` for the form with `vmap`; None: the default.

        Raises ValueError for shapes that differ, or another form.
        """
        check_pairs(xs, ys)
        if unroll not in (None, "plain"):
            raise ValueError(f"there is no form {unroll!r}; known: None, 'plain'")
        own = [each for each in self.parameters() if each.requires_grad]
        return Scored(*_Windows.apply(self, xs, ys, unroll, *own))

    def windows(self, xs: Tensor, ys: Tensor, form: str | None, ranks: bool) -> Iterator[Scored]:
        """Score one window of steps after another; each has a gradient of its own."""
        state = self.initial_plain_state(len(xs)) if form == "plain" else self.initial_state(len(xs))
        step, end_window = (self.plain_step, detached) if form == "plain" else (self.step, self.end_window_in_place)
        for window in zip(xs.split(self.config.window, 1), ys.split(self.config.window, 1), strict=True):
            scores = []
            for x, y in zip(*(tokens.unbind(1) for tokens in window), strict=True):
                logits, state = step(x, y, state)
                chosen = logits.gather(1, y.unsqueeze(1))
                rank = rank_of(logits.detach(), chosen.detach()) if ranks else chosen.new_zeros(len(y))
                scores.append(Scored(chosen.squeeze(1) - logits.logsumexp(1), rank))
            yield Scored(*(torch.stack(each, 1) for each in zip(*scores, strict=True)))
            state = end_window(state)  # whoever asked for the window has taken its gradient by now

    # The plain form.

    def initial_plain_state(self, batch_size: int) -> PlainState:
        """Fresh weights, and an LSTM that has seen nothing."""
        zeros = self.log_rate.new_zeros(batch_size, self.config.hidden)
        changes = {name: each.new_zeros(batch_size, *each.shape) for name, each in self.network.named_parameters()}
        return PlainState(zeros, zeros, changes)

    def plain_step(
        self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: PlainState
    ) -> tuple[Float[Tensor, "batch labels"], PlainState]:
        """Predict what follows x, then take the gradient for y, for each stream with its own weights."""
        weights = {name: each + state.changes[name] for name, each in self.network.named_parameters()}
        moves, (logits, hidden, cell) = vmap(self._plain_step_of_one)(weights, state.hidden, state.cell, x, y)
        changes = {name: state.changes[name] + move for name, move in moves.items()}
        return logits, PlainState(hidden, cell, changes)

    def _plain_step_of_one(self, weights: Weights, hidden: Tensor, cell: Tensor, x: Tensor, y: Tensor):
        def loss(weights: Weights) -> tuple[Tensor, Any]:
            inputs = (x.unsqueeze(0), hidden.unsqueeze(0), cell.unsqueeze(0))
            logits, *state = functional_call(self.network, weights, inputs)
            return F.cross_entropy(logits[0], y), (logits[0], *(each[0] for each in state))

        return descent(loss, weights, self.log_rate.exp(), self.config.order)

    # The default form.

    def initial_state(self, batch_size: int) -> FastState:
        """Fresh weights, and an LSTM that has seen nothing."""
        config, zeros = self.config, partial(self.log_rate.new_zeros, batch_size)
        return FastState(
            hidden=zeros(config.hidden),
            cell=zeros(config.hidden),
            tokens=torch.zeros(batch_size, 0, dtype=torch.int64, device=self.log_rate.device),
            row_changes=zeros(0, config.embedding),
            gate_changes=zeros(4 * config.hidden, config.embedding + config.hidden + 1),
            softmax_changes=zeros(config.labels, config.hidden + 1),
            errors=zeros(0, config.labels),
            scaled_inputs=zeros(0, config.hidden + 1),
        )

    def step(
        self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: FastState
    ) -> tuple[Float[Tensor, "batch labels"], FastState]:
        """Predict what follows x, then take the gradient for y, for each stream with its own weights."""
        inputs, gates, hidden, cell = self._recur(x, state)
        features = _with_one(hidden)
        logits = self._softmax_layer(features, state)

        # In first order a gradient is a constant, so nothing of how it comes about need be kept.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.order == 2):
            errors = logits.softmax(1).scatter_add(1, y.unsqueeze(1), -torch.ones_like(logits[:, :1]))
            to_gates = gates_gradient(gates, state.cell, cell, self._softmax_layer_transposed(errors, state))
            to_inputs = to_gates @ _matrix(self.network.to_gates) + _times(state.gate_changes.transpose(1, 2), to_gates)
            to_row = to_inputs[:, : self.config.embedding]
        if self.config.order == 1:
            inputs, features = inputs.detach(), features.detach()

        step = -self.log_rate.exp()
        return logits, state._replace(
            hidden=hidden,
            cell=cell,
            tokens=torch.cat([state.tokens, x.unsqueeze(1)], 1),
            row_changes=torch.cat([state.row_changes, (step * to_row).unsqueeze(1)], 1),
            gate_changes=state.gate_changes + (step * to_gates).unsqueeze(2) * inputs.unsqueeze(1),
            errors=torch.cat([state.errors, errors.unsqueeze(1)], 1),
            scaled_inputs=torch.cat([state.scaled_inputs, (step * features).unsqueeze(1)], 1),
        )

    def end_window(self, state: FastState) -> FastState:
        """The same weights and state as constants, the list of the softmax layer's changes added up."""
        return self.end_window_in_place(state._replace(softmax_changes=state.softmax_changes.clone()))

    def end_window_in_place(self, state: FastState) -> FastState:
        """`end_window` where the old state is needed no more: a copy of the softmax layers would take the longest."""
        state = detached(state)
        state.softmax_changes.baddbmm_(state.errors.transpose(1, 2), state.scaled_inputs)
        return state._replace(errors=state.errors[:, :0], scaled_inputs=state.scaled_inputs[:, :0])

    def logits(self, x: Int[Tensor, " batch"], state: FastState) -> Float[Tensor, "batch labels"]:
        """What is predicted to follow x, with the weights as they are now."""
        return self._softmax_layer(_with_one(self._recur(x, state)[2]), state)

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: FastState) -> FastState:
        """The LSTM after x, and its weights after the gradient for y."""
        _, state = self.step(x, y, state)
        return self.end_window(state) if state.errors.shape[1] == self.config.window else state

    def _recur(self, x: Tensor, state: FastState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gates' input, the gates before they are squashed, and the next (hidden, cell)."""
        same = (state.tokens == x.unsqueeze(1)).to(state.row_changes)
        row = self.network.embedding(x) + _times(state.row_changes.transpose(1, 2), same)
        inputs = _with_one(torch.cat([row, state.hidden], 1))
        gates = inputs @ _matrix(self.network.to_gates).T + _times(state.gate_changes, inputs)
        return inputs, gates, *lstm_cell(gates, state.cell)

    def _softmax_layer(self, features: Tensor, state: FastState) -> Tensor:
        """The logits, from the hidden units and a 1."""
        since = _times(state.errors.transpose(1, 2), _times(state.scaled_inputs, features))
        return features @ _matrix(self.network.to_logits).T + _times(state.softmax_changes, features) + since

    def _softmax_layer_transposed(self, errors: Tensor, state: FastState) -> Tensor:
        """The gradient of the hidden units, from that of the logits."""
        since = _times(state.scaled_inputs.transpose(1, 2), _times(state.errors, errors))
        changes = _times(state.softmax_changes.transpose(1, 2), errors)
        return errors @ self.network.to_logits.weight + (changes + since)[:, :-1]


class _Windows(torch.autograd.Function):
    """The scores of a batch, and their gradient, found window by window."""

    @staticmethod
    def forward(ctx, learner: MAML, xs: Tensor, ys: Tensor, form: str | None, *own: Tensor) -> tuple[Tensor, Tensor]:
        ctx.learner, ctx.form = learner, form
        ctx.save_for_backward(xs, ys, *own)
        windows = list(learner.windows(xs, ys, form, ranks=True))
        log_likelihood, rank = (torch.cat(each, 1) for each in zip(*windows, strict=True))
        ctx.mark_non_differentiable(rank)
        return log_likelihood, rank

    @staticmethod
    def backward(ctx, to_log_likelihood: Tensor, _: Tensor):
        xs, ys, *own = ctx.saved_tensors  # raises an error if a weight was changed since
        total = [torch.zeros_like(each) for each in own]
        to_windows = to_log_likelihood.split(ctx.learner.config.window, 1)
        with torch.enable_grad():
            for window, given in zip(ctx.learner.windows(xs, ys, ctx.form, ranks=False), to_windows, strict=True):
                found = torch.autograd.grad(window.log_likelihood, own, given, materialize_grads=True)
                for sum_so_far, each in zip(total, found, strict=True):
                    sum_so_far += each
        return None, None, None, None, *total


def gates_gradient(
    gates: Float[Tensor, "batch four_times_hidden"],
    cell: Float[Tensor, "batch hidden"],
    next_cell: Float[Tensor, "batch hidden"],
    to_hidden: Float[Tensor, "batch hidden"],
) -> Float[Tensor, "batch four_times_hidden"]:
    """The gradient of the gates in `lib.methods.controller.lstm_cell`, from that of the hidden units it returned."""
    forget, write, output = torch.sigmoid(gates[:, : -cell.shape[1]]).chunk(3, dim=1)
    update, squashed = torch.tanh(gates[:, -cell.shape[1] :]), torch.tanh(next_cell)
    to_cell = to_hidden * output * (1 - squashed**2)
    return torch.cat(
        [
            to_cell * cell * forget * (1 - forget),
            to_cell * update * write * (1 - write),
            to_hidden * squashed * output * (1 - output),
            to_cell * write * (1 - update**2),
        ],
        dim=1,
    )


def detached(state: Any) -> Any:
    """A state of tensors, and of dictionaries of them, as constants."""

    def constant(part: Any) -> Any:
        return {name: each.detach() for name, each in part.items()} if isinstance(part, dict) else part.detach()

    return type(state)(*(constant(part) for part in state))


def _matrix(layer: nn.Linear) -> Tensor:
    """Weights, and biases as the last column."""
    return torch.cat([layer.weight, layer.bias.unsqueeze(1)], 1)


def _with_one(inputs: Tensor) -> Tensor:
    return F.pad(inputs, (0, 1), value=1.0)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Each stream's matrix times its vector; as rows, for which the CPU's batched product is ten times faster."""
    return torch.bmm(vectors.unsqueeze(1), matrices.transpose(1, 2)).squeeze(1)
