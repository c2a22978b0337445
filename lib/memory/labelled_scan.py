"""The labelled memory alone on one long stream, fast: few-shot learning over thousands of labels (equation 3, θ = 1).

It answers as `LMN` with `theta=1` does, and writes by the same `updated`. Three things make it quick. Of all vectors
only products are needed: h · M = Σ w_m h · v_m, and |M|² from the products of a label's cells with each other, which
are kept. The products of 64 steps with all cells are one matrix product. And a write changes one label's cells, so
only what the remaining steps of the 64 have for this label is computed anew.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lib.memory.labelled import TINY, updated

BLOCK = 64  # steps whose products with all cells are computed at once


def evidence(
    hidden: Float[Tensor, "queries width"],
    vectors: Float[Tensor, "labels cells width"],
    products: Float[Tensor, "labels cells cells"],
    weights: Float[Tensor, "labels cells"],
    count: Int[Tensor, " labels"],
    sharpness: float,
    strength: float,
) -> Float[Tensor, "labels queries"]:
    """log α_ty^δ K(h, M_ty) for each label and query: s_ty before it is normalised (equations 2 and 3).

    products: of a label's vectors with each other; count: its cells, from the first on, 0 for a label that was never
    written, whose evidence is -inf. Differentiable in `hidden`.
    """
    cells = vectors.shape[1]
    length = hidden.norm(dim=1).clamp(min=TINY)
    dots = (vectors.flatten(0, 1) @ hidden.T).view(len(vectors), cells, len(hidden))
    if cells == 1:  # the mean of one cell is the cell
        along, square, weight = dots[:, 0], products[:, 0], weights
    else:
        lengths = products.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().clamp(min=TINY)
        held = torch.arange(cells, device=count.device) < count.clamp(min=1).unsqueeze(1)
        cosines = dots / lengths.unsqueeze(2) / length
        share = torch.softmax((sharpness * cosines).masked_fill(~held.unsqueeze(2), -torch.inf), dim=1)
        along, square = (share * dots).sum(1), (share * (products @ share)).sum(1)
        weight = (share * weights.unsqueeze(2)).sum(1)
    cosine = along / square.clamp(min=TINY).sqrt() / length
    found = strength * weight.clamp(min=TINY).log() + sharpness * cosine
    return found.masked_fill((count == 0).unsqueeze(1), -torch.inf)


def products_of(vectors: Float[Tensor, "labels cells width"]) -> Float[Tensor, "labels cells cells"]:
    """The products of each label's vectors with each other."""
    return vectors @ vectors.transpose(1, 2)


@torch.no_grad()
def answer_online(
    hidden: Float[Tensor, "time width"],
    ys: Int[Tensor, " time"],
    labels: int,
    *,
    cells: int,
    margin: float,
    decay: float,
    sharpness: float,
    strength: float,
    update_sharpness: float = 1.0,
) -> Bool[Tensor, " time"]:
    """Whether the label of each step was found before it was revealed, by a memory that is empty at first.

    The settings are those of `LMNConfig`; update_sharpness is 1 for figure 2's cosine.
    """
    vectors = hidden.new_zeros(labels, cells, hidden.shape[1])
    weights, products = hidden.new_zeros(labels, cells), hidden.new_zeros(labels, cells, cells)
    count = torch.zeros(labels, dtype=torch.int64, device=ys.device)
    right = torch.zeros(len(ys), dtype=torch.bool, device=ys.device)
    for start in range(0, len(ys), BLOCK):
        ahead = hidden[start : start + BLOCK]
        found = evidence(ahead, vectors, products, weights, count, sharpness, strength).T.contiguous()
        for i, y in enumerate(ys[start : start + BLOCK].tolist()):
            own = float(found[i, y])
            found[i, y] = -torch.inf
            best_other = float(found[i].max())
            right[start + i] = own > best_other
            if own - best_other >= margin:  # not so where neither is known
                continue
            at = slice(y, y + 1)
            wrong = ~right[start + i : start + i + 1] & (count[at] > 0)  # a label's first cell replaces nothing
            vectors[at], weights[at], replaced = updated(
                ahead[i : i + 1], vectors[at], weights[at], count[at].clamp(min=1), wrong, decay, update_sharpness
            )
            count[at] = torch.maximum(count[at].clamp(min=1), replaced + 1)
            products[at] = products_of(vectors[at])
            rest = ahead[i + 1 :]
            if len(rest):
                found[i + 1 :, y] = evidence(
                    rest, vectors[at], products[at], weights[at], count[at], sharpness, strength
                )[0]
    return right
