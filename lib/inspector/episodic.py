"""What MbPA does for some queries of images: an `EpisodicTrace` that holds a whole memory, and the fit of any query.

A fit of a softmax layer needs little: the keys with their values, the layer, the query. So a trace keeps them instead
of what came of them. Here `EpisodicTrace.fit` computes it with `lib.methods.mbpa`; in the page, the viewer's own code
does the same, so that K, α, β, T, the optimizer and the memory can be changed where there is no kernel.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from lib.config import to_dict
from lib.inspector.files import load_trace, packed, save_trace, unpacked
from lib.memory.episodic import Context, kernel_weights, nearest
from lib.methods.mbpa import MbPAConfig, fit_loss, fitter, from_memory

FORMAT = "episodic-memory-trace"
VERSION = 1

# How each array is stored, see `files.py`. 32 bits of a number are as good as the float32 that they come from.
STORED = {
    "keys": "int32",
    "values": "int16",
    "images": "uint8",
    "queries": "int32",
    "truth": "int16",
    "query_images": "uint8",
    "weight": "int32",
    "bias": "int32",
}
SCALED = dict.fromkeys(("keys", "queries", "weight", "bias"))


class Fit(NamedTuple):
    """One query: what was retrieved, and the output network before the first and after each of T steps."""

    positions: np.ndarray
    """int (K,): of the neighbours in the memory, the nearest first."""
    distances: np.ndarray
    """float (K,): ‖h_k - q‖²"""
    weights: np.ndarray
    """float (K,): w_k, whose sum is 1."""
    p: np.ndarray
    """float (T + 1, classes): of the query."""
    moved: np.ndarray
    """float (T + 1,): ‖θ_x - θ‖"""
    loss: np.ndarray
    """float (T + 1,): Σ_k w_k (-log p(v_k | h_k, θ_x)), in nats."""
    vote: np.ndarray
    """float (classes,): what the memory alone says (equation 9)."""


@dataclass(frozen=True, eq=False)
class EpisodicTrace:
    """N pairs of an episodic memory with the images they come from, a softmax layer and Q queries.

    Images are (height, width) with ink bright, or (height, width, 3). Raises ValueError for arrays that do not fit
    together.
    """

    title: str
    note: str
    names: tuple[str, ...]
    """Of the classes."""
    known: tuple[int, ...]
    """Classes that the layer was trained on."""
    config: MbPAConfig
    """How a query is fitted at first."""
    keys: np.ndarray
    """float (N, D)"""
    values: np.ndarray
    """int (N,): classes."""
    images: np.ndarray
    """uint8 (N, height, width) or (N, height, width, 3)"""
    queries: np.ndarray
    """float (Q, D)"""
    truth: np.ndarray
    """int (Q,): the queries' own classes."""
    query_images: np.ndarray
    """uint8, as `images`."""
    weight: np.ndarray
    """float (classes, D): W of the layer."""
    bias: np.ndarray | None
    """float (classes,), or None for a layer without biases, which are not fitted then either."""

    def __post_init__(self):
        n, width = self.keys.shape
        classes = len(self.names)
        shapes = {
            "values": (n,),
            "images": (n, *self.query_images.shape[1:]),
            "queries": (len(self.truth), width),
            "query_images": (len(self.truth), *self.images.shape[1:]),
            "weight": (classes, width),
            "bias": (classes,),
        }
        for name, shape in shapes.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} should be {shape}, it is {array.shape}")
        if self.images.ndim not in (3, 4) or self.images.shape[3:] not in ((), (3,)):
            raise ValueError(f"images are (N, height, width) or (N, height, width, 3), not {self.images.shape}")
        labels = np.concatenate([self.values, self.truth, np.array(self.known, np.int64)])
        if not n or not len(self.truth) or not ((labels >= 0) & (labels < classes)).all():
            raise ValueError(f"a trace needs a pair, a query, and classes from 0 to {classes - 1}")

    def layer(self) -> nn.Linear:
        """g_θ, in float64."""
        layer = nn.Linear(self.weight.shape[1], len(self.names), bias=self.bias is not None, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(self.weight))
            if self.bias is not None:
                layer.bias.copy_(torch.from_numpy(self.bias))
        return layer

    @torch.no_grad()
    def fit(self, query: int, config: MbPAConfig | None = None, without: Iterable[int] = ()) -> Fit:
        """Fit the layer to a query's neighbours, step by step.

        config: by default the trace's own; without: positions that count as deleted. Raises ValueError for a query or a
        position that is not there, and if all pairs are deleted.
        """
        config, without = config or self.config, set(without)
        if not 0 <= query < len(self.truth):
            raise ValueError(f"there is no query {query}: there are {len(self.truth)}, from 0 on")
        if not without <= set(range(len(self.keys))) or len(without) == len(self.keys):
            raise ValueError(f"some of the positions from 0 to {len(self.keys) - 1} can be deleted, not {without}")
        held = torch.tensor([i for i in range(len(self.keys)) if i not in without])
        keys, q = (
            torch.from_numpy(self.keys).double()[held],
            torch.from_numpy(self.queries[query]).double().unsqueeze(0),
        )
        found = nearest(q, keys, config.neighbours)
        positions = held[found.positions]
        weights = kernel_weights(found.distances, config.epsilon)
        context = Context(keys[found.positions], torch.from_numpy(self.values).long()[positions], weights)
        # The same fit for each neighbour, too: how well the fitted layer explains what it was fitted to.
        asked = torch.cat([q, context.keys[0]])
        same = Context(*(each.expand(len(asked), *each.shape[1:]) for each in context))
        layer, p, moved, loss = self.layer(), [], [], []
        for step in range(config.steps + 1):
            now = replace(config, steps=step)
            fitted = fitter(layer, now, True)(layer, asked, same, now)
            p.append(fitted.outputs[0].softmax(0))
            moved.append(fitted.moved[0])
            loss.append(fit_loss(fitted.outputs[1:], context.values[0], weights[0]))
        tensors = positions[0], found.distances[0], weights[0], *map(torch.stack, (p, moved, loss))
        return Fit(*(each.numpy() for each in tensors), from_memory(context, len(self.names))[0].numpy())

    def right(self, config: MbPAConfig | None = None) -> np.ndarray:
        """bool (T + 1, Q): whether each query's most probable class is its own, before and after each step."""
        tops = [self.fit(query, config).p.argmax(1) == y for query, y in enumerate(self.truth)]
        return np.stack(tops, axis=1)

    def summary(self, query: int = 0) -> str:
        """A query in words."""
        fit, y, config = self.fit(query), self.truth[query], self.config
        first, last = (self.names[fit.p[step].argmax()] for step in (0, -1))
        return (
            f"A query of class {self.names[y]}, which had {100 * fit.p[0, y]:.1f}% before; the network alone says "
            f"{first}. After {config.steps} steps on its {len(fit.positions)} nearest of {len(self.keys)} neighbours "
            f"it has {100 * fit.p[-1, y]:.1f}%, and the answer is {last}; θ moved by {fit.moved[-1]:.2f}."
        )

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, arrays packed."""
        arrays = {name: getattr(self, name) for name in STORED if getattr(self, name) is not None}
        arrays |= {name: arrays[name].astype(np.float64) for name in SCALED if name in arrays}  # 31 bits of a number
        return {
            "format": FORMAT,
            "version": VERSION,
            "title": self.title,
            "note": self.note,
            "names": list(self.names),
            "known": list(self.known),
            "settings": to_dict(self.config),
            **packed(arrays, STORED, SCALED),
        }

    @classmethod
    def from_json(cls, content: Any) -> "EpisodicTrace":
        """From such an object. Raises ValueError if it is not a sound one."""
        arrays = unpacked(content, (FORMAT, VERSION), STORED, SCALED, STORED.keys() - {"bias"})
        arrays |= {name: arrays[name].astype(np.int64) for name in ("values", "truth")}
        try:
            names, known, config = content["names"], content["known"], MbPAConfig(**content["settings"])
            return cls(
                content["title"], content["note"], tuple(names), tuple(known), config, **({"bias": None} | arrays)
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"its description is damaged ({type(error).__name__}: {error})") from error

    def save(self, path: str | Path) -> Path:
        """Write it as one JSON file, whole or not at all. Raises TraceError."""
        return save_trace(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "EpisodicTrace":
        """Read it again. Raises TraceError if the file is missing, damaged or something else."""
        return load_trace(path, cls.from_json)


def episodic_trace(
    keys: Float[Tensor, "held width"],
    values: Int[Tensor, " held"],
    images: UInt8[np.ndarray, "held height side *colours"],
    output: nn.Linear,
    queries: Float[Tensor, "queries width"],
    truth: Int[Tensor, " queries"],
    query_images: UInt8[np.ndarray, "queries height side *colours"],
    *,
    names: Sequence[str],
    config: MbPAConfig,
    known: Sequence[int] = (),
    title: str = "An episodic memory",
    note: str = "",
) -> EpisodicTrace:
    """A trace of any memory of images, such as `memory.keys`, `memory.values` and `mbpa.output` of an `MbPA`.

    names: of all classes of the layer; known: those that it was trained on. The whole memory goes into the page: a few
    hundred small images are enough. Raises ValueError for what does not fit together.
    """

    def array(tensor: Tensor, kind: type) -> np.ndarray:
        return tensor.detach().cpu().numpy().astype(kind)

    trace = EpisodicTrace(
        title=title,
        note=note,
        names=tuple(names),
        known=tuple(known),
        config=config,
        keys=array(keys, np.float32),
        values=array(values, np.int64),
        images=images,
        queries=array(queries, np.float32),
        truth=array(truth, np.int64),
        query_images=query_images,
        weight=array(output.weight, np.float32),
        bias=None if output.bias is None else array(output.bias, np.float32),
    )
    # Through its stored form, so that what is computed now is what is computed of the file.
    return EpisodicTrace.from_json(json.loads(json.dumps(trace.to_json())))
