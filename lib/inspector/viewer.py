"""The viewer of a trace: a widget in a live notebook, a page that needs nothing but itself in the rendered book."""

import html
import json
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from lib.atomic import write_atomically
from lib.inspector.trace import Trace, TraceError, check_slot

FOLDER = Path(__file__).parent
MODULE = FOLDER / "inspector.js"
STYLE = FOLDER / "inspector.css"
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
        start = json.dumps({"trace": trace.to_json(), "step": step, "slot": slot}).replace("<", "\\u003c")
        return (
            f"<style>{STYLE.read_text()}</style>\n"
            f'<div class="mi-place"><p>{html.escape(summary(trace))} Drawn here where JavaScript runs.</p></div>\n'
            f'<script type="application/json" class="mi-trace">{start}</script>\n'
            f'<script type="module">\n{MODULE.read_text()}\nmountAll();\n</script>'
        )

    @classmethod
    def save_html(cls, trace: Trace, path: str | Path, *, step: int = 0, slot: int | None = None) -> Path:
        """Write one page that works from a file, with no network. Raises TraceError if it cannot be written."""
        path = Path(path)
        page = (
            '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8">'
            f"<title>{html.escape(trace.title)}</title>\n"
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<link rel="icon" href="data:,">\n'
            "<style>:root { color-scheme: light dark; } body { max-width: 1200px; margin: 0 auto; padding: 12px; "
            "font-family: system-ui, sans-serif; }</style></head>\n"
            f"<body><main>\n{cls.static_html(trace, step=step, slot=slot)}\n</main></body>\n</html>\n"
        )
        try:
            write_atomically(path, lambda file: file.write(page.encode()))
        except OSError as error:
            raise TraceError(f"The page {path} cannot be written: {error.strerror or error}.") from error
        return path


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
