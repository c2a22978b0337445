"""The viewer of an episodic memory: choose a query, change the fit, take neighbours out; with a kernel and without."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from lib.config import to_dict
from lib.inspector import files
from lib.inspector.episodic import EpisodicTrace, Fit
from lib.methods.mbpa import MbPAConfig

MODULE = files.whole_module("episodic.js")
STYLE = Path(__file__).parent / "episodic.css"
VIEW = ("query", "step", "settings", "without", "neighbour")


class EpisodicInspector(anywidget.AnyWidget):
    """Shows an `EpisodicTrace`: put it last in a cell. Its traits follow the reader, and lead the view when set.

    query: 0 to Q - 1; settings: an `MbPAConfig` as a dictionary; step: 0 to T, by default T; without: positions of
    pairs that count as deleted; neighbour: the position that is told of, None for the nearest.
    Raises ValueError for what is not there.
    """

    _esm = MODULE
    _css = STYLE
    trace = traitlets.Dict(help="an EpisodicTrace as JSON").tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    settings = traitlets.Dict(help="how a query is fitted").tag(sync=True)
    without = traitlets.List(traitlets.Int(), help="positions that count as deleted").tag(sync=True)
    neighbour = traitlets.Int(None, allow_none=True).tag(sync=True)

    def __init__(
        self,
        trace: EpisodicTrace,
        *,
        query: int = 0,
        step: int | None = None,
        config: MbPAConfig | None = None,
        without: Iterable[int] = (),
        neighbour: int | None = None,
        **traits: Any,
    ):
        config = config or trace.config
        self._shown = trace
        super().__init__(
            trace=trace.to_json(),
            query=query,
            step=config.steps if step is None else step,
            settings=to_dict(config),
            without=sorted(without),
            neighbour=neighbour,
            **traits,
        )

    @property
    def config(self) -> MbPAConfig:
        """The present settings."""
        return MbPAConfig(**self.settings)

    def fit(self) -> Fit:
        """What is shown, computed here: by `lib.methods.mbpa`, where the page has code of its own."""
        return self._shown.fit(self.query, self.config, self.without)

    @traitlets.validate("query", "settings", "without", "neighbour")
    def _validate(self, proposal: dict[str, Any]) -> Any:
        value, name, shown = proposal["value"], proposal["trait"].name, self._shown
        if name == "settings":
            return to_dict(replace(shown.config, **value))
        if name == "query" and not 0 <= value < len(shown.truth):
            raise ValueError(f"there is no query {value}: there are {len(shown.truth)}, from 0 on")
        positions = {"without": value, "neighbour": [value]}.get(name, [])
        if not all(each is None or 0 <= each < len(shown.keys) for each in positions):
            raise ValueError(f"{name} is {value}: the memory has positions 0 to {len(shown.keys) - 1}")
        if name == "without" and len(set(value)) >= len(shown.keys):
            raise ValueError("something must be left in memory")
        return value

    @traitlets.validate("step")
    def _validate_step(self, proposal: dict[str, Any]) -> int:
        if proposal["value"] < 0:
            raise ValueError(f"there is no step {proposal['value']}: the first is 0")
        return min(proposal["value"], self.settings.get("steps", proposal["value"]))

    @traitlets.observe("settings")
    def _shorten(self, _: Any) -> None:
        self.step = min(self.step, self.settings["steps"])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a live notebook, the static page for the rendered book, one line for everything else."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = self.static_html()
        data["text/plain"] = self._shown.summary(self.query)
        return data, metadata

    def static_html(self) -> str:
        """HTML to put into a page: trace, style, module and present state are in it, and it asks no server for
        anything."""
        start = {"content": self.trace} | {name: getattr(self, name) for name in VIEW}
        return files.static_html("em", MODULE, STYLE, self._shown.summary(self.query), start)

    def save_html(self, path: str | Path) -> Path:
        """Write one page that works from a file, with no network. Raises TraceError."""
        return files.save_page(path, self._shown.title, self.static_html())
