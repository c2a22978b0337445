"""MbPA on a text: at each word the softmax layer is fitted to the likest of the last N steps (Sprechmann et al., 4.3).

«The memory stores the past LSTM outputs and associated class labels observed during evaluation»: step i of the past is
the pair (h_i, x_{i+1}), what was seen and the word that followed, as in the neural cache. Outputs are mixed «alike to
equation 5»:

    p(w) = (1 - λ_mbpa - λ_cache) p_LSTM(w) + λ_mbpa p_MbPA(w) + λ_cache p_cache(w)

With one step of gradient descent, as the paper has it, the fit is the dual form of `lib/methods/mbpa.py` for a whole
block of queries at once. With p_i = softmax(W h_i + b) of each step of the past, computed once,

    logits(q) - Σ_i a_i (p_i - e_{w_i}),     a_i = α w_i (h_i·q + 1), which is 0 but for the K neighbours

is a sum of K rows of the p of the past for each query. They are kept in a ring of N steps and a block, and cut into
columns that fit in a cache, since many queries read the same rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.baselines.looking_back import LooksBack, Past
from lib.baselines.neural_cache import attention
from lib.baselines.sequence import check_pairs
from lib.memory.episodic import Context, EarlierSteps, kernel_weights, nearest, nearest_earlier
from lib.methods.lmn import Network
from lib.methods.mbpa import Adapted, MbPAConfig, fitter

TINY = 1e-30
ROUNDING = 1e-9  # of a sum of shares
BLOCK = 256  # queries whose past is one stretch
COLUMNS = 128  # words whose p of the past is read together: 2.6 MB at N = 5000
KEYS_AT_ONCE = 2**24  # numbers of the neighbours' keys, or of their logits, that are held at once: 64 MB


@dataclass(frozen=True)
class TextMbPAConfig:
    """The memory, the local fit and the mixture; the shares are chosen on validation text."""

    fit: MbPAConfig = field(default_factory=lambda: MbPAConfig(neighbours=256))
    """How the softmax layer is fitted (paper: K = 256, T = 1, α = 0.15)."""
    size: int = 5000
    """N, steps that the memory holds (paper: 5000)."""
    share: float = 0.1
    """λ_mbpa (paper: 0.1)."""
    cache_share: float = 0.0
    """λ_cache (paper: 0.15 beside MbPA)."""
    cache_sharpness: float = 0.3
    """θ of the neural cache (paper: silent)."""

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"the memory looks back at least one step, not {self.size}")
        network_share(self.share, self.cache_share)


def network_share(share: float, cache_share: float) -> float:
    """What λ_mbpa and λ_cache leave to the network. Raises ValueError if they are no shares of a mixture."""
    own = 1 - share - cache_share
    if min(share, cache_share) < 0 or own < -ROUNDING:
        raise ValueError(f"the shares {share} and {cache_share} must be 0 or more, and 1 at most together")
    return max(0.0, own)


class Parts(NamedTuple):
    """log-likelihood of what came true, in nats, by each of what is mixed; shares can be chosen afterwards."""

    network: Float[Tensor, "batch time"]
    fitted: Float[Tensor, "batch time"]
    """The network's own where there is no past."""
    cache: Float[Tensor, "batch time"]
    """The network's own where there is no past."""

    def mixed(self, share: float, cache_share: float) -> Float[Tensor, "batch time"]:
        """log p(w) with these λ_mbpa and λ_cache. Raises ValueError if they are no shares of a mixture."""
        shares = self.network.new_tensor([network_share(share, cache_share), share, cache_share])
        return (torch.stack(list(self), dim=2) + shares.log()).logsumexp(2)


class Block(NamedTuple):
    """Some steps of one stream, one after the other: what is predicted to follow each."""

    start: int
    """The first of them."""
    network: Float[Tensor, "time words"]
    """log p of all words."""
    fitted: list[Tensor]
    """Logits of the fitted layer, (time, words), for each rate."""


