"""What MbPA does at some places of a text: the most like steps of the past, and the words whose probability changed.

A fit of a softmax over thousands of words is too much for a page, so a `TextTrace` keeps what came of it, under every
combination of some K, T and α. Its viewer lets a reader choose among them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import torch
import traitlets
from jaxtyping import Int
from torch import Tensor

from lib.config import to_dict
from lib.inspector import files
from lib.memory.episodic import Context, kernel_weights, nearest
from lib.methods.mbpa import MbPAConfig, fitter
from lib.methods.mbpa_text import TextMbPA

FORMAT = "episodic-text-trace"
VERSION = 2
SEEN, BEFORE = 24, 7  # words that are shown before a query, and before a neighbour
SHOWN, NEIGHBOURS = 14, 12  # words with their probabilities, and neighbours
MODULE = files.whole_module("episodic_text.js")
STYLE = Path(__file__).parent / "episodic.css"

# Of Q queries under S settings, which are A numbers of neighbours times some numbers of steps and some rates.
STORED = {
    "seen": "int32",  # (Q, SEEN): the words before, -1 where the text begins
    "truth": "int32",  # (Q,): the word that followed
    "shown": "int32",  # (Q, S, SHOWN): words, what came true first, then those that changed most
    "surprise": "int32",  # (Q, S, 2, SHOWN): -log of their probabilities before and after the fit
    "moved": "int32",  # (Q, S): ‖θ_x - θ‖
    "held": "int32",  # (Q,): steps in memory
    "before": "int32",  # (Q, NEIGHBOURS, BEFORE): the words that a neighbour had seen last
    "followed": "int32",  # (Q, NEIGHBOURS): and the one that followed
    "ago": "int32",  # (Q, NEIGHBOURS): how many steps ago that was
    "weights": "int32",  # (Q, A, NEIGHBOURS): 0 for one that is not among so many neighbours
}
SCALED = dict.fromkeys(("surprise", "moved", "weights"))


@dataclass(frozen=True, eq=False)
class TextTrace:
    """Q places of a text; arrays as in `STORED`."""

    title: str
    note: str
    names: dict[int, str]
    """Of all words that occur in it."""
    why: tuple[str, ...]
    """Why each query is here."""
    config: MbPAConfig
    """What is shown first, and all that does not vary."""
    neighbours: tuple[int, ...]
    """K to choose from."""
    steps: tuple[int, ...]
    """T to choose from."""
    rates: tuple[float, ...]
    """α to choose from: all of them with the first K and T, then with the next T, then with the next K."""
    arrays: dict[str, np.ndarray]

    @property
    def settings(self) -> list[tuple[int, int, float]]:
        """(K, T, α) of each setting."""
        return list(itertools.product(self.neighbours, self.steps, self.rates))

    def probabilities(self) -> np.ndarray:
        """float (Q, S, 2, SHOWN): of the words that are shown, before and after the fit."""
        return np.exp(-self.arrays["surprise"])

    def gains(self) -> np.ndarray:
        """float (Q, S): by how many bits the fit made the word that followed more probable."""
        before, after = np.moveaxis(self.arrays["surprise"][..., 0], 2, 0)
        return (before - after) / np.log(2)

    def summary(self) -> str:
        """The trace in words."""
        gains = self.gains()[:, self.start]
        return (
            f"At {(gains > 0).sum()} of {len(gains)} places of a text the word that followed is more probable after "
            f"the fit with K = {self.config.neighbours}, T = {self.config.steps}, α = {self.config.rate:g}."
        )

    @property
    def start(self) -> int:
        """Which of the settings is the config's own."""
        return self.settings.index((self.config.neighbours, self.config.steps, self.config.rate))

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, arrays packed."""
        wide = {name: array.astype(np.float64) if name in SCALED else array for name, array in self.arrays.items()}
        return {
            "format": FORMAT,
            "version": VERSION,
            "title": self.title,
            "note": self.note,
            "names": {str(token): name for token, name in self.names.items()},
            "why": list(self.why),
            "settings": to_dict(self.config),
            "neighbours": list(self.neighbours),
            "steps": list(self.steps),
            "rates": list(self.rates),
            **files.packed(wide, STORED, SCALED),
        }

    @classmethod
    def from_json(cls, content: Any) -> "TextTrace":
        """From such an object. Raises ValueError if it is not a sound one."""
        arrays = files.unpacked(content, (FORMAT, VERSION), STORED, SCALED, set(STORED))
        try:
            names = {int(token): name for token, name in content["names"].items()}
            config = MbPAConfig(**content["settings"])
            lists = (tuple(content[name]) for name in ("neighbours", "steps", "rates"))
            return cls(content["title"], content["note"], names, tuple(content["why"]), config, *lists, arrays)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"its description is damaged ({type(error).__name__}: {error})") from error

    def save(self, path: str | Path) -> Path:
        """Write it as one JSON file, whole or not at all. Raises TraceError."""
        return files.save_trace(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> "TextTrace":
        """Read it again. Raises TraceError if the file is missing, damaged or something else."""
        return files.load_trace(path, cls.from_json)


@torch.no_grad()
def text_trace(
    mbpa: TextMbPA,
    tokens: Int[Tensor, " words"],
    positions: Sequence[int],
    *,
    names: Sequence[str],
    neighbours: Sequence[int],
    steps: Sequence[int],
    rates: Sequence[float],
    why: Sequence[str] | None = None,
    title: str = "An episodic memory of a text",
    note: str = "",
) -> TextTrace:
    """Read a text and stop at some places, each of which is fitted under all settings.

    positions: t, where words up to t are seen and word t + 1 is asked for; the memory holds what `mbpa.config` says.
    names: of all words. neighbours, steps, rates: K, T and α to choose from, those of `mbpa.config.fit` among them.
    why: a reason for each position. Raises ValueError for positions without a past or a word that follows, and if the
    config's own setting is not among the others.
    """
    fit, size = mbpa.config.fit, mbpa.config.size
    if not all(0 < t < len(tokens) - 1 for t in positions):
        raise ValueError(f"a position has a past and a word that follows: between 1 and {len(tokens) - 2}")
    if fit.neighbours not in neighbours or fit.steps not in steps or fit.rate not in rates:
        own = f"K = {fit.neighbours}, T = {fit.steps} and α = {fit.rate}"
        raise ValueError(f"{own} are not among {neighbours}, {steps} and {rates}")
    hidden = mbpa.network.hidden(tokens[None, :-1])[0][0]
    padded = torch.cat([tokens.new_full((SEEN,), -1), tokens])
    rows: dict[str, list[Tensor]] = {name: [] for name in STORED}
    for t in positions:
        first, q = max(0, t - size), hidden[t].unsqueeze(0)
        found = nearest(q, hidden[first:t], max(neighbours))
        near = first + found.positions[0]
        kept = near[:NEIGHBOURS]
        missing = NEIGHBOURS - len(kept)
        rows["seen"].append(padded[t + 1 : t + 1 + SEEN])
        rows["truth"].append(tokens[t + 1])
        rows["held"].append(torch.tensor(t - first))
        words = torch.stack([padded[step + 1 + SEEN - BEFORE : step + 1 + SEEN] for step in kept])
        rows["before"].append(_padded(words, missing, -1))
        rows["followed"].append(_padded(tokens[kept + 1], missing, -1))
        rows["ago"].append(_padded(t - kept, missing, 0))
        network = mbpa.output(q)[0].log_softmax(0)
        settings = {name: [] for name in ("shown", "surprise", "moved", "weights")}
        for k in neighbours:
            k = min(k, len(near))
            weights = kernel_weights(found.distances[:, :k], fit.epsilon)
            settings["weights"].append(_padded(weights[0, :NEIGHBOURS], NEIGHBOURS - min(k, NEIGHBOURS), 0.0))
            context = Context(hidden[near[:k]].unsqueeze(0), tokens[near[:k] + 1].unsqueeze(0), weights)
            for taken, rate in itertools.product(steps, rates):
                now = replace(fit, neighbours=k, steps=taken, rate=rate)
                fitted = fitter(mbpa.output, now, True)(mbpa.output, q, context, now)
                own = fitted.outputs[0].log_softmax(0)
                shown = _most_changed(own.exp() - network.exp(), int(tokens[t + 1]))
                settings["shown"].append(shown)
                settings["surprise"].append(-torch.stack([network[shown], own[shown]]))
                settings["moved"].append(fitted.moved[0])
        for name, values in settings.items():
            rows[name].append(torch.stack(values))
    arrays = {name: torch.stack(each).cpu().numpy() for name, each in rows.items()}
    used = {int(token) for name in ("seen", "truth", "shown", "before", "followed") for token in arrays[name].flat}
    trace = TextTrace(
        title=title,
        note=note,
        names={token: names[token] for token in sorted(used - {-1})},
        why=tuple(why or [""] * len(positions)),
        config=fit,
        neighbours=tuple(neighbours),
        steps=tuple(steps),
        rates=tuple(rates),
        arrays=arrays,
    )
    return TextTrace.from_json(trace.to_json())  # as it will be read from a file


def _most_changed(change: Tensor, truth: int) -> Tensor:
    """What came true, then the other words whose probability changed most, up or down."""
    size = change.abs()
    size[truth] = torch.inf
    return size.topk(SHOWN).indices


def _padded(values: Tensor, missing: int, by: float) -> Tensor:
    return torch.cat([values, values.new_full((missing, *values.shape[1:]), by)])


class TextInspector(anywidget.AnyWidget):
    """Shows a `TextTrace`: put it last in a cell. `query` and `setting` follow the reader, and lead the view when set.

    query: 0 to Q - 1; setting: 0 to S - 1, the config's own by default. Raises ValueError for what is not there.
    """

    _esm = MODULE
    _css = STYLE
    trace = traitlets.Dict(help="a TextTrace as JSON").tag(sync=True)
    query = traitlets.Int(0).tag(sync=True)
    setting = traitlets.Int(0).tag(sync=True)

    def __init__(self, trace: TextTrace, *, query: int = 0, setting: int | None = None, **traits: Any):
        self._shown = trace
        setting = trace.start if setting is None else setting
        super().__init__(trace=trace.to_json(), query=query, setting=setting, **traits)

    @traitlets.validate("query", "setting")
    def _validate(self, proposal: dict[str, Any]) -> int:
        value, name = proposal["value"], proposal["trait"].name
        count = len(self._shown.why if name == "query" else self._shown.settings)
        if not 0 <= value < count:
            raise ValueError(f"there is no {name} {value}: there are {count}, from 0 on")
        return value

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a live notebook, the static page for the rendered book, one line for everything else."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = self.static_html()
        data["text/plain"] = self._shown.summary()
        return data, metadata

    def static_html(self) -> str:
        """HTML to put into a page: trace, style and module are in it, and it asks no server for anything."""
        start = {"content": self.trace, "query": self.query, "setting": self.setting}
        return files.static_html("et", MODULE, STYLE, self._shown.summary(), start)
