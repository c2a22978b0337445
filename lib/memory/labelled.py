"""Memory keyed by class label: cells of (label, vector, weight) (Shankar & Sarawagi 2018, Labeled Memory Networks).

| here | paper | where |
| --- | --- | --- |
| `cosine` | cosine(h_t, v_m) | below equation 1 |
| `read` | M_ty and α_ty, by w_tm | equation 2 |
| `scores` | s_ty | equation 3 |
| `updated` | v_m and α_m after a write, and the cell replaced | figure 2 |
| `LabelledMemory` | the N cells | section «Memory» |

A label that was written has a row with room for `cells` cells; other labels cost nothing. A row holds one label's cells
side by side, so that equation 2 is a softmax along the row and no mask of labels by cells is ever built.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TINY = 1e-30  # below every weight and length that is not zero
FIRST_ROWS = 16  # room that a memory starts with; doubled when it is full


def cosine(
    hidden: Float[Tensor, "batch width"], vectors: Float[Tensor, "batch rows cells width"]
) -> Float[Tensor, "batch rows cells"]:
    """Cosine of the angle between h and each vector, in [-1, 1]; 0 for a vector of zeros."""
    lengths = vectors.norm(dim=-1) * hidden.norm(dim=-1).view(-1, 1, 1)
    dots = (vectors.flatten(1, 2) @ hidden.unsqueeze(2)).view(lengths.shape)
    return dots / lengths.clamp(min=TINY)


def read(
    hidden: Float[Tensor, "batch width"],
    vectors: Float[Tensor, "batch rows cells width"],
    weights: Float[Tensor, "batch rows cells"],
    held: Bool[Tensor, "batch rows cells"],
    sharpness: float,
) -> tuple[Float[Tensor, "batch rows width"], Float[Tensor, "batch rows"]]:
    """M_ty and α_ty of each row's label: the mean of its cells by K(h, v) = exp(λ cosine(h, v)) (equation 2).

    held: which cells exist; at least one in each row.
    """
    if vectors.shape[2] == 1:  # the mean of one cell is the cell
        return vectors[:, :, 0], weights[:, :, 0]
    share = shares(cosine(hidden, vectors), held, sharpness)
    return (share.unsqueeze(3) * vectors).sum(2), (share * weights).sum(2)


def shares(
    cosines: Float[Tensor, "batch rows cells"], held: Bool[Tensor, "batch rows cells"], sharpness: float
) -> Float[Tensor, "batch rows cells"]:
    """w_tm: the softmax of λ cosine over the cells of one label (equation 2; figure 2 with λ = 1)."""
    return torch.softmax((sharpness * cosines).masked_fill(~held, -torch.inf), dim=-1)


def scores(
    hidden: Float[Tensor, "batch width"],
    vector: Float[Tensor, "batch rows width"],
    weight: Float[Tensor, "batch rows"],
    sharpness: float,
    strength: float,
) -> Float[Tensor, "batch rows"]:
    """s_ty ∝ α^δ K(h, M_ty) of each row's label; rows sum to 1, or to 0 where the memory is empty (equation 3)."""
    known = weight > 0
    evidence = strength * weight.clamp(min=TINY).log() + sharpness * cosine(hidden, vector.unsqueeze(2)).squeeze(2)
    evidence = evidence.masked_fill(~known, -torch.inf)
    highest = evidence.detach().amax(1, keepdim=True).clamp(min=-1e30) if evidence.shape[1] else 0.0
    exponential = (evidence - highest).exp()
    return exponential / exponential.sum(1, keepdim=True).clamp(min=TINY)


