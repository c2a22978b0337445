"""Makes the pages that inspector.test.mjs opens, and says what they must show: python inspector_pages.py FOLDER."""

import copy
import json
import sys
from pathlib import Path

import torch

from lib.baselines.lstm import LSTM, LSTMConfig
from lib.inspector.laboratory import Laboratory, SwapLabels
from lib.inspector.trace import Trace, record
from lib.inspector.viewer import MODULE, STYLE, Inspector
from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.mann import MANN, MANNConfig

folder = Path(sys.argv[1])
torch.manual_seed(0)
random = torch.Generator().manual_seed(0)
shapes = (torch.rand(5, 400, generator=random) > 0.8).float()
ys = torch.randint(0, 5, (1, 50), generator=random)
xs = shapes[ys] * torch.rand(1, 50, 400, generator=random)
learner = MANN(MANNConfig())

# What a browser has are the numbers as they are stored.
trace = Trace.from_json(record(learner, xs, ys, title="MANN, untrained", note="made for a test").to_json())
few = record(MANN(MANNConfig(slots=6, width=4, reads=1)), xs[:, :12], ys[:, :12], title="A small memory", label_delay=0)
split = record(FLMN(FLMNConfig()), xs, ys, title="FLMN, untrained")
none = record(LSTM(LSTMConfig()), xs, ys, title="LSTM")

Inspector.save_html(trace, folder / "one.html", step=3)
Inspector.save_html(few, folder / "small.html", step=5, slot=2)
Inspector.save_html(split, folder / "split.html", step=12, slot=11)
Inspector.save_html(none, folder / "none.html")
responsive = copy.deepcopy(learner)
with torch.no_grad():
    responsive.from_input.weight[:, 400:] *= 10  # it hears the labels that it is told, and answers by them
laboratory = Laboratory(responsive, xs, ys, [SwapLabels(0, 1, 20)], title="MANN, untrained")
assert laboratory.comparison.changed, "the page would show nothing"
parts = {
    "two.html": Inspector.static_html(trace, step=1) + Inspector.static_html(few, step=2, slot=1),
    "laboratory.html": laboratory._repr_mimebundle_()[0]["text/html"],
    "widget.html": f"<style>{STYLE.read_text()}</style><div id='cell'></div>",
}
for name, body in parts.items():
    head = f"<meta charset='utf-8'><title>{name}</title><link rel='icon' href='data:,'>"
    page = f"<!doctype html><html lang='en'><head>{head}</head><body><main>{body}</main></body></html>"
    (folder / name).write_text(page)
expected = {
    "labels": trace.labels.tolist(),
    "answers": trace.answers.tolist(),
    "right": trace.right.tolist(),
    "changed": laboratory.comparison.changed,
    "written": [trace.written(slot) for slot in range(trace.slots)],
    "module": MODULE,
    "trace": few.to_json(),
    "split": {name: array.tolist() for name, array in Trace.from_json(split.to_json()).arrays().items()},
}
expected |= {name: array.tolist() for name, array in trace.arrays().items() if name not in ("images", "labels")}
(folder / "expected.json").write_text(json.dumps(expected))
