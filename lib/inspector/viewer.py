"""The viewer of a trace: a widget in a live notebook, a page that needs nothing but itself in the rendered book."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from lib.inspector import files
from lib.inspector.trace import Trace, check_slot

MODULE = files.whole_module("inspector.js")
STYLE = Path(__file__).parent / "inspector.css"
WIDGET = "application/vnd.jupyter.widget-view+json"


class Inspector(anywidget.AnyWidget):
    """Shows a trace: put it last in a cell. `step` and `slot` say what the reader looks at; set them to lead it.

    step: 0 to T - 1; slot: 0 to N - 1, or None for no slot. Raises ValueError for a step or a slot that is not there.
    """

    _esm = MODULE
    _css = STYLE
    trace = traitlets.Dict(help="a trace as JSON, of Trace.to_json").tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    slot = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(self, trace: Trace, *, step: int = 0, slot: int | None = None, **traits: Any):
        _check(trace, step, slot)
        self._shown = trace
        super().__init__(trace=trace.to_json(), step=step, slot=slot, **traits)

    def show(self, trace: Trace) -> None:
        """Show another trace, at the present step and slot where it has them."""
        step = min(self.step, trace.steps - 1)
        slot = self.slot if self.slot is not None and self.slot < trace.slots else None
        self._shown = trace
        with self.hold_sync():
            self.trace, self.step, self.slot = trace.to_json(), step, slot

    @traitlets.validate("step", "slot")
    def _valid(self, proposal: Any) -> int | None:
        value, name = proposal["value"], proposal["trait"].name
        _check(self._shown, **{"step": 0, "slot": None} | {name: value})
        return value

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a live notebook, the static page for the rendered book, one line for everything else."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = self.static_html(self._shown, step=self.step, slot=self.slot)
        data["text/plain"] = summary(self._shown)
        return data, metadata

    @staticmethod
    def static_html(trace: Trace, *, step: int = 0, slot: int | None = None) -> str:
        """HTML to put into a page: trace, style and module are in it, and it asks no server for anything."""
        _check(trace, step, slot)
        start = {"trace": trace.to_json(), "step": step, "slot": slot}
        return files.static_html("mi", MODULE, STYLE, summary(trace), start)

    @classmethod
    def save_html(cls, trace: Trace, path: str | Path, *, step: int = 0, slot: int | None = None) -> Path:
        """Write one page that works from a file, with no network. Raises TraceError if it cannot be written."""
        return files.save_page(path, trace.title, cls.static_html(trace, step=step, slot=slot))


def summary(trace: Trace) -> str:
    """One line about a trace, for where it cannot be drawn."""
    memory = f"a memory of {trace.slots} slots" if trace.slots else "no memory"
    right = int(trace.right.sum())
    answers = f"{right} of {trace.steps} answers right"
    return f"Memory inspector: {trace.title}. {trace.steps} steps, {memory}, {answers}. {trace.note}"


def _check(trace: Trace, step: int, slot: int | None) -> None:
    if not 0 <= step < trace.steps:
        raise ValueError(f"there is no step {step}: the trace has {trace.steps} steps, 0 to {trace.steps - 1}")
    if slot is not None:
        check_slot(slot, trace.slots)
