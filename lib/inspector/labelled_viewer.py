"""The viewer of labelled traces, and a laboratory of LMN: change a setting or the stream, and see the curve move.

The rendered page has no kernel: there, `Choices` lets a reader pick among traces that were recorded beforehand.
"""

import html
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import torch
import traitlets

from lib.inspector import files
from lib.inspector.labelled import NETWORK, LabelledTrace, record_labelled
from lib.inspector.viewer import WIDGET
from lib.methods.lmn import LMN

MODULE = files.whole_module("labelled.js")
STYLE = Path(__file__).parent / "labelled.css"
SIGNS = {"theta": "θ", "cells": "cells a label", "sharpness": "λ", "strength": "δ"}  # others by their own names


@dataclass(frozen=True, eq=False)
class Choices:
    """Traces of one stream, one for each combination of some settings.

    Raises ValueError if there is not one trace for each, or if they are of different streams.
    """

    settings: dict[str, tuple[float | int | None, ...]]
    """Names of settings, as in `LMNConfig`, and the values of each."""
    traces: tuple[LabelledTrace, ...]
    """Of all combinations, the last setting varying first."""
    start: int
    """Which of them is shown first; the curves of the others are drawn beside its own."""

    def __post_init__(self):
        expected = len(list(itertools.product(*self.settings.values())))
        if len(self.traces) != expected:
            raise ValueError(f"these settings have {expected} combinations, but there are {len(self.traces)} traces")
        if not 0 <= self.start < expected:
            raise ValueError(f"there is no combination {self.start}: there are {expected}, from 0 on")
        if not all(_same_stream(trace, self.traces[0]) for trace in self.traces):
            raise ValueError("the traces are of different streams")


def with_settings(lmn: LMN, **settings: Any) -> LMN:
    """An LMN of the same network and combiner with other settings of its `LMNConfig`, at the start of a stream.

    Raises ValueError for `theta=None` without a combiner, and as `LMN` does.
    """
    changed = LMN(lmn.network, replace(lmn.config, **settings))
    if changed.config.theta is None:
        if lmn.config.theta is not None:
            raise ValueError("this LMN has a fixed θ and no combiner: give it a θ from 0 to 1")
        changed.combiner = lmn.combiner
    return changed.to(next(lmn.network.parameters()).device).eval()


def record_choices(lmn: LMN, tokens: Sequence[int], settings: Mapping[str, Sequence[Any]], **about: Any) -> Choices:
    """Record a stream under all combinations of some settings; what the LMN itself has is shown first.

    tokens: two or more. `about`: names, title and note, as for `record_labelled`. Raises ValueError if the LMN's own
    settings are not among them, and as `with_settings` does.
    """
    for name, values in settings.items():
        if getattr(lmn.config, name) not in values:
            raise ValueError(f"{name} of this LMN is {getattr(lmn.config, name)}, which is not among {tuple(values)}")
    xs, ys = _stream(lmn, tokens)
    combinations = [dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values())]
    traces = [record_labelled(with_settings(lmn, **each), xs, ys, **about) for each in combinations]
    # A reader who follows a label from one trace to the next wants its name in each of them.
    names = dict(itertools.chain.from_iterable(trace.names.items() for trace in traces))
    traces = tuple(replace(trace, names=names) for trace in traces)
    start = combinations.index({name: getattr(lmn.config, name) for name in settings})
    return Choices({name: tuple(values) for name, values in settings.items()}, traces, start)


class LabelledInspector(anywidget.AnyWidget):
    """Shows a labelled trace, or choices of them: put it last in a cell. `step` and `label` follow the reader.

    reference: another trace of the same stream whose curve is drawn beside; for choices it is their start.
    step: 0 to T - 1. label: a token to follow, None for the one that the step reveals.
    Raises ValueError for a step or a label that is not there.
    """

    _esm = MODULE
    _css = STYLE
    content = traitlets.Dict(help="traces as JSON, and which of them to show").tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    label = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        shown: LabelledTrace | Choices,
        *,
        reference: LabelledTrace | None = None,
        step: int = 0,
        label: int | None = None,
        **traits: Any,
    ):
        _check(shown, step, label)
        self._shown, self._reference = shown, reference
        super().__init__(content=_content(shown, reference), step=step, label=label, **traits)

    def show(self, shown: LabelledTrace | Choices, reference: LabelledTrace | None = None) -> None:
        """Show something else, at the present step where it has it."""
        first = _first(shown)
        self._shown, self._reference = shown, reference
        with self.hold_sync():
            self.step = min(self.step, first.steps - 1)
            self.label = self.label if self.label in first.names else None
            self.content = _content(shown, reference)

    @traitlets.validate("step", "label")
    def _validate(self, proposal: dict[str, Any]) -> int | None:
        if hasattr(self, "_shown"):
            _check(self._shown, **({"step": 0, "label": None} | {proposal["trait"].name: proposal["value"]}))
        return proposal["value"]

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a live notebook, the static page for the rendered book, one line for everything else."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = self.static_html(self._shown, reference=self._reference, step=self.step, label=self.label)
        data["text/plain"] = _first(self._shown).summary()
        return data, metadata

    @staticmethod
    def static_html(
        shown: LabelledTrace | Choices,
        *,
        reference: LabelledTrace | None = None,
        step: int = 0,
        label: int | None = None,
    ) -> str:
        """HTML to put into a page: traces, style and module are in it, and it asks no server for anything."""
        _check(shown, step, label)
        start = {"content": _content(shown, reference), "step": step, "label": label}
        return files.static_html("la", MODULE, STYLE, _first(shown).summary(), start)

    @classmethod
    def save_html(cls, shown: LabelledTrace | Choices, path: str | Path, **options: Any) -> Path:
        """Write one page that works from a file, with no network; options as for `static_html`. Raises TraceError."""
        return files.save_page(path, _first(shown).title, cls.static_html(shown, **options))


