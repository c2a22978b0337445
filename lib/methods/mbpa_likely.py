"""MbPA on a text at some of its words, with many rates and numbers of steps at once: what a sweep of settings needs.

The dual form of `lib/methods/mbpa.py` has a vector c_k of all words for each neighbour. With ten thousand words and T
steps that is nearly all the work, and most of these words are as unlikely after a step as before. So here only the
`likely` words move: those that followed a neighbour, and those that the network holds likeliest at the query. The
logits of all others stay as they are, and they keep their say as one sum:

    log p_θx(w) = log p_θ(w | q) - Σ_k (h_k·q + 1) c_kw - log Z,     c_kw = 0 for a word that is not likely

It is a distribution over all words in any case; with `likely` as large as their number it is the dual form itself.
A descent of T steps passes through all smaller T, so that these cost nothing.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lib.memory.episodic import nearest_earlier
from lib.methods.mbpa import MbPAConfig

TOGETHER = 64  # queries whose past is one stretch
C_AT_ONCE, C_AT_ONCE_ON_GPU = 2**18, 2**26  # numbers of c that are held at once: on a CPU what fits in its cache


@torch.no_grad()
def fitted_at(
    output: nn.Linear,
    hidden: Float[Tensor, "time width"],
    words: Int[Tensor, " time"],
    at: Int[Tensor, " queries"],
    size: int,
    fit: MbPAConfig,
    rates: Sequence[float],
    steps: Sequence[int],
    likely: int,
    log_total: Float[Tensor, " time"] | None = None,
) -> Float[Tensor, "queries rates steps"]:
    """Log-likelihood of words[at], in nats, by the softmax layer fitted to the likest of the `size` steps before each.

    hidden: of one text, what its softmax layer takes at each step; words: what followed each step; at: rising. fit: K,
    β and ε of the fit by gradient descent; rates and (rising) steps stand in place of its own. likely: how many words
    move; log_total: what `log_totals` gives, where it is known. Raises ValueError if the likely words are fewer than
    the neighbours, whose words all have to move, or if `fit` is no gradient descent.
    """
    likely = min(likely, output.out_features)
    if likely < min(fit.neighbours, output.out_features):
        raise ValueError(f"the words of {fit.neighbours} neighbours cannot all be among {likely} likely ones")
    if fit.optimizer != "sgd":
        raise ValueError(f"this form is of gradient descent (sgd), not {fit.optimizer}")
    log_total = log_totals(output, hidden) if log_total is None else log_total
    found = []
    for some in at.split(TOGETHER):
        positions, weights = neighbours_at(hidden, some, size, fit)
        held = max(1, (C_AT_ONCE_ON_GPU if hidden.is_cuda else C_AT_ONCE) // (positions.shape[1] * likely))
        for q, near, share in zip(some.split(held), positions.split(held), weights.split(held), strict=True):
            logits = torch.log_softmax(output(hidden[q]), 1)
            found.append(
                _descend(
                    output, hidden[q], logits, words[q], hidden[near], words[near], log_total[near], share,
                    fit.prior, rates, steps, likely,
                )
            )  # fmt: skip
    return torch.cat(found)


@torch.no_grad()
def log_totals(output: nn.Linear, hidden: Float[Tensor, "time width"]) -> Float[Tensor, " time"]:
    """log Σ_w exp of the logits at each step."""
    return torch.cat([output(some).logsumexp(1) for some in hidden.split(1024)])


def neighbours_at(
    hidden: Float[Tensor, "time width"], at: Int[Tensor, " queries"], size: int, fit: MbPAConfig
) -> tuple[Int[Tensor, "queries k"], Float[Tensor, "queries k"]]:
    """Where the likest of the `size` steps before each query are, and w_k; a weight of 0 for what is not there."""
    near = nearest_earlier(hidden, at, size, fit.neighbours, fit.epsilon)
    return near.positions, near.weights


def _descend(
    output: nn.Linear,
    queries: Tensor,
    query_log_p: Tensor,
    ys: Tensor,
    keys: Tensor,
    values: Tensor,
    log_total: Tensor,
    weights: Tensor,
    prior: float,
    rates: Sequence[float],
    steps: Sequence[int],
    likely: int,
) -> Tensor:
    """`fitted_at` for some queries and what was found for them: keys (queries, k, width), others alike."""
    moving = query_log_p.scatter(1, values, torch.inf).topk(likely, sorted=False).indices
    place = torch.zeros_like(query_log_p, dtype=torch.int64)
    place.scatter_(1, moving, torch.arange(likely, device=moving.device).expand_as(moving))
    values = place.gather(1, values).unsqueeze(2)
    log_p = torch.baddbmm(-log_total.unsqueeze(2), keys, output.weight[moving].mT)
    one = 0.0 if output.bias is None else 1.0
    if output.bias is not None:
        log_p += output.bias[moving].unsqueeze(1)
    others = (1 - log_p.exp().sum(2, keepdim=True)).clamp(min=0)  # what those have together that do not move
    gram, to_query = keys @ keys.mT + one, (keys @ queries.unsqueeze(2)).mT + one
    start = query_log_p.gather(1, moving)
    start_others = (1 - start.exp().sum(1, keepdim=True)).clamp(min=0).log()
    is_y, y_log_p, found = moving == ys.unsqueeze(1), query_log_p.gather(1, ys.unsqueeze(1)).squeeze(1), []
    for rate in rates:
        c, share = torch.zeros_like(log_p), rate * weights.unsqueeze(2)
        for step in range(1, max(steps) + 1):
            now = torch.baddbmm(log_p, gram, c, alpha=-1)
            most = now.amax(2, keepdim=True).clamp(min=0)
            p = now.sub_(most).exp_()
            p.mul_(share / (p.sum(2, keepdim=True) + others * (-most).exp()))
            c.mul_(1 - prior).add_(p.scatter_add_(2, values, -share))
            if step in steps:
                change = -(to_query @ c).squeeze(1)
                total = torch.cat([start + change, start_others], 1).logsumexp(1)
                found.append(y_log_p + (change * is_y).sum(1) - total)
    return torch.stack(found, 1).view(len(queries), len(rates), len(steps))
