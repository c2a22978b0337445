"""Makes the pages that episodic.test.mjs opens, and says what they must show: python episodic_pages.py FOLDER."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.config import to_dict
from lib.inspector import files
from lib.inspector.episodic import EpisodicTrace, episodic_trace
from lib.inspector.episodic_text import TextInspector, text_trace
from lib.inspector.episodic_viewer import MODULE, STYLE, EpisodicInspector
from lib.inspector.local_fit import LocalFitWidget, Regression
from lib.memory.episodic import Context, EpisodicMemory, kernel_weights, nearest
from lib.methods.mbpa import MbPAConfig, adapted_by_loop
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig

folder = Path(sys.argv[1])
random = torch.Generator().manual_seed(0)
torch.manual_seed(0)
NAMES = ["class 0", "class 1", "class 2", "class 3", "a class whose name is far too long for a small box", "class 5"]


def images_trace(bias: bool, colours: tuple[int, ...]) -> EpisodicTrace:
    """Thirty pairs around the centres of six classes, four of them known, and eight queries."""
    centres = 1.5 * torch.randn(6, 5, generator=random)
    values, truth = torch.arange(30) % 6, torch.arange(8) % 6
    output = nn.Linear(5, 6, bias=bias)
    with torch.no_grad():
        output.weight[:4] += 0.7 * centres[:4]
    pictures = [torch.randint(0, 256, (count, 9, 9, *colours), generator=random) for count in (30, 8)]
    return episodic_trace(
        centres[values] + torch.randn(30, 5, generator=random),
        values,
        pictures[0].byte().numpy(),
        output,
        centres[truth] + torch.randn(8, 5, generator=random),
        truth,
        pictures[1].byte().numpy(),
        names=NAMES,
        config=MbPAConfig(neighbours=6, steps=4, rate=0.5),
        known=range(4),
        title="Made up",
        note="made for a test",
    )


def by_the_loop(trace: EpisodicTrace, query: int, config: MbPAConfig, without: list[int]) -> dict[str, Any]:
    """A fit by `adapted_by_loop` in float64: what the page must show."""
    held = torch.tensor([i for i in range(len(trace.keys)) if i not in without])
    keys, q = torch.from_numpy(trace.keys).double()[held], torch.from_numpy(trace.queries[[query]]).double()
    found = nearest(q, keys, config.neighbours)
    positions = held[found.positions]
    weights = kernel_weights(found.distances, config.epsilon)
    context = Context(keys[found.positions], torch.from_numpy(trace.values)[positions], weights)
    fits = [adapted_by_loop(trace.layer(), q, context, replace(config, steps=t)) for t in range(config.steps + 1)]
    return {
        "query": query,
        "settings": to_dict(config),
        "without": without,
        "positions": positions[0].tolist(),
        "weights": weights[0].tolist(),
        "p": [each.outputs[0].softmax(0).tolist() for each in fits],
        "moved": [each.moved.item() for each in fits],
        "loss": trace.fit(query, config, without).loss.tolist(),
    }


def cases(trace: EpisodicTrace) -> list[dict[str, Any]]:
    """Fits of all optimizers, with and without β, with what was deleted."""
    settings = [
        MbPAConfig(neighbours=k, steps=steps, rate=rate, prior=prior, optimizer=optimizer, square=square)
        for k, steps in ((1, 3), (6, 0), (7, 12), (50, 5))
        for rate, prior in ((0.03, 0.0), (0.4, 0.2))
        for optimizer, square in (("sgd", 0.0), ("rmsprop", 0.0), ("rmsprop", 1.0), ("adam", 0.0))
    ]
    return [by_the_loop(trace, i % 8, each, [[], [0, 7, 13]][i % 2]) for i, each in enumerate(settings)]


ink, colour = images_trace(True, ()), images_trace(False, (3,))
EpisodicInspector(ink, query=5, step=2).save_html(folder / "images.html")
EpisodicInspector(colour, query=1, without=[3, 9], neighbour=9).save_html(folder / "colours.html")
head = "<meta charset='utf-8'><title>widget</title><link rel='icon' href='data:,'>"
body = f"<style>{STYLE.read_text()}</style><div id='cell'></div>"
(folder / "widget.html").write_text(f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>")

# ---- Text ---------------------------------------------------------------------------------------------------------
model = LanguageModel(LanguageModelConfig(words=30, embedding=8, hidden=8, dropout=0.0))
with torch.no_grad():
    for weight in model.parameters():
        weight.mul_(20)
words = [f"word{number}" for number in range(29)] + ["a-word-that-is-far-too-long-to-stand-beside-anything-else-here"]
tokens = torch.randint(0, 30, (200,), generator=random)
mbpa = TextMbPA(model, model.softmax, TextMbPAConfig(MbPAConfig(neighbours=16, rate=0.5), size=100))
places = [3, 60, 100, 150, 198]
texts = text_trace(
    mbpa,
    tokens,
    places,
    names=words,
    neighbours=(4, 16),
    steps=(1, 6),
    rates=(0.1, 0.5, 2.0),
    why=[f"place {t}" for t in places],
    title="A text",
    note="made for a test",
)
page = TextInspector(texts, query=2).static_html()
files.save_page(folder / "text.html", "A text", page)

# ---- Regression ---------------------------------------------------------------------------------------------------


def regression(seed: int, steps: int = 5) -> Regression:
    """A fresh network of seven units, and twelve samples of a wave."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(1, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    memory = EpisodicMemory(12, 1, (1,), like=torch.zeros((), dtype=torch.float64))
    xs = (8 * torch.rand(12, 1, generator=random) - 4).double()
    memory.append(xs, xs.sin() + seed)
    grid = np.linspace(-4, 4, 81)
    return Regression(
        network, memory, np.stack([grid, np.sin(grid) + seed]), MbPAConfig(neighbours=3, steps=steps, rate=0.1)
    )


toys = {"first": regression(0), "second": regression(1, steps=60)}
widget = LocalFitWidget(toys, query=1.0)
files.save_page(folder / "toy.html", "A regression", widget.static_html())
toy_settings = [
    MbPAConfig(neighbours=k, steps=steps, rate=rate, prior=prior)
    for k, steps, rate, prior in ((3, 5, 0.1, 0.0), (1, 0, 0.1, 0.0), (12, 30, 0.05, 0.1), (4, 20, 0.3, 0.5))
]

expected = {
    "images": {"json": ink.to_json(), "cases": cases(ink), "right": ink.right().tolist(), "names": NAMES},
    "colours": {"json": colour.to_json(), "cases": cases(colour)},
    "text": {
        "json": texts.to_json(),
        "gains": texts.gains().tolist(),
        "p": texts.probabilities().tolist(),
        "shown": [[[words[word] for word in each] for each in query] for query in texts.arrays["shown"]],
        "start": texts.start,
    },
    "toy": {
        "json": {name: each.to_json() for name, each in toys.items()},
        "cases": [
            {
                "variant": name,
                "query": query,
                "settings": to_dict(config),
                "answers": each.answers(query, config)._asdict(),
            }
            for name, each in toys.items()
            for query in (-4.0, -0.35, 2.2)
            for config in toy_settings
        ],
        "summary": widget.summary(),
    },
    "module": MODULE,
}
(folder / "expected.json").write_text(json.dumps(expected))