class LabelledLaboratory:
    """Controls for the settings of an LMN and for its stream, and what it then predicts, remembers and forgets.

    The controls need a live notebook; the rendered book shows the first stream under all combinations of `grid`, among
    which a reader can choose. lmn: trained. streams: names and tokens of some streams, two tokens or more each. names:
    of the tokens, by number. Raises ValueError as `record_choices` does.
    """

    def __init__(
        self,
        lmn: LMN,
        streams: Mapping[str, Sequence[int]],
        grid: Mapping[str, Sequence[Any]],
        *,
        names: Sequence[str],
        title: str = "A labelled memory over one stream",
        note: str = "",
        step: int = 0,
    ):
        self.lmn, self.streams, self.names = lmn, dict(streams), tuple(names)
        self._about = {"names": self.names, "title": title, "note": note}
        self._tokens = list(next(iter(self.streams.values())))
        self.choices = record_choices(lmn, self._tokens, grid, **self._about)
        self._start = step
        self.default = self.trace = self.choices.traces[self.choices.start]
        self.inspector = LabelledInspector(self.trace, reference=self.default, step=step)
        self._report, self._message = ipywidgets.HTML(), ipywidgets.HTML()
        self._show_report()
        self.widget = self._controls()

    def run(self, tokens: Sequence[int] | None = None, **settings: Any) -> LabelledTrace:
        """Run a stream, by default the present one, with other settings; the reference is the LMN as it was given.

        Raises ValueError for tokens or settings that make no sense; what is shown is then as before.
        """
        tokens = self._tokens if tokens is None else list(tokens)
        xs, ys = _stream(self.lmn, tokens)
        trace = record_labelled(with_settings(self.lmn, **settings), xs, ys, **self._about)
        default = self.default if tokens == self._tokens else record_labelled(self.lmn, xs, ys, **self._about)
        self._tokens, self.trace, self.default = tokens, trace, default
        self.inspector.show(trace, default)
        self._show_report()
        return trace

    def tokens_of(self, text: str) -> list[int]:
        """The tokens of a text: their names or numbers, between commas. Raises ValueError for one that is unknown."""
        numbers = {name.casefold(): token for token, name in enumerate(self.names)}
        tokens = []
        for word in filter(None, map(str.strip, text.split(","))):
            token = numbers.get(word.casefold())
            if token is None and word.isdecimal() and int(word) < len(self.names):
                token = int(word)
            if token is None:
                raise ValueError(f"there is no token {word!r}; known are, for example, {', '.join(self.names[:3])}")
            tokens.append(token)
        return tokens

    def _controls(self) -> ipywidgets.Widget:
        config, wide = self.lmn.config, ipywidgets.Layout(width="auto", min_width="260px")

        def slider(kind: Any, name: str, low: float, high: float, step: float) -> Any:
            found = kind(
                value=getattr(config, name) if getattr(config, name) is not None else 0.5,
                min=low,
                max=high,
                step=step,
                description=SIGNS.get(name, name),
                continuous_update=False,
                layout=wide,
            )
            found.observe(lambda _: rerun(), "value")
            return found

        number = ipywidgets.FloatSlider
        sliders = {
            "margin": slider(number, "margin", 0, 6, 0.25),
            "decay": slider(number, "decay", 0.5, 1, 0.01),
            "cells": slider(ipywidgets.IntSlider, "cells", 1, 6, 1),
            "sharpness": slider(number, "sharpness", 0, 30, 0.5),
            "strength": slider(number, "strength", 0, 3, 0.1),
        }
        theta = slider(number, "theta", 0, 1, 0.05)
        combiner = ipywidgets.Checkbox(value=config.theta is None, description="θ by the combiner", indent=False)
        combiner.disabled = config.theta is not None
        theta.disabled = combiner.value
        stream = ipywidgets.Dropdown(options=list(self.streams), description="stream", layout=wide)
        typed = ipywidgets.Text(placeholder=", ".join(self.names[:3]), description="or type", layout=wide)
        typed.continuous_update = False  # by Enter, or when the field is left

        def settings() -> dict[str, Any]:
            return {name: each.value for name, each in sliders.items()} | {
                "theta": None if combiner.value else theta.value
            }

        def rerun(tokens: Any = None) -> None:
            try:
                self.run(tokens() if tokens else None, **settings())
                self._message.value = ""
            except ValueError as error:
                self._message.value = f"<p role='alert'>{html.escape(str(error))}</p>"

        def switch(_: Any) -> None:
            theta.disabled = combiner.value
            rerun()

        combiner.observe(switch, "value")
        stream.observe(lambda change: rerun(lambda: self.streams[change["new"]]), "value")
        typed.observe(lambda change: change["new"].strip() and rerun(lambda: self.tokens_of(change["new"])), "value")
        self._widgets = sliders | {"theta": theta, "combiner": combiner, "stream": stream, "typed": typed}
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        lines = [[stream, typed], [*sliders.values()], [theta, combiner]]
        rows = [ipywidgets.HBox(line, layout=wrap) for line in lines]
        return ipywidgets.VBox([*rows, self._message, self._report, self.inspector])

    def _show_report(self) -> None:
        now, default = self.trace, self.default
        self._report.value = (
            f"<p>Log-perplexity over {now.steps} steps: <b>{now.log_perplexity():.3f}</b>; with the settings at the "
            f"start {default.log_perplexity():.3f}; the network alone {now.log_perplexity(NETWORK):.3f}. "
            f"{int(now.written.sum())} writes.</p>"
        )

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Controls in a live notebook; elsewhere the first stream, under the settings of the grid."""
        data, metadata = self.inspector._repr_mimebundle_()
        data[WIDGET] = data[WIDGET] | {"model_id": self.widget.model_id}
        data["text/html"] = LabelledInspector.static_html(self.choices, step=self._start)
        data["text/plain"] = f"Laboratory of LMN. {self.default.summary()}"
        return data, metadata


def _same_stream(a: LabelledTrace, b: LabelledTrace) -> bool:
    return np.array_equal(a.seen, b.seen) and np.array_equal(a.revealed, b.revealed)


def _first(shown: LabelledTrace | Choices) -> LabelledTrace:
    return shown.traces[shown.start] if isinstance(shown, Choices) else shown


def _content(shown: LabelledTrace | Choices, reference: LabelledTrace | None) -> dict[str, Any]:
    """What the module is given: traces, which is shown first, which is the reference, and what may be chosen."""
    if isinstance(shown, Choices):
        settings = [
            {"name": SIGNS.get(name, name), "values": [_in_words(name, value) for value in values]}
            for name, values in shown.settings.items()
        ]
        traces = [trace.to_json() for trace in shown.traces]
        return {"settings": settings, "traces": traces, "picked": shown.start, "reference": shown.start}
    other = reference is not None and reference is not shown
    if other and not _same_stream(reference, shown):
        raise ValueError("the reference is of another stream")
    traces = [shown.to_json(), *([reference.to_json()] if other else [])]
    return {"settings": [], "traces": traces, "picked": 0, "reference": int(other)}


def _in_words(name: str, value: Any) -> str:
    if name == "theta" and value is None:
        return "combiner"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _check(shown: LabelledTrace | Choices, step: int, label: int | None) -> None:
    trace = _first(shown)
    if not 0 <= step < trace.steps:
        raise ValueError(f"there is no step {step}: the trace has {trace.steps} steps, 0 to {trace.steps - 1}")
    if label is not None and label not in trace.names:
        raise ValueError(f"there is no label {label} in this trace")


def _stream(lmn: LMN, tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    if len(tokens) < 2:
        raise ValueError(f"a stream needs two tokens or more, not {len(tokens)}")
    if wrong := [token for token in tokens if not 0 <= token < lmn.network.labels]:
        raise ValueError(f"there is no token {wrong[0]}: the network knows 0 to {lmn.network.labels - 1}")
    stream = torch.as_tensor(list(map(int, tokens)), device=next(lmn.network.parameters()).device).view(1, -1)
    return stream[:, :-1], stream[:, 1:]
