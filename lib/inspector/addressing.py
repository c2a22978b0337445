"""Content addressing by hand: six slots in the plane, a key to turn and stretch, and what is read.

A widget in a live notebook and a page that needs nothing but itself in the rendered book, as the inspector is. What it
draws is `lib.memory.addressing` with a sharpness β before the softmax, and one step of `lib.memory.lrua` with one head
whose gate is 0.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets

from lib.inspector import files
from lib.memory import addressing

MODULE = files.whole_module("addressing.js")
STYLE = Path(__file__).parent / "addressing.css"
MEMORY = ((1.5, 0.3), (0.5, 1.2), (-0.9, 0.9), (-1.4, -0.5), (0.3, -1.1), (0.0, 0.0))
KEY = (0.9, 0.7)
MAX_SLOTS = 12
MAX_SHARPNESS = 20.0


class AddressingWidget(anywidget.AnyWidget):
    """Shows a two-dimensional memory: put it last in a cell. Its traits follow the reader, and lead the view when set.

    memory: (N, 2), 1 to 12 slots, a default if None; key: (2,); sharpness: β, 0 to 20, 1 in MANN; usage: (N,), not
    negative, by default that of slots filled one after the other, the lowest first; decay: γ, 0 to 1.
    Raises ValueError for other shapes and values.
    """

    _esm = MODULE
    _css = STYLE
    memory = traitlets.List(help="the slots, N pairs").tag(sync=True)
    usage = traitlets.List(help="the usage of each slot").tag(sync=True)
    key = traitlets.List(help="the key, a pair").tag(sync=True)
    sharpness = traitlets.Float(help="β, before the softmax").tag(sync=True)
    decay = traitlets.Float(help="γ, of the usage").tag(sync=True)

    def __init__(
        self,
        memory: Sequence | np.ndarray | None = None,
        *,
        key: Sequence[float] | np.ndarray = KEY,
        sharpness: float = 1.0,
        usage: Sequence[float] | np.ndarray | None = None,
        decay: float = 0.99,
        **traits: Any,
    ):
        memory = np.asarray(MEMORY if memory is None else memory, dtype=np.float64)
        key = np.asarray(key, dtype=np.float64)
        if memory.ndim != 2 or memory.shape[1] != 2 or not 1 <= len(memory) <= MAX_SLOTS:
            raise ValueError(f"expected a memory of 1 to {MAX_SLOTS} slots of 2 numbers, got {memory.shape}")
        if key.shape != (2,):
            raise ValueError(f"expected a key of 2 numbers, got {key.shape}")
        usage = default_usage(memory, decay) if usage is None else np.asarray(usage, dtype=np.float64)
        if usage.shape != (len(memory),) or not (np.isfinite(usage).all() and (usage >= 0).all()):
            raise ValueError(f"expected a usage of at least 0 for each of {len(memory)} slots, got {usage.tolist()}")
        if not (np.isfinite(memory).all() and np.isfinite(key).all()):
            raise ValueError("the memory and the key must be finite numbers")
        if not 0 <= sharpness <= MAX_SHARPNESS:
            raise ValueError(f"the sharpness must be between 0 and {MAX_SHARPNESS:g}, got {sharpness}")
        if not 0 <= decay <= 1:
            raise ValueError(f"the decay must be between 0 and 1, got {decay}")
        super().__init__(
            memory=memory.tolist(),
            usage=usage.tolist(),
            key=key.tolist(),
            sharpness=float(sharpness),
            decay=float(decay),
            **traits,
        )

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a live notebook, the static page for the rendered book, one line for everything else."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = self.static_html()
        data["text/plain"] = self.summary()
        return data, metadata

    def static_html(self) -> str:
        """HTML to put into a page: style, module and present state are in it, and it asks no server for anything."""
        state = {name: getattr(self, name) for name in ("memory", "usage", "key", "sharpness", "decay")}
        return files.static_html("ca", MODULE, STYLE, self.summary(), state)

    def summary(self) -> str:
        """What is read with the present key, in words."""
        similarity, weights, read = look_up(self.memory, self.key, self.sharpness)
        if not any(similarity):
            return f"The key is like no slot: all {len(weights)} are read alike, weight {_fixed(weights[0], 3)} each."
        best = int(similarity.argmax())
        return (
            f"Slot {best} is most like the key: cosine {_fixed(similarity[best], 3)}, "
            f"weight {_fixed(weights[best], 3)}. The read vector is ({_fixed(read[0], 2)}, {_fixed(read[1], 2)})."
        )


def look_up(
    memory: Sequence | np.ndarray, key: Sequence | np.ndarray, sharpness: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine similarity (N,), weights (N,) and the read vector (2,): equations 2 to 4, with β before the softmax."""
    slots = torch.tensor(memory, dtype=torch.float64).unsqueeze(0)
    similarity = addressing.cosine_similarity(torch.tensor(key, dtype=torch.float64).view(1, 1, -1), slots)
    weights = torch.softmax(sharpness * similarity, dim=-1)
    return similarity[0, 0].numpy(), weights[0, 0].numpy(), addressing.read(weights, slots)[0, 0].numpy()


def default_usage(memory: np.ndarray, decay: float) -> np.ndarray:
    """Usage (N,) of slots that were written with weight 1 one after the other, the lowest first; 0 for empty ones."""
    filled = memory.any(axis=1)
    age = filled.sum() - filled.cumsum()
    return np.where(filled, decay ** age.astype(np.float64), 0.0)


def _fixed(value: float, digits: int) -> str:
    """A number with a minus sign as in print, and no minus before zero: the module in the page writes it so, too."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}".replace("-", "−")
