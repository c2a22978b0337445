"""A regression by hand (Sprechmann et al. 2018, figure 2): drag a query, and see what three ways answer.

A small network of one number, a memory of samples, and for each query: the network, attention (the mean of the nearest
values by their weights) and the network fitted to the nearest samples. A widget in a live notebook and a page that
needs nothing but itself in the rendered book; the fit is computed in the page, as `lib.methods.mbpa` does it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import anywidget
import numpy as np
import torch
import traitlets
from torch import nn

from lib.config import to_dict
from lib.inspector import files
from lib.memory.episodic import EpisodicMemory
from lib.methods.mbpa import MbPAConfig, adapted_by_loop

MODULE = files.whole_module("local_fit.js")
STYLE = Path(__file__).parent / "episodic.css"
VIEW = ("variant", "query", "settings")


class Answers(NamedTuple):
    """What is said of one query."""

    network: float
    attention: float
    fitted: float
    moved: float
    """‖θ_x - θ‖"""


@dataclass(frozen=True, eq=False)
class Regression:
    """A network of one number with one hidden layer of tanh units, and samples in memory.

    Raises ValueError for another network.
    """

    network: nn.Sequential
    memory: EpisodicMemory
    truth: np.ndarray
    """float (2, points): inputs and values of the function that the samples are of."""
    config: MbPAConfig
    """How a query is fitted at first; `sgd`."""

    def __post_init__(self):
        kinds = [type(part) for part in self.network]
        sizes_fit = kinds == [nn.Linear, nn.Tanh, nn.Linear] and self.network[0].in_features == 1
        if not sizes_fit or self.network[2].out_features != 1 or self.config.optimizer != "sgd":
            raise ValueError("this shows a Linear(1, n), Tanh, Linear(n, 1) that is fitted by sgd")

    def answers(self, query: float, config: MbPAConfig | None = None) -> Answers:
        """The three of them, by the plain loop of `lib.methods.mbpa`."""
        config, q = config or self.config, torch.tensor([[query]], dtype=self.memory.keys.dtype)
        context = self.memory.context(q, config.neighbours, config.epsilon)
        fitted = adapted_by_loop(self.network, q, context, config)
        attention = (context.weights * context.values[..., 0]).sum()
        with torch.no_grad():
            network = self.network(q)
        return Answers(*(each.item() for each in (network, attention, fitted.outputs, fitted.moved)))

    def to_json(self) -> dict[str, Any]:
        """What the page needs of it."""
        first, _, last = self.network
        weights = first.weight[:, 0], first.bias, last.weight[0], last.bias
        return {
            "network": [weight.tolist() for weight in weights],
            "memory": [self.memory.keys[:, 0].tolist(), self.memory.values[:, 0].tolist()],
            "truth": np.asarray(self.truth, dtype=np.float64).round(6).tolist(),
            "settings": to_dict(self.config),
        }


class LocalFitWidget(anywidget.AnyWidget):
    """Shows some regressions, one at a time: put it last in a cell. Its traits follow the reader, and lead the view.

    regressions: by name, over the same inputs; query: within them; settings: an `MbPAConfig` as a dictionary, by
    default that of the first regression. Raises ValueError for a variant or a query that is not there, and for settings
    without sgd.
    """

    _esm = MODULE
    _css = STYLE
    content = traitlets.Dict(help="the regressions as JSON, by name").tag(sync=True)
    variant = traitlets.Unicode().tag(sync=True)
    query = traitlets.Float().tag(sync=True)
    settings = traitlets.Dict(help="how the network is fitted").tag(sync=True)

    def __init__(
        self,
        regressions: Mapping[str, Regression],
        *,
        query: float = 0.0,
        variant: str | None = None,
        config: MbPAConfig | None = None,
        **traits: Any,
    ):
        self.regressions = dict(regressions)
        variant = next(iter(self.regressions)) if variant is None else variant
        if variant not in self.regressions:
            raise ValueError(f"there is no variant {variant!r}; known: {', '.join(self.regressions)}")
        super().__init__(
            content={name: each.to_json() for name, each in self.regressions.items()},
            variant=variant,
            query=query,
            settings=to_dict(config or self.regressions[variant].config),
            **traits,
        )

    @traitlets.validate("variant", "query", "settings")
    def _validate(self, proposal: dict[str, Any]) -> Any:
        value, name = proposal["value"], proposal["trait"].name
        if name == "settings":
            config = replace(next(iter(self.regressions.values())).config, **value)
            if config.optimizer != "sgd":
                raise ValueError(f"the network is fitted by sgd here, not by {config.optimizer}")
            return to_dict(config)
        if name == "variant" and value not in self.regressions:
            raise ValueError(f"there is no variant {value!r}; known: {', '.join(self.regressions)}")
        edge = max(np.abs(each.truth[0]).max() for each in self.regressions.values())
        if name == "query" and not abs(value) <= edge:
            raise ValueError(f"a query is between -{edge:g} and {edge:g}, not {value}")
        return value

    def answers(self) -> Answers:
        """What is shown, computed here."""
        return self.regressions[self.variant].answers(self.query, MbPAConfig(**self.settings))

    def summary(self) -> str:
        """The present query in words."""
        said = [f"{value:.2f}".replace("-", "−") for value in (self.query, *self.answers()[:3])]
        return "At x = {} the network says {}, attention {}, the fitted network {}.".format(*said)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget for a live notebook, the static page for the rendered book, one line for everything else."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = self.static_html()
        data["text/plain"] = self.summary()
        return data, metadata

    def static_html(self) -> str:
        """HTML to put into a page: style, module and present state are in it, and it asks no server for anything."""
        start = {"content": self.content} | {name: getattr(self, name) for name in VIEW}
        return files.static_html("lf", MODULE, STYLE, self.summary(), start)
