"""A recurrent network of tokens: the network that LMN adapts, and the larger LSTM that it is compared with.

Shankar & Sarawagi 2018, «Online sequence prediction»: «The PCN is a GRU and the input is the embedding of the true
observed token»; its softmax layer is equation 1. The baseline is «a larger LSTM which has roughly 5 times more RNN
parameters»: the same class, see `larger_lstm`.

The network plugs into what adapts it by `hidden_size`, `labels`, `hidden(xs, state)` and `scores(hs)`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lib.tasks.seeds import generator
from lib.tasks.streams import Scored, rank_of

# Logits of one chunk of time: 16 MB in float32. 32 streams of 140 steps and 40 000 labels have 45 times as many.
CHUNK_LOGITS = 2**22


@dataclass(frozen=True)
class TokenNetworkConfig:
    """Sizes of a recurrent network of tokens; the defaults are the network that LMN adapts."""

    labels: int = 5135
    """Tokens, each of which is an input and a label (paper: 8 325 to 39 481, by data set)."""
    embedding: int = 50
    """Length of a token's embedding (paper: silent)."""
    hidden: int = 50
    """Units (paper: 50 for the LSTMs of Rei and MAML, silent for the network that LMN adapts)."""
    cell: Literal["gru", "lstm"] = "gru"
    """The recurrent layer (paper: a GRU where LMN adapts it, an LSTM for the baselines)."""
    dropout: float = 0.0
    """Share of the embeddings' and of the hidden units' values set to zero in training (paper: silent)."""

    def __post_init__(self):
        if self.cell not in ("gru", "lstm"):
            raise ValueError(f"there is no cell {self.cell!r}; known: gru, lstm")
        for name in ("labels", "embedding", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, it is {getattr(self, name)}")


class OneStepAtATime(nn.Module):
    """The streaming view that the baselines share: a state, what it predicts, and how it goes on.

    A subclass gives `initial_state`, `logits` and `advance`, none of which changes anything in the learner.
    """

    def __init__(self):
        super().__init__()
        self.state: Any = None

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first step of so many streams."""
        raise NotImplementedError

    def logits(self, x: Int[Tensor, " batch"], state: Any) -> Float[Tensor, "batch labels"]:
        """What is predicted to follow x, before the softmax."""
        raise NotImplementedError

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: Any) -> Any:
        """The state of the next step, now that y is known to follow x."""
        raise NotImplementedError

    @torch.no_grad()
    def begin(self, batch_size: int = 1) -> None:
        """Start `batch_size` streams side by side; what was adapted in the last ones is forgotten."""
        self.state = self.initial_state(batch_size)

    @torch.no_grad()
    def predict(self, x: Int[Tensor, " batch"]) -> Float[Tensor, "batch labels"]:
        """Probabilities of what follows x. Changes nothing. Raises RuntimeError before `begin`."""
        self._check_begun()
        return self.logits(x, self.state).softmax(-1)

    @torch.no_grad()
    def observe(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"]) -> None:
        """Reveal what follows x. Raises RuntimeError before `begin`."""
        self._check_begun()
        self.state = self.advance(x, y, self.state)

    def _check_begun(self) -> None:
        if self.state is None:
            raise RuntimeError("the stream has not begun: call learner.begin(batch_size) first")


class TokenNetwork(OneStepAtATime):
    """Embedding, GRU or LSTM, softmax layer (equation 1); nothing in it adapts but the recurrent state.

    seed: of what dropout sets to zero. The n-th batch that is trained on always loses the same, so that training that
    was interrupted goes on as if it had not been.
    """

    def __init__(self, config: TokenNetworkConfig, seed: int = 0):
        super().__init__()
        self.config, self.seed = config, seed
        self.labels, self.hidden_size = config.labels, config.hidden
        self.embedding = nn.Embedding(config.labels, config.embedding)
        recurrent = nn.GRU if config.cell == "gru" else nn.LSTM
        self.recurrent = recurrent(config.embedding, config.hidden, batch_first=True)
        self.to_logits = nn.Linear(config.hidden, config.labels)
        self.register_buffer("batches_trained", torch.zeros((), dtype=torch.int64))

    def hidden(
        self, xs: Int[Tensor, "batch time"], state: Any = None
    ) -> tuple[Float[Tensor, "batch time hidden"], Any]:
        """h_t of each step and the state after the last; a state of None is a fresh start. Nothing is dropped."""
        return self.recurrent(self.embedding(xs), state)

    def scores(self, hs: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any labels"]:
        """The logits β h + b of every label (equation 1, before its softmax)."""
        return self.to_logits(hs)

    def forward(self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of streams from a fresh start. `unroll` is ignored: there is one form.

        Raises ValueError for shapes that differ.
        """
        check_pairs(xs, ys)
        if not self.training:
            return score_in_chunks(self.scores, self.hidden(xs)[0], ys, self.labels)
        self.batches_trained += 1
        draws = generator(self.seed, "dropout", int(self.batches_trained), xs.device)
        hs, _ = self.recurrent(dropped(self.embedding(xs), self.config.dropout, draws))
        return score_in_chunks(self.scores, dropped(hs, self.config.dropout, draws), ys, self.labels)

    def initial_state(self, batch_size: int) -> Any:
        """Zeros, in the form that PyTorch's recurrent layers take."""
        zeros = self.to_logits.weight.new_zeros(1, batch_size, self.hidden_size)
        return zeros if self.config.cell == "gru" else (zeros, zeros)

    def logits(self, x: Int[Tensor, " batch"], state: Any) -> Float[Tensor, "batch labels"]:
        """What the network predicts to follow x."""
        return self.scores(self.hidden(x.unsqueeze(1), state)[0][:, 0])

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: Any) -> Any:
        """The recurrent state after x; the network learns nothing from y."""
        return self.hidden(x.unsqueeze(1), state)[1]


