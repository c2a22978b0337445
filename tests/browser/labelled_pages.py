"""Makes the pages that labelled.test.mjs opens, and says what they must show: python labelled_pages.py FOLDER."""

import json
import sys
from pathlib import Path

import torch

from lib.baselines.sequence import TokenNetwork, TokenNetworkConfig
from lib.inspector.labelled import AFTER, BEFORE, MIXTURE, NETWORK, LabelledTrace
from lib.inspector.labelled_viewer import MODULE, STYLE, LabelledInspector, record_choices, with_settings
from lib.methods.lmn import LMN, LMNConfig

folder = Path(sys.argv[1])
torch.manual_seed(0)
NAMES = [f"place {token}" for token in range(11)] + ["a place whose name is far too long for a small box"]
network = TokenNetwork(TokenNetworkConfig(labels=len(NAMES), embedding=8, hidden=8))
lmn = LMN(network, LMNConfig(units=3, cells=2, margin=0.5))
tokens = torch.randint(0, len(NAMES), (46,), generator=torch.Generator().manual_seed(1)).tolist()
tokens[5:11] = [11, 3, 11, 3, 11, 3]  # something to learn

grid = {"margin": (0.0, 0.5, 3.0), "theta": (0.6, None), "cells": (1, 2)}
about = {"names": NAMES, "title": "LMN, untrained", "note": "made for a test"}
choices = record_choices(lmn, tokens, grid, **about)
full = record_choices(with_settings(lmn, budget=6), tokens, {"cells": (2,)}, **about).traces[0]

LabelledInspector.save_html(choices, folder / "choices.html", step=7)
LabelledInspector.save_html(full, folder / "full.html", step=45 - 1, label=3)
head = "<meta charset='utf-8'><title>widget</title><link rel='icon' href='data:,'>"
body = f"<style>{STYLE.read_text()}</style><div id='cell'></div>"
(folder / "widget.html").write_text(f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>")


def what_it_shows(trace: LabelledTrace) -> dict:
    """What a page must say of a trace."""
    trace = LabelledTrace.from_json(trace.to_json())  # a browser has the numbers as they are stored
    true = [[int(trace.shown[t].tolist().index(trace.revealed[t]))] for t in range(trace.steps)]
    probability = [trace.p[t, :, MIXTURE, k[0]].tolist() for t, k in enumerate(true)]
    rows = [trace.row_label[t] >= 0 for t in range(trace.steps + 1)]
    return {
        "revealed": [NAMES[token] for token in trace.revealed],
        "rank": trace.rank.tolist(),
        "probability": [[pair[BEFORE], pair[AFTER]] for pair in probability],
        "margin": trace.margin.tolist(),
        "written": trace.written.tolist(),
        "kinds": [
            "none"
            if not trace.written[t]
            else "label"
            if trace.new_row[t]
            else "added"
            if trace.replaced[t] < 0
            else "cell"
            for t in range(trace.steps)
        ],
        "held": [[NAMES[label] for label in trace.row_label[t][used]] for t, used in enumerate(rows)],
        "weights": [trace.weights[t][used].tolist() for t, used in enumerate(rows)],
        "count": [trace.count[t][used].tolist() for t, used in enumerate(rows)],
        "made": [trace.made_of(row, trace.steps - 1) for row in range(trace.rows)],
        "row_label": trace.row_label.tolist(),
        "log_perplexity": [trace.log_perplexity(), trace.log_perplexity(NETWORK)],
        "json": trace.to_json(),
    }


expected = {
    "choices": [what_it_shows(trace) for trace in choices.traces],
    "start": choices.start,
    "full": what_it_shows(full),
    "module": MODULE,
}
(folder / "expected.json").write_text(json.dumps(expected))
