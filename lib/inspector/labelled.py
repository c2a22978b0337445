"""What an LMN does on one stream: a `LabelledTrace` of it, and a viewer that shows the labelled memory step by step.

Steps count from 0. At step t a token is seen, the next one is predicted, then revealed, and perhaps written to memory.
To see what the write changed, the same token is asked again right after the reveal, from the recurrent state that step
t began with; the combiner has taken its step then, as it would have.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib.inspector.files import load_trace, packed, save_trace, unpacked
from lib.memory.labelled import TINY, cosine
from lib.methods.lmn import LMN, Step, over_all
from lib.tasks.streams import rank_of

FORMAT = "labelled-memory-trace"
VERSION = 1
SHOWN = 8  # labels whose probabilities a step keeps, the revealed one among them
MOST_NATS = -math.log(TINY)  # no probability counts as less than e to the minus this
BEFORE, AFTER = 0, 1
MIXTURE, NETWORK, MEMORY = 0, 1, 2
SETTINGS = ("margin", "decay", "cells", "theta", "sharpness", "strength")  # of `LMNConfig`: what a trace tells of it

# How each array is stored, see `files.py`, and its axes: T steps, S shown labels, R rows of the memory of C cells.
STORED = {
    "seen": ("int32", "T"),
    "revealed": ("int32", "T"),
    "shown": ("int32", "TS"),
    "p": ("uint16", "T23S"),
    "surprise": ("uint16", "T23"),
    "rank": ("int32", "T2"),
    "rival": ("int32", "T"),
    "margin": ("int16", "T"),
    "written": ("uint8", "T"),
    "wrong": ("uint8", "T"),
    "new_row": ("uint8", "T"),
    "row": ("int16", "T"),
    "replaced": ("int16", "T"),
    "share": ("uint16", "TC"),
    "row_label": ("int32", "UR"),
    "count": ("uint8", "UR"),
    "weights": ("uint16", "URC"),
    "cosine": ("int8", "T2RC"),
    "s": ("uint16", "T2R"),
    "theta": ("uint16", "T2Q"),
}
SCALED = dict.fromkeys(("p", "surprise", "rank", "margin", "share", "weights", "cosine", "s", "theta"))
SCALED["rank"] = 0.5  # halves come from ties, and are kept
KINDS = {name: kind for name, (kind, _) in STORED.items()}
FLAGS = {"written", "wrong", "new_row"}
NAMED = ("seen", "revealed", "shown", "rival", "row_label")  # arrays of tokens


@dataclass(frozen=True, eq=False)
class LabelledTrace:
    """T steps of one stream; S labels shown a step; a memory with R rows of C cells at the end of the stream.

    Axes of two are before and after the reveal; axes of three are mixture, network and memory.
    Raises ValueError if the shapes of the arrays do not agree or a number is not finite.
    """

    title: str
    """What is shown."""
    note: str
    """Where it comes from; says so if the data are made up."""
    names: dict[int, str]
    """What to call the tokens that occur in the arrays."""
    labels: int
    """How many labels there are."""
    settings: dict[str, float | int | None]
    """`margin`, `decay`, `cells`, `theta` (None: the combiner's), `sharpness` and `strength`, as in `LMNConfig`."""
    seen: np.ndarray
    """int64 (T,): x_t."""
    revealed: np.ndarray
    """int64 (T,): y_t."""
    shown: np.ndarray
    """int64 (T, S): the most probable labels and y_t, most probable first; -1 where there are fewer."""
    p: np.ndarray
    """float32 (T, 2, 3, S): what they were given; 0 where there is none."""
    surprise: np.ndarray
    """float32 (T, 2, 3): -log P(y_t) in nats, at most 69."""
    rank: np.ndarray
    """float32 (T, 2): the rank of y_t in the mixture, from 1; ties share the mean of their ranks."""
    rival: np.ndarray
    """int64 (T,): the most probable other label, before."""
    margin: np.ndarray
    """float32 (T,): log P(y_t) - log P(rival) in nats, before; within 69 of 0."""
    written: np.ndarray
    """bool (T,): whether h_t was written, since the margin was smaller than that of `settings`."""
    wrong: np.ndarray
    """bool (T,): whether another label was at least as probable, before."""
    new_row: np.ndarray
    """bool (T,): whether the label got a row in this step."""
    row: np.ndarray
    """int64 (T,): the row of y_t after the reveal; -1 if it has none."""
    replaced: np.ndarray
    """int64 (T,): the cell that got h_t alone, in a row that had been there; -1 for none."""
    share: np.ndarray
    """float32 (T, C): which part of h_t each cell of the row took; 0 where nothing was written."""
    row_label: np.ndarray
    """int64 (T + 1, R): the label of each row before each step, and at the end; -1 while it is not in use."""
    count: np.ndarray
    """int64 (T + 1, R): how many cells of the row exist; 0 while it is not in use."""
    weights: np.ndarray
    """float32 (T + 1, R, C): α of each cell."""
    cosine: np.ndarray
    """float32 (T, 2, R, C): of h_t and the cell, to about 0.01."""
    s: np.ndarray
    """float32 (T, 2, R): s_ty of the row's label."""
    theta: np.ndarray
    """float32 (T, 2, R + 1): θ_ty of the row's label; last, of all labels that are not in memory (their mean, where
    each has a state of its own; 0 where there is none)."""

    def __post_init__(self):
        steps, rows = len(self.revealed), self.row_label.shape[-1]
        if steps == 0:
            raise ValueError("a trace needs at least one step")
        sizes = {"T": steps, "U": steps + 1, "R": rows, "Q": rows + 1, "2": 2, "3": 3}
        for name, (_, axes) in STORED.items():
            array = getattr(self, name)
            wanted = tuple(sizes.setdefault(axis, size) for axis, size in zip(axes, array.shape, strict=False))
            if array.ndim != len(axes) or array.shape != wanted:
                raise ValueError(f"{name} has the shape {array.shape}, which does not agree with the other arrays")
            if name in SCALED and not np.isfinite(array).all():
                step = np.argwhere(~np.isfinite(array))[0][0]
                raise ValueError(f"{name} has a number that is not finite, first at step {step}")
        used = {int(token) for name in NAMED for token in getattr(self, name).flat}
        if missing := sorted(used - self.names.keys() - {-1}):
            raise ValueError(f"token {missing[0]} has no name")

    @property
    def steps(self) -> int:
        """T."""
        return len(self.revealed)

    @property
    def rows(self) -> int:
        """R."""
        return self.row_label.shape[1]

    def log_perplexity(self, stage: int = MIXTURE) -> float:
        """Mean -log P(y_t) before the reveal, in nats a token: of mixture, network or memory alone."""
        return float(self.surprise[:, BEFORE, stage].mean())

    def curve(self, stage: int = MIXTURE) -> np.ndarray:
        """(T,): the log-perplexity of the steps so far."""
        return self.surprise[:, BEFORE, stage].cumsum() / np.arange(1, self.steps + 1)

    def made_of(self, row: int, step: int) -> list[list[tuple[int, float]]]:
        """For each cell of a row: the (step, share) of every h in it before step `step`, or `steps` for the end.

        Raises ValueError if there is no such row or step.
        """
        if not 0 <= row < self.rows:
            raise ValueError(f"there is no row {row}: the memory has {self.rows} rows")
        if not 0 <= step <= self.steps:
            raise ValueError(f"there is no step {step}: the trace has {self.steps} steps")
        cells: list[list[tuple[int, float]]] = [[] for _ in range(self.share.shape[1])]
        for t in np.flatnonzero(self.written[:step] & (self.row[:step] == row)):
            for cell, share in enumerate(self.share[t]):
                if self.new_row[t] or cell == self.replaced[t]:
                    cells[cell] = []
                if share > 0:
                    cells[cell].append((int(t), float(share)))
        return cells

    def to_json(self) -> dict[str, Any]:
        """The trace as a JSON object, which is also what the viewer draws. Real numbers keep 16 bits, cosines 8.

        Raises ValueError for more rows or cells than it has numbers for: 32 767 and 255.
        """
        about = {
            "title": self.title,
            "note": self.note,
            "names": {str(token): name for token, name in self.names.items()},
            "labels": self.labels,
            "settings": self.settings,
        }
        arrays = {name: getattr(self, name) for name in STORED}
        return {"format": FORMAT, "version": VERSION} | about | packed(arrays, KINDS, SCALED)

    @classmethod
    def from_json(cls, content: Any) -> "LabelledTrace":
        """The trace of a JSON object made by `to_json`. Raises ValueError if it is another or a damaged one."""
        arrays = unpacked(content, (FORMAT, VERSION), KINDS, SCALED, set(STORED))
        for name in STORED.keys() - SCALED.keys():
            arrays[name] = arrays[name].astype(bool if name in FLAGS else np.int64)
        try:
            texts = {name: content[name] for name in ("title", "note", "labels", "settings")}
            texts["names"] = {int(token): name for token, name in content["names"].items()}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"it is damaged ({type(error).__name__}: {error})") from error
        return cls(**texts, **arrays)

    def save(self, path: str | Path) -> Path:
        """Write the trace as one JSON file, whole or not at all. Raises TraceError."""
        return save_trace(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "LabelledTrace":
        """Read a trace that `save` wrote. Raises TraceError if the file is missing, damaged or something else."""
        return load_trace(path, cls.from_json)

    def summary(self) -> str:
        """One line about it, for where it cannot be drawn."""
        return (
            f"Labelled memory: {self.title}. {self.steps} steps, {int(self.written.sum())} writes, {self.rows} rows. "
            f"Log-perplexity {self.log_perplexity():.2f}, of the network alone {self.log_perplexity(NETWORK):.2f}. "
            f"{self.note}"
        )


def record_labelled(
    lmn: LMN, xs: Tensor, ys: Tensor, *, names: Sequence[str] | Mapping[int, str] | None = None,
    title: str = "A labelled memory over one stream", note: str = "",
) -> LabelledTrace:  # fmt: skip
    """Run one stream through an LMN and keep what it predicted and what it did to its memory.

    xs, ys: (1, T) int64, tokens and their successors; names: what to call each token, by default its number.
    The LMN begins anew, and is at the end of this stream afterwards. Raises ValueError for other shapes.
    """
    if xs.ndim != 2 or xs.shape[0] != 1 or xs.shape != ys.shape or xs.shape[1] == 0:
        raise ValueError(f"expected one stream, xs (1, T) and ys (1, T), got {tuple(xs.shape)} and {tuple(ys.shape)}")
    training = lmn.training
    lmn.eval()
    lmn.begin(1)
    try:
        steps = [_step(lmn, x, y) for x, y in zip(xs.unbind(1), ys.unbind(1), strict=True)]
    finally:
        lmn.train(training)

    rows, nothing = lmn.memory.rows, np.zeros(0)
    empty = {"row_label": nothing, "count": nothing, "weights": np.zeros((0, lmn.memory.cells))}
    kept = {name: [each[name] for each in steps] for name in STORED if name not in empty}
    kept |= {name: [empty[name], *(each[name] for each in steps)] for name in empty}
    for name, fill in (("row_label", -1), ("count", 0), ("weights", 0)):
        kept[name] = [_with_rows(each, rows, fill) for each in kept[name]]
    for name in ("cosine", "s"):
        kept[name] = [[_with_rows(each, rows, 0) for each in pair] for pair in kept[name]]
    kept["theta"] = [[_with_rows(each, rows + 1, each[-1]) for each in pair] for pair in kept["theta"]]
    arrays = {}
    for name, values in kept.items():
        kind = np.float32 if name in SCALED else bool if name in FLAGS else np.int64
        arrays[name] = np.stack([np.asarray(each) for each in values]).astype(kind)
    used = {int(token) for name in NAMED for token in arrays[name].flat}
    called = {token: str(token if names is None else names[token]) for token in sorted(used - {-1})}
    settings = {key: getattr(lmn.config, key) for key in SETTINGS}
    return LabelledTrace(title, note, called, lmn.network.labels, settings, **arrays)


def _with_rows(array: np.ndarray, rows: int, fill: float) -> np.ndarray:
    """The same with rows that came into use later."""
    return np.pad(array, ((0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)), constant_values=fill)


@torch.no_grad()
def _step(lmn: LMN, x: Tensor, y: Tensor) -> dict[str, Any]:
    """One step of one stream: all that its arrays need, and the memory after it."""
    memory, labels, network_state = lmn.memory, lmn.network.labels, lmn.state.network
    before = lmn.look(x)
    asked = [_asked(lmn, before, labels)]
    weights_before = memory.weights.clone()
    lmn.observe(x, y)
    write = lmn.last_write
    again = copy.copy(lmn)  # asks about the same step once more, and leaves the LMN as it is
    again.state = lmn.state._replace(network=network_state)
    asked.append(_asked(again, again.look(x), labels))

    true, p = int(y), asked[BEFORE]["p"][MIXTURE]
    others = p.clone()
    others[true] = -1
    rival, row, rows = int(others.argmax()), int(write.row), memory.rows
    new_row, replaced = bool(write.new_row), int(write.replaced)
    written = row >= 0 and bool(memory.written[0, row] == memory.clock)
    share = np.zeros(memory.cells)
    if written:  # what a cell's weight gained beyond its decay
        old = 0.0 if new_row else lmn.config.decay * weights_before[0, row]
        share = (memory.weights[0, row] - old).cpu().numpy()
        share[replaced] = 1.0 if replaced >= 0 else share[replaced]
    shown = _worth_showing(asked[BEFORE]["p"], asked[AFTER]["p"], true)
    unused = SHOWN - len(shown)
    surprise = [-each["p"][:, true].clamp(min=TINY).log().cpu().numpy() for each in asked]
    in_use = memory.label[0, :rows] >= 0
    return {
        "seen": int(x),
        "revealed": true,
        "shown": shown + [-1] * unused,
        "p": [np.pad(each["p"][:, shown].cpu().numpy(), ((0, 0), (0, unused))) for each in asked],
        "surprise": [each.clip(min=0) for each in surprise],
        "rank": [float(rank_of(each["p"][MIXTURE], each["p"][MIXTURE, true : true + 1])) for each in asked],
        "rival": rival,
        "margin": float(p[true].clamp(min=TINY).log() - p[rival].clamp(min=TINY).log()),
        "written": written,
        "wrong": not bool(p[true] > p[rival]),
        "new_row": new_row,
        "row": row,
        "replaced": replaced,
        "share": share,
        "cosine": [each["cosine"] for each in asked],
        "s": [each["s"] for each in asked],
        "theta": [each["theta"] for each in asked],
        "row_label": memory.label[0, :rows].cpu().numpy().copy(),
        "count": (memory.count[0, :rows] * in_use).cpu().numpy(),
        "weights": memory.weights[0, :rows].cpu().numpy().copy(),
    }


def _worth_showing(before: Tensor, after: Tensor, true: int) -> list[int]:
    """Labels to keep: the true one, the best of each stage, and the most probable ones; by their mixture before."""
    best = [int(p.argmax()) for p in (*before, after[MIXTURE]) if p.any()]
    most = torch.maximum(before[MIXTURE], after[MIXTURE]).topk(min(SHOWN, before.shape[1])).indices.tolist()
    chosen = list(dict.fromkeys([true, *best, *most]))[:SHOWN]
    return sorted(chosen, key=lambda label: -float(before[MIXTURE, label]))


def _asked(lmn: LMN, step: Step, labels: int) -> dict[str, Any]:
    """What an LMN says about a step: (3, labels) probabilities, and cosine, s and θ by rows of the memory."""
    memory = lmn.memory
    rows, row_label = memory.rows, memory.row_labels
    memory_p = over_all(row_label, step.memory_p, labels)
    held = row_label[0, row_label[0] >= 0]
    theta = step.theta[0]
    if lmn.config.states == "all":
        elsewhere = torch.ones(labels, dtype=torch.bool, device=theta.device)
        elsewhere[held] = False
        others = theta[elsewhere].mean() if elsewhere.any() else theta.new_zeros(())
        theta = torch.cat([theta[row_label[0].clamp(min=0)], others.view(1)])
    return {
        "p": torch.stack([step.mixed[0], step.network_p[0], memory_p[0]]),
        "cosine": cosine(step.hidden, memory.vectors[:, :rows])[0].cpu().numpy(),
        "s": step.memory_p[0].cpu().numpy(),
        "theta": theta.cpu().numpy(),
    }
