"""The neural cache: a trained language model that looks back at its last hidden states (Grave, Joulin & Usunier 2016).

| here | paper | equation |
| --- | --- | --- |
| `hs` | h_t, the language model's hidden state | – |
| `attention` | exp(θ h_t · h_i) over the last N steps, divided by its sum | 3 (p_cache) |
| `share` | λ of p(w) = (1 - λ) p_vocab(w) + λ p_cache(w) | 4 (linear interpolation) |
| `sharpness` | θ | 3 |

Step i of the past stores (h_i, x_{i+1}): what was seen, and the word that followed. p_cache gives each word the
attention on the steps that it followed. Nothing is trained. A cache that is still empty has no share.

The past is read through a window of N steps that moves on with each word, also across the borders of the blocks in
which a text is read. A block's steps attend to one stretch of the past: a product of two matrices, of which a band
counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lib.baselines.looking_back import LooksBack, Past
from lib.baselines.sequence import check_pairs
from lib.methods.lmn import Network
from lib.tasks.streams import Scored, rank_of

CHUNK = 64  # steps that attend to the past in one product
CHUNK_PROBABILITIES = 2**22  # of all words, held at once: 16 MB


@dataclass(frozen=True)
class CacheConfig:
    """The cache's size and its two settings, which are chosen on validation text."""

    size: int = 100
    """N, steps that it looks back (Shankar & Sarawagi: 100 for WikiText-2, 2000 for text8)."""
    share: float = 0.1
    """λ, what the cache weighs in the mixture."""
    sharpness: float = 0.3
    """θ, which makes the attention flat (0) or sharp."""

    def __post_init__(self):
        if self.size < 1:
            raise ValueError(f"a cache looks back at least one step, not {self.size}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is the weight of the cache in a mixture, from 0 to 1, not {self.share}")


class NeuralCache(LooksBack):
    """A language model, which stays as it is, and a cache of its last N hidden states."""

    def __init__(self, network: Network, config: CacheConfig):
        super().__init__(network, config.size)
        self.config = config

    @torch.no_grad()
    def episode(
        self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], past: Past | None = None
    ) -> tuple[Float[Tensor, "batch time"], Past]:
        """A block of each stream: log-likelihood of what came true, in nats, and the past to go on with.

        The network must have `log_likelihood`. Raises ValueError for shapes that differ.
        """
        check_pairs(xs, ys)
        past, log_likelihoods = past or self.initial_state(len(xs)), []
        hs, network_state = self.network.hidden(xs, past.network)
        for now, y in zip(hs.split(CHUNK, 1), ys.split(CHUNK, 1), strict=True):
            seen = past.followed_by(network_state, now, y)
            weights = self._attention(now, seen.hidden, past)
            cache_p = (weights * (seen.words.unsqueeze(1) == y.unsqueeze(2))).sum(2)
            log_likelihoods.append(self._mixed(self.network.log_likelihood(now, y), cache_p, weights))
            past = seen.last(self.size)
        return torch.cat(log_likelihoods, 1), past

    @torch.no_grad()
    def forward(self, xs: Int[Tensor, "batch time"], ys: Int[Tensor, "batch time"], unroll: Any = None) -> Scored:
        """Score a batch of streams from a fresh start, ranks included, which takes the probabilities of all words.

        `unroll` is ignored: there is one form. Raises ValueError for shapes that differ.
        """
        check_pairs(xs, ys)
        past, scored = self.initial_state(len(xs)), []
        hs, network_state = self.network.hidden(xs)
        steps = max(1, CHUNK_PROBABILITIES // (len(xs) * self.network.labels))
        for now, y in zip(hs.split(steps, 1), ys.split(steps, 1), strict=True):
            seen = past.followed_by(network_state, now, y)
            log_p = self._log_probabilities(now, self._attention(now, seen.hidden, past), seen.words)
            chosen = log_p.gather(2, y.unsqueeze(2))
            scored.append(Scored(chosen.squeeze(2), rank_of(log_p, chosen)))
            past = seen.last(self.size)
        return Scored(*(torch.cat(part, 1) for part in zip(*scored, strict=True)))

    def logits(self, x: Int[Tensor, " batch"], state: Past) -> Float[Tensor, "batch words"]:
        """log of what is predicted to follow x."""
        now, _ = self.network.hidden(x.unsqueeze(1), state.network)
        return self._log_probabilities(now, self._attention(now, state.hidden, state), state.words)[:, 0]

    def _attention(self, now: Tensor, hidden: Tensor, past: Past) -> Float[Tensor, "batch time steps"]:
        return attention(now, hidden, past.hidden.shape[1], self.size, self.config.sharpness)

    def _log_probabilities(self, now: Tensor, weights: Tensor, words: Tensor) -> Float[Tensor, "batch time words"]:
        network_log_p = torch.log_softmax(self.network.scores(now), dim=2)
        followed = words.unsqueeze(1).expand(-1, now.shape[1], -1)
        cache_p = torch.zeros_like(network_log_p).scatter_add(2, followed, weights)
        return self._mixed(network_log_p, cache_p, weights)

    def _mixed(self, network_log_p: Tensor, cache_p: Tensor, weights: Tensor) -> Tensor:
        """log p(w) of the linear interpolation, of one word a step or of all (a third dimension)."""
        is_filled = (weights > 0).any(2).view(*weights.shape[:2], *[1] * (network_log_p.ndim - 2))
        share = self.config.share * is_filled.to(network_log_p)
        return torch.logaddexp(network_log_p + torch.log1p(-share), (share * cache_p).log())


def attention(
    now: Float[Tensor, "batch time hidden"],
    hidden: Float[Tensor, "batch steps hidden"],
    earlier: int,
    size: int,
    sharpness: float,
) -> Float[Tensor, "batch time steps"]:
    """What each step of `now` pays attention to: a softmax of θ h_t · h_i over the `size` steps before it (equation 3).

    hidden: h_i of the past, `earlier` of them before the first step of `now`, the others those of `now` itself. A row
    sums to 1; to 0 where there is no past.
    """
    at = torch.arange(earlier, earlier + now.shape[1], device=now.device).unsqueeze(1)
    seen = torch.arange(hidden.shape[1], device=now.device)
    visible = (seen < at) & (seen >= at - size)
    scores = (sharpness * now @ hidden.transpose(1, 2)).masked_fill(~visible, -torch.inf)
    return torch.where(visible.any(1, keepdim=True), torch.softmax(scores, dim=2), 0.0)


@torch.no_grad()
def cache_at(
    hidden: Float[Tensor, "steps hidden"],
    words: Int[Tensor, " steps"],
    at: Int[Tensor, " queries"],
    size: int,
    sharpnesses: Sequence[float],
) -> Float[Tensor, "queries sharpnesses"]:
    """log p_cache(words[at]) at some steps of one text, for several θ (equation 3); -inf for words that are not there,
    and nan where there is no past.

    words: what followed each step; at: rising.
    """
    found = []
    for some in at.split(CHUNK):
        first, last = max(0, int(some[0]) - size), int(some[-1]) + 1
        seen = torch.arange(first, last, device=hidden.device)
        visible = (seen < some.unsqueeze(1)) & (seen >= some.unsqueeze(1) - size)
        products, followed = hidden[some] @ hidden[first:last].T, words[first:last] == words[some].unsqueeze(1)
        scores = (products * sharpness for sharpness in sharpnesses)
        weights = (torch.softmax(each.masked_fill(~visible, -torch.inf), 1) for each in scores)
        found.append(torch.stack([(each * followed).sum(1).log() for each in weights], 1))
    return torch.cat(found)