class TextMbPA(LooksBack):
    """A language model, which stays as it is, and a memory of its last N hidden states to fit its softmax layer to.

    output: the network's softmax layer, which gives its `scores`.
    """

    def __init__(self, network: Network, output: nn.Linear, config: TextMbPAConfig):
        super().__init__(network, config.size)
        self.output, self.config = output, config

    @torch.no_grad()
    def episode(
        self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], past: Past | None = None
    ) -> tuple[Float[Tensor, "batch time"], Past]:
        """A block of each stream: log-likelihood of what came true, in nats, and the past to go on with.

        Raises ValueError for shapes that differ.
        """
        parts, past = self.parts(xs, ys, past)
        return parts.mixed(self.config.share, self.config.cache_share), past

    @torch.no_grad()
    def parts(
        self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], past: Past | None = None
    ) -> tuple[Parts, Past]:
        """As `episode`, before the mixture."""
        (found,), past = self.parts_by_rate(xs, ys, (self.config.fit.rate,), past)
        return found, past

    @torch.no_grad()
    def parts_by_rate(
        self,
        xs: Int[Tensor, "batch time"],
        ys: Int[Tensor, "batch time"],
        rates: Sequence[float],
        past: Past | None = None,
    ) -> tuple[list[Parts], Past]:
        """As `parts`, for each of some α in place of that of the config: where there is one step of gradient descent,
        all of them cost little more than one."""
        check_pairs(xs, ys)
        past = past or self.initial_state(len(xs))
        now, network_state = self.network.hidden(xs, past.network)
        seen = past.followed_by(network_state, now, ys)
        pairs = zip(seen.hidden, seen.words, strict=True)
        found = torch.stack([self._stream(*each, past.hidden.shape[1], rates) for each in pairs])
        network, cache, *fitted = found.unbind(2)
        parts = [Parts(network, each, cache) for each in fitted]
        return parts, seen.last(self.size)

    def logits(self, x: Int[Tensor, " batch"], state: Past) -> Float[Tensor, "batch words"]:
        """log of what is predicted to follow x."""
        config, now = self.config, self.network.hidden(x.unsqueeze(1), state.network)[0][:, 0]
        network_p = torch.softmax(self.output(now), dim=1)
        if not state.words.shape[1]:
            return network_p.log()
        context = self._context(now, state.hidden, state.words)
        fitted_p = torch.softmax(self._fitted(now, context, config.fit).outputs, dim=1)
        steps = state.words.shape[1]
        weights = attention(now.unsqueeze(1), state.hidden, steps, self.size, config.cache_sharpness)[:, 0]
        cache_p = torch.zeros_like(network_p).scatter_add(1, state.words, weights)
        own = network_share(config.share, config.cache_share)
        return (own * network_p + config.share * fitted_p + config.cache_share * cache_p).clamp(min=TINY).log()

    def _stream(
        self, hidden: Float[Tensor, "steps hidden"], words: Int[Tensor, " steps"], earlier: int, rates: Sequence[float]
    ) -> Float[Tensor, "time parts"]:
        """Log-likelihoods of one stream, from step `earlier` on: the network's, the cache's, one for each rate."""
        size, found = self.size, []
        for start, network, fitted in self.blocks(hidden, words, earlier, rates):
            end, first = start + len(network), max(0, start - size)
            y = words[start:end].unsqueeze(1)
            weights = attention(
                hidden[None, start:end], hidden[None, first:end], start - first, size, self.config.cache_sharpness
            )[0]
            cache = (weights * (words[first:end] == y)).sum(1, keepdim=True).log()
            network = network.gather(1, y)
            cache = torch.where(weights.any(1, keepdim=True), cache, network)
            found.append(torch.cat([network, cache, *(each.log_softmax(1).gather(1, y) for each in fitted)], dim=1))
        return torch.cat(found)

    @torch.no_grad()
    def blocks(
        self, hidden: Float[Tensor, "steps hidden"], words: Int[Tensor, " steps"], earlier: int, rates: Sequence[float]
    ) -> Iterator[Block]:
        """One stream from step `earlier` on, block by block, fitted at each of these α.

        hidden: of each step, the earlier ones too; words: what followed.
        """
        size, fit = self.size, self.config.fit
        one_step = fit.optimizer == "sgd" and fit.steps == 1
        known = _KnownP(min(size + BLOCK, len(words)), self.output.weight) if one_step else None
        if one_step:
            for start in range(max(0, earlier - size), earlier, BLOCK):
                past = hidden[start : min(start + BLOCK, earlier)]
                known.keep(start, torch.softmax(self.output(past), dim=1))
        for start in range(earlier, len(words), BLOCK):
            at = torch.arange(start, min(start + BLOCK, len(words)), device=hidden.device)
            logits = self.output(hidden[at])
            network = torch.log_softmax(logits, dim=1)
            near = nearest_earlier(hidden, at, size, fit.neighbours, fit.epsilon)
            if one_step:
                known.keep(start, network.exp())
                move = self._one_step(near, words[near.positions], known)
                fitted = [logits + rate * move for rate in rates]
            else:
                fitted = [
                    self._fitted_by_parts(hidden[at], hidden, words, near, replace(fit, rate=rate)) for rate in rates
                ]
            yield Block(start, network, fitted)

    def _one_step(
        self, near: EarlierSteps, followed: Int[Tensor, "time k"], known: "_KnownP"
    ) -> Float[Tensor, "time words"]:
        """What one step of gradient descent at α = 1 adds to the logits."""
        one = 0.0 if self.output.bias is None else 1.0
        a = near.weights * (near.products + one)
        return known.sums(near.positions, -a).scatter_add_(1, followed, a)

    def _fitted_by_parts(
        self, now: Tensor, hidden: Tensor, words: Tensor, near: EarlierSteps, fit: MbPAConfig
    ) -> Float[Tensor, "time words"]:
        """Logits after any fit; a few queries at a time, since each has neighbours of its own."""
        some = max(1, KEYS_AT_ONCE // (near.positions.shape[1] * max(now.shape[1], self.output.out_features)))
        parts = zip(now.split(some), near.positions.split(some), near.weights.split(some), strict=True)
        return torch.cat([self._fitted(q, Context(hidden[at], words[at], w), fit).outputs for q, at, w in parts])

    def _context(self, now: Tensor, hidden: Tensor, words: Tensor) -> Context:
        """C of a query of each stream, all of whose steps are in its memory."""
        found = [nearest(q, own, self.config.fit.neighbours) for q, own in zip(now.split(1), hidden, strict=True)]
        at, distances = (torch.cat(each) for each in zip(*found, strict=True))
        keys = hidden.gather(1, at.unsqueeze(2).expand(-1, -1, hidden.shape[2]))
        return Context(keys, words.gather(1, at), kernel_weights(distances, self.config.fit.epsilon))

    def _fitted(self, queries: Tensor, context: Context, fit: MbPAConfig) -> Adapted:
        return fitter(self.output, fit, classes=True)(self.output, queries, context, fit)


class _KnownP:
    """softmax(W h_i + b) of the last steps i: a ring, a few columns at a time. like: of its kind, (words, …)."""

    def __init__(self, room: int, like: Tensor):
        widths = [len(each) for each in torch.arange(len(like)).split(COLUMNS)]
        self.room, self.columns = room, [like.new_zeros(room, width) for width in widths]

    def keep(self, first: int, p: Float[Tensor, "steps words"]) -> None:
        """Of some steps, from `first` on; the oldest are forgotten."""
        rows = torch.arange(first, first + len(p), device=p.device) % self.room
        for columns, part in zip(self.columns, p.split(COLUMNS, dim=1), strict=True):
            columns.index_copy_(0, rows, part)

    def sums(self, steps: Int[Tensor, "time k"], weights: Float[Tensor, "time k"]) -> Float[Tensor, "time words"]:
        """Of each row, what its steps' p sum up to with these weights."""
        rows = steps % self.room
        parts = [F.embedding_bag(rows, part, per_sample_weights=weights, mode="sum") for part in self.columns]
        return torch.cat(parts, dim=1)