def updated(
    hidden: Float[Tensor, "batch width"],
    vectors: Float[Tensor, "batch cells width"],
    weights: Float[Tensor, "batch cells"],
    count: Int[Tensor, " batch"],
    wrong: Bool[Tensor, " batch"],
    decay: float,
    sharpness: float,
) -> tuple[Float[Tensor, "batch cells width"], Float[Tensor, "batch cells"], Int[Tensor, " batch"]]:
    """One label's cells after a write, and which of them was replaced, -1 for none (figure 2).

    Every cell takes its share of h and of weight. Where the prediction was wrong, h also gets a cell of its own: a free
    one if the row has one, else the one that weighed least before, if the label has more than one. count: how many of
    the row's cells exist, from its first on; at least one. sharpness: 1 weights by the bare cosine, as figure 2 writes
    it; λ by the kernel, as equation 2 does.
    """
    room = weights.shape[1]
    if room == 1:  # the one cell takes all, and is never replaced
        return vectors + hidden.unsqueeze(1), decay * weights + 1, torch.full_like(count, -1)
    at = torch.arange(room, device=weights.device)
    held = at < count.unsqueeze(1)
    share = shares(cosine(hidden, vectors.unsqueeze(1)), held.unsqueeze(1), sharpness).squeeze(1)
    least = weights.masked_fill(~held, torch.inf).argmin(1)
    place = torch.where(count < room, count, least)
    replaced = torch.where(wrong, place, -1)
    own = at == replaced.unsqueeze(1)
    vectors = torch.where(own.unsqueeze(2), hidden.unsqueeze(1), vectors + share.unsqueeze(2) * hidden.unsqueeze(1))
    weights = torch.where(own, 1.0, torch.where(held, decay * weights + share, weights))
    return vectors, weights, replaced


class Write(NamedTuple):
    """What a call of `LabelledMemory.write` did, for each stream of a batch."""

    row: Int[Tensor, " batch"]
    """Of the revealed label; -1 where nothing was written and the label has none."""
    new_row: Bool[Tensor, " batch"]
    """The label was not in memory: its row was taken into use."""
    replaced: Int[Tensor, " batch"]
    """The cell of the row that now holds the present vector alone; -1 for none."""


