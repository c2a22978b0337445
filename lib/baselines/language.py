"""A language model: embedding, LSTM, softmax over the words. What the neural cache and LMN adapt.

Shankar & Sarawagi 2018, «Language Modeling»: «The baseline model (and PCN) is an LSTM with same parameters as in
(Grave, Joulin, and Usunier 2016)». It differs from `TokenNetwork` where a long text asks for it: the LSTM's state goes
on from one block of text to the next, and the softmax over the words may be an adaptive one (Grave et al. 2017).

The adaptive softmax gives frequent words a softmax of their own, and rarer ones a share of it and narrower vectors. It
is a distribution over all words as the plain softmax is, for a twelfth of the work at 33 278 words and 200 units.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.baselines.sequence import OneStepAtATime, check_pairs, dropped, score_in_chunks
from lib.config import added
from lib.tasks.seeds import generator
from lib.tasks.streams import Scored

INITIAL = 0.05  # weights start between -0.05 and 0.05, as those of Grave, Joulin & Usunier (2016)


@dataclass(frozen=True)
class LanguageModelConfig:
    """Sizes of a language model; the defaults are those of Grave, Joulin & Usunier (2016) for WikiText-2."""

    words: int = 33_278
    """Words, each of which is an input and a label; numbered from the most frequent on if there are `cutoffs`."""
    embedding: int = 1024
    """Length of a word's embedding."""
    hidden: int = 1024
    """Units of the LSTM."""
    dropout: float = 0.65
    """Share of the embeddings' and of the hidden units' values set to zero in training."""
    cutoffs: tuple[int, ...] = ()
    """Where the adaptive softmax parts the words, by number; empty: the plain softmax of equation 1."""
    narrower: float = 4.0
    """How many times narrower the adaptive softmax makes each following part's vectors."""
    tied: bool = added(False)
    """A word's embedding is its vector of the softmax, too, to whose length the LSTM's output is projected (Melis,
    Dyer & Blunsom 2017)."""

    def __post_init__(self):
        for name in ("words", "embedding", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, it is {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, it is {self.dropout}")
        bounds = (0, *self.cutoffs, self.words)
        if any(a >= b for a, b in zip(bounds, bounds[1:], strict=False)):
            raise ValueError(f"cutoffs must rise between 0 and the {self.words} words, they are {self.cutoffs}")
        if self.tied and self.cutoffs:
            raise ValueError("an adaptive softmax has no vector of the embedding's length for each word to be tied to")


class LSTMState(NamedTuple):
    """What the LSTM carries from one word to the next, in the form that PyTorch's takes."""

    hidden: Float[Tensor, "layers batch hidden"]
    cell: Float[Tensor, "layers batch hidden"]


class LanguageModel(OneStepAtATime):
    """Embedding, one LSTM layer, softmax; its state goes on with the text, nothing else in it adapts.

    seed: of what dropout sets to zero. The n-th block that is trained on always loses the same, so that training that
    was interrupted goes on as if it had not been.
    """

    def __init__(self, config: LanguageModelConfig, seed: int = 0):
        super().__init__()
        self.config, self.seed = config, seed
        self.labels, self.hidden_size = config.words, config.embedding if config.tied else config.hidden
        self.embedding = None if config.tied else nn.Embedding(config.words, config.embedding)
        self.lstm = nn.LSTM(config.embedding, config.hidden, batch_first=True)
        if config.cutoffs:
            self.softmax = nn.AdaptiveLogSoftmaxWithLoss(
                config.hidden, config.words, list(config.cutoffs), config.narrower
            )
        else:
            self.softmax = nn.Linear(self.hidden_size, config.words)
        self.projection = nn.Linear(config.hidden, config.embedding, bias=False) if config.tied else nn.Identity()
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -INITIAL, INITIAL)
        self.register_buffer("blocks_trained", torch.zeros((), dtype=torch.int64))

    def hidden(
        self, xs: Int[Tensor, "batch time"], state: LSTMState | None = None
    ) -> tuple[Float[Tensor, "batch time hidden"], LSTMState]:
        """h_t of each step, which the softmax takes, and the state after the last; a state of None is a fresh start."""
        hs, state = self._lstm(self._embedded(xs), state)
        return self.projection(hs), state

    def scores(self, hs: Float[Tensor, "*any hidden"]) -> Float[Tensor, "*any words"]:
        """The logits of every word (equation 1, before its softmax); log-probabilities, where it is adaptive."""
        if self.config.cutoffs:
            return self.softmax.log_prob(hs.reshape(-1, self.hidden_size)).view(*hs.shape[:-1], self.labels)
        return self.softmax(hs)

    def log_likelihood(
        self, hs: Float[Tensor, "batch time hidden"], ys: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time"]:
        """log r_{t,y} of what came true (equation 1), in nats; an adaptive softmax does not score all words for it."""
        flat, chosen = hs.reshape(-1, self.hidden_size), ys.reshape(-1)
        if self.config.cutoffs:
            return self.softmax(flat, chosen).output.view(ys.shape)
        return -F.cross_entropy(self.softmax(flat), chosen, reduction="none").view(ys.shape)

    def episode(
        self,
        xs: Int[Tensor, "batch time"],
        ys: Int[Tensor, "batch time"],
        state: LSTMState | None = None,
        unroll: Any = None,
    ) -> tuple[Float[Tensor, "batch time"], LSTMState]:
        """A block of each stream: log-likelihood of what came true, and the state to go on with. How it is trained.

        `unroll` is ignored: there is one form. Raises ValueError for shapes that differ.
        """
        check_pairs(xs, ys)
        embedded = self._embedded(xs)
        if self.training:
            self.blocks_trained += 1
            draws = generator(self.seed, "dropout", int(self.blocks_trained), xs.device)
            embedded = dropped(embedded, self.config.dropout, draws)
        hs, state = self._lstm(embedded, state)
        if self.training:
            hs = dropped(hs, self.config.dropout, draws)
        return self.log_likelihood(self.projection(hs), ys), state

    def carry_over(self, state: LSTMState) -> LSTMState:
        """The state to begin the next block with: the gradient ends at the block's border."""
        return LSTMState(*(part.detach() for part in state))

    def forward(self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score streams from a fresh start. `unroll` is ignored. Raises ValueError for shapes that differ."""
        check_pairs(xs, ys)
        return score_in_chunks(self.scores, self.hidden(xs)[0], ys, self.labels)

    def initial_state(self, batch_size: int) -> LSTMState:
        """Zeros."""
        zeros = self.lstm.weight_hh_l0.new_zeros(1, batch_size, self.config.hidden)
        return LSTMState(zeros, zeros)

    def logits(self, x: Int[Tensor, " batch"], state: LSTMState) -> Float[Tensor, "batch words"]:
        """What is predicted to follow x."""
        return self.scores(self.hidden(x.unsqueeze(1), state)[0][:, 0])

    def advance(self, x: Int[Tensor, " batch"], y: Int[Tensor, " batch"], state: LSTMState) -> LSTMState:
        """The state after x; nothing is learnt from y."""
        return self.hidden(x.unsqueeze(1), state)[1]

    def _embedded(self, xs: Tensor) -> Tensor:
        return F.embedding(xs, self.softmax.weight) if self.embedding is None else self.embedding(xs)

    def _lstm(self, embedded: Tensor, state: LSTMState | None) -> tuple[Tensor, LSTMState]:
        hs, state = self.lstm(embedded, None if state is None else tuple(state))
        return hs, LSTMState(*state)
