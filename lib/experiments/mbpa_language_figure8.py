"""Figure 8 of Sprechmann et al. 2018: which words MbPA helps, by how frequent they are in the training text."""

import math
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from lib.experiments.mbpa_language_sweep import with_error

BUCKETS = 5


def buckets_of(words: Int[Tensor, " scored"], vocabulary: int, equal: str) -> Int[Tensor, " scored"]:
    """The bucket of each word, from 0 for the most frequent in training to 4; words are numbered by frequency.

    equal: `types` for as many words of the vocabulary in each; `tokens` for as many of `words`, or as nearly as it goes
    if a word is in one bucket with all its occurrences.
    """
    if equal == "types":
        return words * BUCKETS // vocabulary
    counts = torch.bincount(words, minlength=vocabulary).double()
    middle = (counts.cumsum(0) - counts / 2) / len(words)
    return (BUCKETS * middle).long().clamp(max=BUCKETS - 1)[words]


def figure8(
    found: dict[str, Tensor], words: Int[Tensor, " scored"], vocabulary: int
) -> dict[str, list[dict[str, Any]]]:
    """By bucket: what the rows say of its words, and by how much each word's perplexity falls when MbPA joins LSTM and
    cache, in percent: mean and standard deviation over the words. `of_perplexity` is by how many percent that of the
    bucket as a whole falls, with its standard error.

    found: log-likelihoods of the rows.
    """
    lost = found["lstm-cache"] - found["lstm-mbpa-cache"]
    improvement = 100 * (1 - lost.exp())
    result: dict[str, list[dict[str, Any]]] = {}
    for equal in ("types", "tokens"):
        buckets, result[equal] = buckets_of(words, vocabulary, equal), []
        for inside in (buckets == bucket for bucket in range(BUCKETS)):
            count = int(inside.sum())
            bucket = dict.fromkeys(("improvement", "deviation", "of_perplexity", "of_perplexity_error"))
            if count:
                bucket["improvement"] = improvement[inside].mean().item()
                bucket["of_perplexity"] = 100 * (1 - lost[inside].mean().exp().item())
            if count > 1:
                mean, error = with_error(lost[inside])
                bucket["deviation"] = improvement[inside].std().item()
                bucket["of_perplexity_error"] = 100 * math.exp(mean) * error  # by which its exp moves
            means = {row: each[inside].mean().item() for row, each in found.items()} if count else {}
            result[equal].append({"words": count, "log_likelihood": means, **bucket})
    return result