def dropped(
    values: Float[Tensor, "batch time width"], share: float, draws: torch.Generator
) -> Float[Tensor, "batch time width"]:
    """`values` with a share of them set to zero, the others scaled up to keep the mean."""
    if not share:
        return values
    kept = torch.rand(values.shape, generator=draws, device=values.device, dtype=values.dtype) >= share
    return values * kept / (1 - share)


def check_pairs(xs: Tensor, ys: Tensor) -> None:
    """Raises ValueError unless each token of xs has its successor in ys."""
    if xs.ndim != 2 or xs.shape != ys.shape:
        raise ValueError(
            f"expected tokens (B, T) and their successors (B, T), got {tuple(xs.shape)}, {tuple(ys.shape)}"
        )


def score_in_chunks(
    scores: Callable[[Tensor], Tensor],
    hs: Float[Tensor, "batch time features"],
    ys: Int[Tensor, "batch time"],
    labels: int,
) -> Scored:
    """`lib.tasks.streams.score` of `scores(hs)`, without ever holding the logits of all steps.

    scores: from features to logits over `labels` labels; it must draw nothing at random.
    """

    def score_chunk(hs: Tensor, ys: Tensor) -> tuple[Tensor, Tensor]:
        logits = scores(hs)
        chosen = logits.gather(-1, ys.unsqueeze(-1))
        log_likelihood = chosen.squeeze(-1) - logits.logsumexp(-1)
        # After all that has a gradient: the second run of the chunk, in the backward pass, stops before it.
        return log_likelihood, rank_of(logits.detach(), chosen.detach())

    # The logits of all steps, their softmax and its gradient would be gigabytes; the gradient needs them only once. So
    # each chunk is computed, reduced to two numbers a step, and computed again in the backward pass: a third more work.
    steps = max(1, CHUNK_LOGITS // (ys.shape[0] * labels))
    if not torch.is_grad_enabled() or steps >= ys.shape[1]:
        chunks = [score_chunk(*pair) for pair in zip(hs.split(steps, 1), ys.split(steps, 1), strict=True)]
    else:
        chunks = [
            checkpoint(score_chunk, *pair, use_reentrant=False, preserve_rng_state=False)
            for pair in zip(hs.split(steps, 1), ys.split(steps, 1), strict=True)
        ]
    log_likelihood, rank = zip(*chunks, strict=True)
    return Scored(torch.cat(log_likelihood, 1), torch.cat(rank, 1))


def recurrent_parameters(config: TokenNetworkConfig) -> int:
    """Trained numbers of the recurrent layer alone: its gates' matrices, and two biases, as PyTorch has them."""
    gates = 3 if config.cell == "gru" else 4
    return gates * config.hidden * (config.embedding + config.hidden + 2)


def larger_lstm(labels: int, network_config: TokenNetworkConfig, times: float = 5) -> TokenNetworkConfig:
    """The LSTM whose recurrent parameters are nearest to `times` those of a network, which stays as it is otherwise.

    Embedding and softmax layer are not counted: the paper speaks of «RNN parameters».
    """
    target = times * recurrent_parameters(network_config)
    found = replace(network_config, labels=labels, cell="lstm", hidden=1)
    while True:
        wider = replace(found, hidden=found.hidden + 1)
        if abs(recurrent_parameters(wider) - target) >= abs(recurrent_parameters(found) - target):
            return found
        found = wider
