"""What one episode did to one memory: a `Trace`, recorded from any online learner and kept in one JSON file.

Steps, slots and labels count from 0 everywhere, so `trace.memory[17, 3]` is slot 3 after the write of step 17.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from lib.inspector.files import load_trace, packed, save_trace, unpacked

FORMAT = "memory-trace"
VERSION = 1
WRITTEN = 2.0  # a slot counts as written in a step from this many times the mean write weight of that step's slots

# How each array is stored, see `files.py`.
STORED = {
    "images": "uint8",
    "labels": "uint16",
    "instance": "uint16",
    "probabilities": "uint16",
    "memory": "int16",
    "label_memory": "int16",
    "read_weights": "uint16",
    "write_weights": "uint16",
    "usage": "uint16",
    "least_used": "uint8",
    "answers_before": "uint16",
}
SCALED = dict.fromkeys(("probabilities", "memory", "label_memory", "read_weights", "write_weights", "usage"))
# The fields of a learner's state that are memories, and the array of the trace that shows each.
MEMORIES = {"memory": "memory", "feature_memory": "memory", "label_memory": "label_memory"}


class Intervention:
    """A change made to a learner while an episode runs; this one changes nothing (see `laboratory.py`)."""

    def tell(self, ys: Tensor) -> Tensor:
        """The labels (1, T) to tell in place of `ys`."""
        return ys

    def before(self, step: int, state: Any) -> Any:
        """The state to have just before the prediction of `step`, in place of `state`."""
        return state

    def after(self, step: int, earlier: Any, state: Any) -> Any:
        """The state to have once the label of `step` was told; `earlier` is the one that `before` gave."""
        return state


@dataclass(frozen=True, eq=False)
class Trace:
    """T steps of one episode with C classes; a memory of N slots of width M, R read heads and W write heads.

    Raises ValueError if the shapes of the arrays do not agree or a number is not finite.
    """

    title: str
    """What is shown: method, task, data, number of updates."""
    note: str
    """Where it comes from; says so if the network is untrained or the data are a stand-in."""
    images: np.ndarray
    """uint8 (T, S, S): the input of each step, 0..255, ink bright."""
    labels: np.ndarray
    """int64 (T,): the label that is told after step t."""
    probabilities: np.ndarray
    """float32 (T, C): the prediction at step t, before its label is told."""
    instance: np.ndarray
    """int64 (T,): how many times the class of step t has been seen by then; 1 for a first sight."""
    memory: np.ndarray | None = None
    """float32 (T, N, M): after the write of step t. None, like all that follow, for a learner without memory."""
    label_memory: np.ndarray | None = None
    """float32 (T, N, L): where labels have slots of their own, beside those of `memory`, which then holds features. A
    write of step t puts the label of step t - 1 to where that step's write went. None for one memory."""
    read_weights: np.ndarray | None = None
    """float32 (T, R, N): not negative."""
    write_weights: np.ndarray | None = None
    """float32 (T, W, N): not negative."""
    usage: np.ndarray | None = None
    """float32 (T, N): not negative."""
    least_used: np.ndarray | None = None
    """bool (T, N): the slots that the usage of step t chooses for the next write."""
    answers_before: np.ndarray | None = None
    """int64 (T,): the answers in the same episode before something was changed; the viewer marks those that differ."""
    label_delay: int = 1
    """What a slot written at step t can hold: 1, x_t and the label of step t - 1 (MANN); 0, x_t and its own label."""

    def __post_init__(self):
        steps, sizes = len(self.labels), {}
        layout = {
            "images": ("T", "S", "S"), "labels": ("T",), "probabilities": ("T", "C"), "instance": ("T",),
            "memory": ("T", "N", "M"), "label_memory": ("T", "N", "L"),
            "read_weights": ("T", "R", "N"), "write_weights": ("T", "W", "N"),
            "usage": ("T", "N"), "least_used": ("T", "N"), "answers_before": ("T",),
        }  # fmt: skip
        for name, array in self.arrays().items():
            axes = layout[name]
            if array.ndim != len(axes):
                raise ValueError(f"{name} must have the axes {axes}, its shape is {array.shape}")
            for axis, size in zip(axes, array.shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    raise ValueError(f"{name} has the shape {array.shape}, but {axis} is {sizes[axis]} in the others")
            if name in SCALED and not np.isfinite(array).all():
                step = np.argwhere(~np.isfinite(array))[0][0]
                raise ValueError(f"{name} has a number that is not finite, first at step {step}")
        if steps == 0:
            raise ValueError("a trace needs at least one step")

    @property
    def steps(self) -> int:
        """T."""
        return len(self.labels)

    @property
    def slots(self) -> int:
        """N, or 0 for a learner without memory."""
        return 0 if self.memory is None else self.memory.shape[1]

    @property
    def answers(self) -> np.ndarray:
        """int64 (T,): the most probable class of each step."""
        return self.probabilities.argmax(1)

    @property
    def right(self) -> np.ndarray:
        """bool (T,): whether the answer is the label."""
        return self.answers == self.labels

    def written(self, slot: int) -> list[tuple[int, float]]:
        """(step, write weight summed over the heads) of each write into `slot`: where it is `WRITTEN` times the mean.

        Raises ValueError if there is no such slot.
        """
        check_slot(slot, self.slots)
        if self.write_weights is None:
            return []
        mass = self.write_weights.sum(1)
        steps = np.flatnonzero((mass[:, slot] >= WRITTEN * mass.mean(1)) & (mass[:, slot] > 0))
        return [(int(step), float(mass[step, slot])) for step in steps]

    def telling_step(self, least: bool = False) -> tuple[int, int | None]:
        """A step and a slot to open a viewer at: the first right answer that reads most a write with its own label.

        That is, one that had just been told this label, or, with `label_delay` 0, had seen an image of its class. Only
        steps after every class was seen, and slots that another step wrote, count. (0, None) if there is none.
        least: what it reads least, for a network that finds a class so (see `preference.py`).
        """
        if self.memory is None:
            return 0, None
        last_first_sight = np.flatnonzero(self.instance == 1)[-1]
        writers = [[step for step, _ in self.written(slot)] for slot in range(self.slots)]
        for step in np.flatnonzero(self.right & (self.instance > 1) & (np.arange(self.steps) > last_first_sight)):
            reads = self.read_weights[step].sum(0)
            earlier = [
                slot
                for slot in range(self.slots)
                if step not in writers[slot] and min(writers[slot], default=step) < step
            ]
            if earlier:
                slot = (min if least else max)(earlier, key=lambda slot: reads[slot])
                told = max(t for t in writers[slot] if t < step) - self.label_delay
                if told >= 0 and self.labels[told] == self.labels[step]:
                    return int(step), slot
        return 0, None

    def accuracy_by_instance(self, last: int = 10) -> dict[int, float]:
        """Share of right answers at the steps of each instance number from 1 to `last`, if there are such steps."""
        seen = [number for number in range(1, last + 1) if (self.instance == number).any()]
        return {number: float(self.right[self.instance == number].mean()) for number in seen}

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that this trace has, by name."""
        return {name: getattr(self, name) for name in STORED if getattr(self, name) is not None}

    def to_json(self) -> dict[str, Any]:
        """The trace as a JSON object, which is also what the viewer draws. Memory keeps 16 bits, weights too."""
        about = {"title": self.title, "note": self.note, "label_delay": self.label_delay, "written": WRITTEN}
        return {"format": FORMAT, "version": VERSION} | about | packed(self.arrays(), STORED, SCALED)

    @classmethod
    def from_json(cls, content: Any) -> "Trace":
        """The trace of a JSON object made by `to_json`. Raises ValueError if it is another or a damaged one."""
        needed = {"images", "labels", "probabilities", "instance"}
        arrays = unpacked(content, (FORMAT, VERSION), STORED, SCALED, needed)
        kinds = {"labels": np.int64, "instance": np.int64, "answers_before": np.int64, "least_used": bool}
        arrays |= {name: arrays[name].astype(kind) for name, kind in kinds.items() if name in arrays}
        try:
            texts = {name: content[name] for name in ("title", "note", "label_delay")}
        except KeyError as error:
            raise ValueError(f"it has no {error}") from error
        return cls(**texts, **arrays)

    def save(self, path: str | Path) -> Path:
        """Write the trace as one JSON file, whole or not at all. Raises TraceError."""
        return save_trace(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read a trace that `save` wrote. Raises TraceError if the file is missing, damaged or something else."""
        return load_trace(path, cls.from_json)


def record(
    learner: Any, xs: Tensor, ys: Tensor, *, index: int = 0, title: str = "Memory over one episode", note: str = "",
    image_size: int | None = None, label_delay: int | None = None, interventions: Sequence[Intervention] = (),
) -> Trace:  # fmt: skip
    """Run one episode through the learner's streaming view and keep what it did to its memory.

    xs: (B, T, D), in [0, 1], images of `image_size` squared pixels (by default D is a square); ys: (B, T), int64;
    index: which episode of the batch; label_delay: see `Trace`, by default 0 where labels have a memory of their own,
    else 1. The labels of the trace are those that the learner was told; its instance numbers count the classes of `ys`.
    Raises ValueError for wrong shapes.
    """
    if xs.ndim != 3 or tuple(ys.shape) != tuple(xs.shape[:2]) or xs.shape[1] == 0:
        raise ValueError(f"expected xs (B, T, D) and ys (B, T), got {tuple(xs.shape)} and {tuple(ys.shape)}")
    if not 0 <= index < len(xs):
        raise ValueError(f"there is no episode {index} in a batch of {len(xs)}: give an index from 0 to {len(xs) - 1}")
    xs, ys = xs[index : index + 1], ys[index : index + 1]
    images = _images(xs[0], image_size)
    instance = [int((ys[0, : t + 1] == ys[0, t]).sum()) for t in range(ys.shape[1])]
    told = ys
    for intervention in interventions:
        told = intervention.tell(told)

    kept: dict[str, list[np.ndarray]] = {"probabilities": []}
    with _evaluating(learner):
        learner.begin(1)
        for t in range(xs.shape[1]):
            for intervention in interventions:
                learner.state = intervention.before(t, learner.state)
            earlier = learner.state
            kept["probabilities"].append(_to_numpy(learner.predict(xs[:, t]), np.float32))
            learner.observe(xs[:, t], told[:, t])
            for intervention in interventions:
                learner.state = intervention.after(t, earlier, learner.state)
            shown = MEMORIES | {name: name for name in ("read_weights", "write_weights", "usage", "least_used")}
            for field, name in shown.items():
                value = getattr(learner.state, field, None)
                if value is not None:
                    kept.setdefault(name, []).append(_to_numpy(value, bool if name == "least_used" else np.float32))

    arrays = {name: np.stack(values) for name, values in kept.items()}
    if "least_used" in arrays and arrays["least_used"].ndim == 3:
        arrays["least_used"] = arrays["least_used"].any(1)  # the n least used, one row each: keep which slots they are
    labels = _to_numpy(told, np.int64)
    if label_delay is None:
        label_delay = 0 if "label_memory" in arrays else 1
    return Trace(title, note, images, labels, instance=np.array(instance), label_delay=label_delay, **arrays)


def check_slot(slot: int, slots: int) -> None:
    """Raise ValueError unless the memory of `slots` slots has a slot of this number."""
    if slots == 0:
        raise ValueError("this learner has no memory, so there is no slot to choose")
    if not 0 <= slot < slots:
        raise ValueError(f"there is no slot {slot}: the memory has {slots} slots, 0 to {slots - 1}")


def _to_numpy(batch_of_one: Tensor, kind: type) -> np.ndarray:
    return batch_of_one[0].detach().cpu().numpy().astype(kind)


def _images(pixels: Tensor, size: int | None) -> np.ndarray:
    size = size or round(pixels.shape[1] ** 0.5)
    if size * size != pixels.shape[1]:
        raise ValueError(f"inputs of length {pixels.shape[1]} are not images of {size} x {size} pixels")
    scaled = 255 * pixels.detach().float().cpu().numpy().clip(0, 1)
    return np.rint(scaled).astype(np.uint8).reshape(-1, size, size)


@contextmanager
def _evaluating(learner: Any) -> Iterator[None]:
    """Put a network into evaluation mode for a while."""
    training = getattr(learner, "training", False)
    if training:
        learner.eval()
    try:
        yield
    finally:
        if training:
            learner.train()
