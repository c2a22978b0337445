"""LMN as one would write it first: every operation is over all labels. What `lib/bench_lmn.py` holds LMN against.

Two dense memories, of one stream each, give what `LabelledMemory` gives with its default settings:

- `MaskMemory` follows the paper's notation: a list of cells, each with its label, and a mask of labels by cells that
  says which cells equation 2 sums over. A write is over all cells.
- `TableMemory` has a row of cells for each label, written or not. Reads and writes are over the whole table.

`DenseLMN` runs either with the network and the combiner of an LMN, and keeps a state of the combiner for every label,
as equation 4 has it. It gives what `LMN` gives with `states="all"`.
"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from lib.memory.labelled import TINY
from lib.methods.lmn import LMN, LMNConfig, margin_too_small, normalised, own_and_best_other


class MaskMemory:
    """A list of cells, only those in use; `label` says whose each is."""

    def __init__(self, labels: int, width: int, cells: int, like: Tensor):
        self.cells = cells
        self.every_label = torch.arange(labels, device=like.device)
        self.label = torch.zeros(0, dtype=torch.int64, device=like.device)
        self.vectors, self.weights = like.new_zeros(0, width), like.new_zeros(0)

    def read(
        self, hidden: Float[Tensor, " width"], sharpness: float
    ) -> tuple[Float[Tensor, "labels width"], Float[Tensor, " labels"]]:
        """M_ty and α_ty of every label, by a softmax along each row of the mask; 0 for a label without cells."""
        mask = self.label == self.every_label.unsqueeze(1)
        share = masked_softmax(sharpness * cosine(hidden, self.vectors), mask)
        return share @ self.vectors, share @ self.weights

    def write(self, hidden: Float[Tensor, " width"], y: Int[Tensor, ""], wrong: Bool[Tensor, ""], decay: float) -> None:
        """Every cell is computed anew; those of other labels come out as they were."""
        own = self.label == y
        share = masked_softmax(cosine(hidden, self.vectors), own)
        least = torch.where(own, self.weights, torch.inf)
        self.vectors = self.vectors + share.unsqueeze(1) * hidden
        self.weights = torch.where(own, decay * self.weights + share, self.weights)
        count = int(own.sum())
        if count == 0 or (wrong and count < self.cells):
            self.label = torch.cat([self.label, y.unsqueeze(0)])
            self.vectors = torch.cat([self.vectors, hidden.unsqueeze(0)])
            self.weights = torch.cat([self.weights, self.weights.new_ones(1)])
        elif wrong and self.cells > 1:
            replaced = least.argmin()
            self.vectors[replaced], self.weights[replaced] = hidden, 1.0


class TableMemory:
    """Room for all cells of all labels; `held` says which are in use."""

    def __init__(self, labels: int, width: int, cells: int, like: Tensor):
        self.vectors, self.weights = like.new_zeros(labels, cells, width), like.new_zeros(labels, cells)
        self.held = torch.zeros(labels, cells, dtype=torch.bool, device=like.device)
        self.every_label = torch.arange(labels, device=like.device)
        self.every_cell = torch.arange(cells, device=like.device)

    def read(
        self, hidden: Float[Tensor, " width"], sharpness: float
    ) -> tuple[Float[Tensor, "labels width"], Float[Tensor, " labels"]]:
        """M_ty and α_ty of every label, by a softmax along its row; 0 for a label without cells."""
        share = masked_softmax(sharpness * cosine(hidden, self.vectors), self.held)
        return (share.unsqueeze(2) * self.vectors).sum(1), (share * self.weights).sum(1)

    def write(self, hidden: Float[Tensor, " width"], y: Int[Tensor, ""], wrong: Bool[Tensor, ""], decay: float) -> None:
        """The whole table is computed anew; the rows of other labels come out as they were."""
        own = (self.every_label == y).unsqueeze(1)
        share = masked_softmax(cosine(hidden, self.vectors), self.held)
        count = self.held.sum(1)
        least = torch.where(self.held, self.weights, torch.inf).argmin(1)
        place = torch.where(count < len(self.every_cell), count, least).unsqueeze(1)
        asked_for = (count == 0) | (wrong & (len(self.every_cell) > 1))
        new = own & asked_for.unsqueeze(1) & (self.every_cell == place)
        shares = own & self.held
        added = torch.where(shares, share, 0.0).unsqueeze(2) * hidden
        self.vectors = torch.where(new.unsqueeze(2), hidden, self.vectors + added)
        self.weights = torch.where(new, 1.0, torch.where(shares, decay * self.weights + share, self.weights))
        self.held = self.held | new


def cosine(hidden: Float[Tensor, " width"], vectors: Float[Tensor, "*cells width"]) -> Float[Tensor, "*cells"]:
    """Of the angle between h and each vector; 0 for a vector of zeros."""
    return (vectors @ hidden) / (vectors.norm(dim=-1) * hidden.norm()).clamp(min=TINY)


def masked_softmax(values: Float[Tensor, "*cells"], mask: Bool[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """Along the last axis, over what the mask has; a row without any is 0."""
    return torch.where(mask, values, -torch.inf).softmax(-1).nan_to_num(0.0)


class DenseLMN:
    """One stream of an LMN, over all labels at every step. Settings other than the default ones are not for it:
    `update_weights`, `new_cells`, `budget`."""

    def __init__(self, lmn: LMN, memory: MaskMemory | TableMemory):
        self.network, self.combiner, self.config = lmn.network, getattr(lmn, "combiner", None), lmn.config
        self.memory = memory
        like = next(lmn.network.parameters())
        units = lmn.config.units if lmn.config.theta is None else 0
        self.network_state: Any = None
        self.mu = like.new_zeros(1, lmn.network.labels, units)
        self.errors, self.given = like.new_zeros(1, 2), like.new_zeros(1, lmn.network.labels, 2)

    @torch.no_grad()
    def predict(self, x: Shaped[Tensor, "1 ..."]) -> Float[Tensor, "1 labels"]:
        """P_t(y | x_t) (equation 5)."""
        hidden, self.next_network_state = self.network.hidden(x.unsqueeze(1), self.network_state)
        self.hidden = hidden[:, 0]
        self.network_p = torch.softmax(self.network.scores(self.hidden), dim=1)
        self.memory_p = scores(self.hidden[0], *self.memory.read(self.hidden[0], self.config.sharpness), self.config)
        if self.combiner is None:
            theta, self.next_mu = self.config.theta, self.mu
        else:
            theta, self.next_mu = self.combiner(self.hidden, self.errors, self.given, self.mu)
        self.mixed = normalised((1 - theta) * self.network_p + theta * self.memory_p)
        return self.mixed

    @torch.no_grad()
    def observe(self, x: Shaped[Tensor, "1 ..."], y: Int[Tensor, " 1"]) -> None:
        """Reveal y, the label of the x that was predicted last (figure 2)."""
        if margin_too_small(*own_and_best_other(self.mixed, y), self.config.margin):
            self.memory.write(self.hidden[0], y[0], self.mixed.argmax() != y[0], self.config.decay)
        network_wrong = self.network_p.argmax() != y[0]
        memory_wrong = (self.memory_p.argmax() != y[0]) | (self.memory_p.amax() <= 0)
        self.errors = torch.stack([network_wrong, memory_wrong]).to(self.hidden).unsqueeze(0)
        self.given = torch.stack([self.network_p, self.memory_p], dim=2)
        self.network_state, self.mu = self.next_network_state, self.next_mu


def scores(
    hidden: Float[Tensor, " width"],
    vector: Float[Tensor, "labels width"],
    weight: Float[Tensor, " labels"],
    config: LMNConfig,
) -> Float[Tensor, "1 labels"]:
    """s_ty of every label; 0 for a label without cells (equation 3)."""
    evidence = config.strength * weight.log() + config.sharpness * cosine(hidden, vector)
    return masked_softmax(evidence, weight > 0).unsqueeze(0)