class LabelledMemory:
    """The cells of a batch of streams, each with a memory of its own, empty at first.

    Writes change the tensors in place, unlike those of the other memories here: a memory of 40 000 labels is not
    copied to change one of its cells. `rows` is how many rows are in use in the fullest stream. A stream uses rows from
    the first on, in the order in which its labels came, until a budget makes it use them again.

    labels: how many labels there are. cells: of one label. new_cells: `on demand`, a label gets its cells one by one as
    errors ask for them; `zeros`, all at once, as zero vectors of zero weight, which take part in equation 2. budget:
    the largest number of cells over all labels, a multiple of `cells`; None for no limit. evict: whose row is used
    again when the budget is spent: the one of `least` weight (of equal ones, the longest unwritten), or the `oldest`,
    the longest unwritten. Raises ValueError for a number or a name that makes no sense.
    """

    def __init__(
        self,
        batch: int,
        labels: int,
        width: int,
        cells: int = 1,
        *,
        new_cells: str = "on demand",
        budget: int | None = None,
        evict: str = "least",
        like: Tensor,
    ):
        if cells < 1:
            raise ValueError(f"a label needs at least one cell, not {cells}")
        if new_cells not in ("on demand", "zeros") or evict not in ("least", "oldest"):
            raise ValueError(f"new_cells is on demand or zeros, evict least or oldest, not {new_cells!r} and {evict!r}")
        if budget is not None and (budget < cells or budget % cells):
            raise ValueError(f"a budget of {budget} cells does not divide into labels of {cells} cells")
        self.cells, self.new_cells, self.evict = cells, new_cells, evict
        self.most_rows = labels if budget is None else min(labels, budget // cells)
        room = min(FIRST_ROWS, self.most_rows)
        self.rows = 0
        self.vectors = like.new_zeros(batch, room, cells, width)
        self.weights = like.new_zeros(batch, room, cells)
        whole = {"dtype": torch.int64, "device": like.device}
        self.count = torch.full((batch, room), 1 if new_cells == "on demand" else cells, **whole)
        self.label = torch.full((batch, room), -1, **whole)
        self.row_of = torch.full((batch, labels), -1, **whole)
        self.written = torch.zeros(batch, room, **whole)
        self.used = torch.zeros(batch, **whole)
        self.clock = 0  # calls of `write`: when a row was written last

    def read(
        self, hidden: Float[Tensor, "batch width"], sharpness: float
    ) -> tuple[Float[Tensor, "batch rows width"], Float[Tensor, "batch rows"]]:
        """M_ty and α_ty for the label of each row in use (equation 2); zero for rows that a stream does not use."""
        n = self.rows
        vectors, weights = self.vectors[:, :n], self.weights[:, :n]
        if torch.is_grad_enabled() and hidden.requires_grad:  # a later write must not change what backward needs
            vectors, weights = vectors.clone(), weights.clone()
        at = torch.arange(self.cells, device=weights.device)
        return read(hidden, vectors, weights, at < self.count[:, :n].unsqueeze(2), sharpness)

    def scores(
        self, hidden: Float[Tensor, "batch width"], sharpness: float, strength: float
    ) -> Float[Tensor, "batch rows"]:
        """s_ty for the label of each row in use (equation 3); all other labels have 0. Differentiable in h."""
        return scores(hidden, *self.read(hidden, sharpness), sharpness, strength)

    @property
    def row_labels(self) -> Int[Tensor, "batch rows"]:
        """The label of each row in use, -1 where a stream does not use it; a copy, which no later write changes."""
        return self.label[:, : self.rows].clone()

    @torch.no_grad()
    def write(
        self,
        hidden: Float[Tensor, "batch width"],
        ys: Int[Tensor, " batch"],
        with_loss: Bool[Tensor, " batch"],
        wrong: Bool[Tensor, " batch"],
        decay: float,
        sharpness: float = 1.0,
    ) -> Write:
        """Write h under its revealed label y in the streams `with_loss`; touches no other label's cells (figure 2)."""
        self.clock += 1
        row = self.row_of.gather(1, ys.unsqueeze(1)).squeeze(1)
        new_row = with_loss & (row < 0)
        if new_row.any():
            row = self._take_rows(row, ys, new_row)
        stream = with_loss.nonzero().squeeze(1)
        at = (stream, row[stream])
        count = self.count[at]
        # A new row has nothing that could be replaced: its first cell is the present vector either way.
        replaces = wrong & ~new_row if self.new_cells == "on demand" else wrong
        self.vectors[at], self.weights[at], own_replaced = updated(
            hidden[stream], self.vectors[at], self.weights[at], count, replaces[stream], decay, sharpness
        )
        self.count[at] = torch.maximum(count, own_replaced + 1)
        self.written[at] = self.clock
        replaced = torch.full_like(row, -1)
        replaced[stream] = own_replaced
        return Write(row, new_row, replaced)

    def _take_rows(self, row: Tensor, ys: Tensor, new_row: Tensor) -> Tensor:
        """A row for each label that is new to its stream: an unused one, or the one to be evicted."""
        if bool((self.used[new_row] >= self.label.shape[1]).any()) and self.label.shape[1] < self.most_rows:
            self._make_room()
        full = self.used >= self.label.shape[1]
        taken = torch.where(full, self._least_needed(), self.used) if bool(full.any()) else self.used
        stream = torch.arange(len(ys), device=ys.device)[new_row]
        at = (stream, taken[new_row])
        evicted = self.label[at]
        self.row_of[stream[evicted >= 0], evicted[evicted >= 0]] = -1
        self.vectors[at], self.weights[at] = 0.0, 0.0
        self.count[at] = 1 if self.new_cells == "on demand" else self.cells
        self.label[at] = ys[new_row]
        self.row_of[stream, ys[new_row]] = taken[new_row]
        self.used = self.used + (new_row & ~full)
        self.rows = int(self.used.max())
        return torch.where(new_row, taken, row)

    def _least_needed(self) -> Int[Tensor, " batch"]:
        written = self.written.to(torch.float64)
        if self.evict == "least":
            weight = self.weights.sum(2)
            written = written.masked_fill(weight > weight.amin(1, keepdim=True), torch.inf)
        return written.argmin(1)

    def _make_room(self) -> None:
        more = min(self.label.shape[1], self.most_rows - self.label.shape[1])

        def longer(tensor: Tensor, value: float) -> Tensor:
            return torch.cat([tensor, tensor.new_full((len(tensor), more, *tensor.shape[2:]), value)], dim=1)

        self.vectors, self.weights = longer(self.vectors, 0.0), longer(self.weights, 0.0)
        self.count = longer(self.count, 1 if self.new_cells == "on demand" else self.cells)
        self.label, self.written = longer(self.label, -1), longer(self.written, 0)
