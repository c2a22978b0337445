"""What a labelled trace says is what the LMN did; a reader may change settings and stream; nothing else changes."""

import copy
import json
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.sequence import TokenNetwork, TokenNetworkConfig
from lib.inspector.files import TraceError
from lib.inspector.labelled import AFTER, BEFORE, MEMORY, MIXTURE, NETWORK, LabelledTrace, record_labelled
from lib.inspector.labelled_viewer import (
    MODULE,
    Choices,
    LabelledInspector,
    LabelledLaboratory,
    record_choices,
    with_settings,
)
from lib.inspector.viewer import WIDGET
from lib.methods.lmn import LMN, LMNConfig
from tests.cases import random_cases, seeds

LABELS, STEPS, NAMES = 7, 18, tuple("abcdefg")


def make_lmn(seed: int = 0, **settings) -> LMN:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TokenNetwork(TokenNetworkConfig(labels=LABELS, embedding=6, hidden=5)).double()
        network.to_logits.weight.data *= 4  # it has opinions
        return LMN(network, LMNConfig(**({"units": 3} | settings))).double()


def make_stream(seed: int = 0, steps: int = STEPS) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(LABELS, size=(1, steps + 1)))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.fixture(scope="module")
def trace() -> LabelledTrace:
    return record_labelled(make_lmn(cells=2), *make_stream(), names=NAMES, title="A test", note="made for it")


settings_of_lmn = st.fixed_dictionaries(
    {
        "cells": st.integers(1, 3),
        "margin": st.sampled_from([0.0, 0.5, 2.0]),
        "decay": st.sampled_from([0.5, 0.99, 1.0]),
        "theta": st.sampled_from([None, 0.0, 0.4, 1.0]),
        "states": st.sampled_from(["held", "all"]),
        "new_cells": st.sampled_from(["on demand", "zeros"]),
        "update_weights": st.sampled_from(["cosine", "kernel"]),
        "budget": st.sampled_from([None, 6, 12]),
        "evict": st.sampled_from(["least", "oldest"]),
    }
).filter(lambda settings: settings["theta"] != 1 or settings["margin"] > 0)  # such an LMN would never write


@random_cases(8)
@given(seeds, settings_of_lmn)
def test_it_is_what_the_lmn_does_when_nobody_looks(seed, settings):
    lmn, (xs, ys) = make_lmn(seed, **settings), make_stream(seed)
    trace = record_labelled(lmn, xs, ys)
    other = copy.deepcopy(lmn)
    with torch.no_grad():
        scored = other(xs, ys)
    np.testing.assert_allclose(trace.surprise[:, BEFORE, MIXTURE], -scored.log_likelihood[0], atol=1e-5)
    np.testing.assert_array_equal(trace.rank[:, BEFORE], scored.rank[0])
    with torch.no_grad():
        alone = lmn.network(xs, ys)
    np.testing.assert_allclose(trace.surprise[:, BEFORE, NETWORK], -alone.log_likelihood[0], atol=1e-5)

    other.begin(1)
    for t, (x, y) in enumerate(zip(xs.unbind(1), ys.unbind(1), strict=True)):
        step = other.look(x)
        p, shown = step.mixed[0].numpy(), trace.shown[t][trace.shown[t] >= 0]
        np.testing.assert_allclose(trace.p[t, BEFORE, MIXTURE, : len(shown)], p[shown], atol=1e-6)
        assert ys[0, t] in shown and int(p.argmax()) in shown and len(set(shown)) == len(shown)
        rows = step.memory_p.shape[1]
        np.testing.assert_allclose(trace.s[t, BEFORE, :rows], step.memory_p[0], atol=1e-6)
        assert not trace.s[t, BEFORE, rows:].any()
        own, best = (math.log(max(float(value), 1e-30)) for value in (p[int(y)], np.delete(p, int(y)).max()))
        assert trace.margin[t] == pytest.approx(own - best, abs=1e-4)
        assert p[trace.rival[t]] == np.delete(p, int(y)).max() and trace.rival[t] != y
        if abs(own - best - other.config.margin) > 1e-9:
            assert trace.written[t] == (own - best < other.config.margin)
        other.observe(x, y)
        held = other.memory.row_labels[0]
        np.testing.assert_array_equal(trace.row_label[t + 1, : len(held)], held)
        np.testing.assert_allclose(trace.weights[t + 1, : len(held)], other.memory.weights[0, : len(held)], atol=1e-6)
        assert trace.new_row[t] == bool(other.last_write.new_row) and trace.replaced[t] == other.last_write.replaced
    assert (trace.row_label[0] == -1).all() and not trace.weights[0].any() and not trace.count[0].any()
    for name in ("network", "mu", "errors", "given"):
        torch.testing.assert_close(getattr(lmn.state, name), getattr(other.state, name))


@random_cases(8)
@given(seeds, settings_of_lmn)
def test_the_cells_are_made_of_what_it_says(seed, settings):
    lmn, (xs, ys) = make_lmn(seed, **settings), make_stream(seed, steps=30)
    trace = record_labelled(lmn, xs, ys)
    with torch.no_grad():
        hidden = lmn.network.hidden(xs)[0][0].numpy()
    for row in range(trace.rows):
        parts = trace.made_of(row, trace.steps)
        for cell in range(trace.count[-1, row]):
            made = sum((share * hidden[t] for t, share in parts[cell]), np.zeros(5))
            np.testing.assert_allclose(made, lmn.memory.vectors[0, row, cell], atol=1e-5)
            now = hidden[-1] / np.linalg.norm(hidden[-1])
            expected = now @ made / max(np.linalg.norm(made), 1e-30)
            assert trace.cosine[-1, AFTER, row, cell] == pytest.approx(expected, abs=1e-5)


@random_cases(8)
@given(seeds, st.sampled_from([0.0, 0.3, 1.0]), st.integers(1, 3))
def test_asked_again_it_answers_from_the_same_h_and_the_memory_after_the_write(seed, theta, cells):
    lmn, (xs, ys) = make_lmn(seed, theta=theta, cells=cells), make_stream(seed)
    trace = record_labelled(lmn, xs, ys)
    with torch.no_grad():
        hidden = lmn.network.hidden(xs)[0][0]
        network_p = lmn.network.scores(hidden).softmax(-1).numpy()
    vectors, weights, row_label = lmn.memory.vectors[0].numpy(), lmn.memory.weights[0].numpy(), trace.row_label[-1]
    h, s = hidden[-1].numpy(), np.zeros(LABELS)
    for row, label in enumerate(row_label):
        held = range(trace.count[-1, row])
        near = [vectors[row, c] @ h / np.linalg.norm(vectors[row, c]) / np.linalg.norm(h) for c in held]
        share = np.exp(5.0 * np.array(near)) / np.exp(5.0 * np.array(near)).sum()
        m, alpha = share @ vectors[row, list(held)], share @ weights[row, list(held)]
        s[label] = alpha * np.exp(5.0 * (m @ h) / np.linalg.norm(m) / np.linalg.norm(h))
    s /= s.sum() or 1.0
    p = (1 - theta) * network_p[-1] + theta * s
    p = p / p.sum() if p.sum() else np.full(LABELS, 1 / LABELS)
    shown = trace.shown[-1][trace.shown[-1] >= 0]
    np.testing.assert_allclose(trace.p[-1, AFTER, MIXTURE, : len(shown)], p[shown], atol=1e-5)
    np.testing.assert_allclose(trace.p[-1, AFTER, MEMORY, : len(shown)], s[shown], atol=1e-5)
    assert trace.surprise[-1, AFTER, MIXTURE] == pytest.approx(-math.log(max(p[ys[0, -1]], 1e-30)), abs=1e-4)


@pytest.mark.parametrize("states", ["held", "all"])
def test_theta_is_that_of_each_rows_label_and_last_that_of_all_others(states):
    lmn, (xs, ys) = make_lmn(3, states=states), make_stream(3)
    trace = record_labelled(lmn, xs, ys)
    assert np.ptp(trace.theta[:, BEFORE]) > 0.01
    lmn.begin(1)
    for t, (x, y) in enumerate(zip(xs.unbind(1), ys.unbind(1), strict=True)):
        theta, held = lmn.look(x).theta[0].numpy(), lmn.memory.row_labels[0].tolist()
        others = theta[-1]
        if states == "all":  # their mean; 0 where all labels are in memory
            others = np.delete(theta, held).mean() if len(held) < LABELS else 0.0
        expected = [theta[label] if states == "all" else theta[row] for row, label in enumerate(held)]
        np.testing.assert_allclose(trace.theta[t, BEFORE, : len(held)], expected, atol=1e-6)
        np.testing.assert_allclose(trace.theta[t, BEFORE, len(held) :], others, atol=1e-6)
        lmn.observe(x, y)


def test_curve_and_log_perplexity(trace):
    surprise = trace.surprise[:, BEFORE]
    assert trace.log_perplexity() == pytest.approx(surprise[:, MIXTURE].mean(), abs=1e-6)
    assert trace.curve(NETWORK)[4] == pytest.approx(surprise[:5, NETWORK].mean(), abs=1e-6)
    assert trace.curve()[-1] == pytest.approx(trace.log_perplexity(), abs=1e-6)


def test_an_answer_that_another_label_ties_with_is_wrong():
    """As for the LMN itself: `replaced` tells what it did."""
    lmn = make_lmn(theta=1.0, cells=2, new_cells="zeros")
    trace = record_labelled(lmn, *make_stream(steps=3))
    assert trace.wrong[0] and trace.replaced[0] == lmn.memory.cells - 2  # an empty memory ties all labels


def test_training_mode_is_given_back():
    lmn = make_lmn().train()
    record_labelled(lmn, *make_stream())
    assert lmn.training


def test_a_file_keeps_it(tmp_path, trace):
    again = LabelledTrace.load(trace.save(tmp_path / "trace.json"))
    assert (again.title, again.note, again.labels, again.settings) == ("A test", "made for it", 7, trace.settings)
    assert again.names == trace.names and again.names[3] == "d"
    for name in ("seen", "revealed", "shown", "rank", "rival", "written", "row", "replaced", "row_label", "count"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name), err_msg=name)
    for name, step in (("p", 1e-5), ("surprise", 1e-3), ("weights", 1e-3), ("cosine", 0.005), ("theta", 1e-5)):
        np.testing.assert_allclose(getattr(again, name), getattr(trace, name), atol=step, err_msg=name)
    assert again.to_json() == LabelledTrace.from_json(again.to_json()).to_json()


def test_what_is_no_sound_trace_is_refused(tmp_path, trace):
    content = trace.to_json()
    for wrong, message in (
        ([], 'there is no "format": "labelled-memory-trace"'),
        (content | {"version": 2}, "its version is 2, this code reads version 1"),
        (content | {"sha256": "0"}, "sha256 of its arrays"),
        (content | {"arrays": {}}, "it has no array cosine"),
        (content | {"names": {}}, "token 0 has no name"),
        ({name: value for name, value in content.items() if name != "names"}, "it is damaged .*KeyError"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        with pytest.raises(TraceError, match=f"wrong.json is not a sound trace: {message}"):
            LabelledTrace.load(tmp_path / "wrong.json")
    with pytest.raises(TraceError, match=r"none.json cannot be read"):
        LabelledTrace.load(tmp_path / "none.json")
    with pytest.raises(TraceError, match="cannot be written"):
        trace.save(tmp_path / "wrong.json" / "trace.json")
    with pytest.raises(ValueError, match="margin has the shape"):
        LabelledTrace(**(vars(trace) | {"margin": trace.margin[1:]}))
    with pytest.raises(ValueError, match="s has a number that is not finite, first at step 2"):
        LabelledTrace(**(vars(trace) | {"s": np.where(np.arange(STEPS).reshape(-1, 1, 1) == 2, np.inf, trace.s)}))


def test_what_cannot_be_recorded_or_looked_up(trace):
    xs, ys = make_stream()
    for wrong in ((xs[0], ys[0]), (xs.repeat(2, 1), ys.repeat(2, 1)), (xs, ys[:, 1:]), (xs[:, :0], ys[:, :0])):
        with pytest.raises(ValueError, match="expected one stream"):
            record_labelled(make_lmn(), *wrong)
    for row, step in ((trace.rows, 3), (-1, 3), (0, STEPS + 1), (0, -1)):
        with pytest.raises(ValueError, match="there is no"):
            trace.made_of(row, step)


# ---- Choices and the viewer -----------------------------------------------------------------------------------------
GRID = {"margin": (0.0, 1.0), "theta": (0.5, None), "cells": (1, 2)}


@pytest.fixture(scope="module")
def choices() -> Choices:
    return record_choices(make_lmn(cells=2), make_stream()[0][0].tolist(), GRID, names=NAMES)


def test_every_combination_is_what_an_lmn_with_these_settings_does(choices):
    assert len(choices.traces) == 8
    tokens = make_stream()[0]
    for i, trace in enumerate(choices.traces):
        expected = {"margin": GRID["margin"][i // 4], "theta": GRID["theta"][i // 2 % 2], "cells": GRID["cells"][i % 2]}
        assert {name: trace.settings[name] for name in GRID} == expected
        alone = make_lmn(**expected)  # the same seed gives the same network and combiner
        with torch.no_grad():
            scored = alone(tokens[:, :-1], tokens[:, 1:])
        np.testing.assert_allclose(trace.surprise[:, BEFORE, MIXTURE], -scored.log_likelihood[0], atol=1e-5)
    assert choices.start == 7
    assert len({trace.log_perplexity() for trace in choices.traces}) > 4


def test_every_trace_of_the_choices_knows_the_names_of_all_tokens(choices):
    used = {int(token) for trace in choices.traces for token in trace.shown.flat} - {-1}
    for trace in choices.traces:
        assert used <= trace.names.keys() and all(trace.names[token] == NAMES[token] for token in used)


def test_settings_that_are_no_numbers_are_shown_as_they_are():
    varied = record_choices(make_lmn(budget=2), [1, 2, 3, 1], {"budget": (None, 2), "evict": ("least", "oldest")})
    page = embedded(LabelledInspector.static_html(varied))
    assert [each["values"] for each in page["content"]["settings"]] == [["None", "2"], ["least", "oldest"]]


def test_choices_that_make_no_sense(choices):
    with pytest.raises(ValueError, match="margin of this LMN is 1.0, which is not among"):
        record_choices(make_lmn(), [1, 2, 3], {"margin": (0.0, 2.0)})
    with pytest.raises(ValueError, match="no combiner"):
        with_settings(make_lmn(theta=0.5), theta=None)
    with pytest.raises(ValueError, match="two tokens or more, not 1"):
        record_choices(make_lmn(), [1], {"margin": (1.0,)})
    with pytest.raises(ValueError, match="there is no token 7: the network knows 0 to 6"):
        record_choices(make_lmn(), [1, 7], {"margin": (1.0,)})
    with pytest.raises(ValueError, match="8 combinations, but there are 7"):
        Choices(choices.settings, choices.traces[1:], 0)
    with pytest.raises(ValueError, match="there is no combination 8"):
        Choices(choices.settings, choices.traces, 8)
    other = record_labelled(make_lmn(), *make_stream(1))
    with pytest.raises(ValueError, match="different streams"):
        Choices(choices.settings, (*choices.traces[:-1], other), 0)


def embedded(page: str) -> dict:
    """What a static page starts with."""
    found = re.findall(r'<script type="application/json" class="la-start">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    return json.loads(found[0])


def test_a_cell_offers_the_widget_the_page_and_a_line_of_text(trace):
    data, _ = LabelledInspector(trace, step=4, label=2)._repr_mimebundle_()
    assert re.match(r"Labelled memory: A test\. 18 steps, \d+ writes, 7 rows\. Log-perplexity \d", data["text/plain"])
    start = embedded(data["text/html"])
    assert (start["step"], start["label"]) == (4, 2)
    content = start["content"]
    assert content == {"settings": [], "traces": [trace.to_json()], "picked": 0, "reference": 0}
    assert data["text/plain"] in data["text/html"]


def test_the_page_of_choices_holds_all_of_them_and_asks_no_server(tmp_path, choices):
    page = LabelledInspector.save_html(choices, tmp_path / "page.html", step=3).read_text()
    content = embedded(page)["content"]
    assert [each["name"] for each in content["settings"]] == ["margin", "θ", "cells a label"]
    assert [each["values"] for each in content["settings"]] == [["0", "1"], ["0.5", "combiner"], ["1", "2"]]
    assert len(content["traces"]) == 8 and content["picked"] == content["reference"] == 7
    addresses = set(re.findall(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"'`)]*""", page))
    assert addresses <= {"http://www.w3.org/2000/svg"}, "only the name of the SVG name space"
    assert not re.search(r"\bimport\s|\bimport\(|\bfetch\(|XMLHttpRequest|@import|url\(|\bsrc=", page)
    with pytest.raises(TraceError, match="page.html cannot be written"):
        LabelledInspector.save_html(choices, tmp_path / "page.html" / "page.html")


def test_text_of_a_trace_cannot_break_out_of_the_page(trace):
    rude = LabelledTrace(**(vars(trace) | {"title": "</script><script>alert(1)</script>", "note": "<!-- & <b>"}))
    page = LabelledInspector.static_html(rude)
    assert "<script>alert" not in page and "<b>" not in page
    assert embedded(page)["content"]["traces"][0]["title"] == rude.title
    module = MODULE
    assert "</script" not in module.replace('<script class="la-start">', "") and "<!--" not in module


def test_the_widget_shows_another_trace_and_refuses_what_is_not_there(trace):
    inspector = LabelledInspector(trace, step=17, label=2)
    shorter, other = (record_labelled(make_lmn(cells=n), *make_stream(steps=5), names=NAMES) for n in (1, 2))
    inspector.show(shorter, other)
    assert inspector.step == 4 and len(inspector.content["traces"]) == 2 and inspector.content["reference"] == 1
    with pytest.raises(ValueError, match="there is no step 5: the trace has 5 steps, 0 to 4"):
        inspector.step = 5
    with pytest.raises(ValueError, match="there is no label 99"):
        inspector.label = 99
    with pytest.raises(ValueError, match="no step 18"):
        LabelledInspector.static_html(trace, step=18)
    with pytest.raises(ValueError, match="the reference is of another stream"):
        LabelledInspector(shorter, reference=trace)
    assert inspector.step == 4


# ---- The laboratory -------------------------------------------------------------------------------------------------
@pytest.fixture
def laboratory() -> LabelledLaboratory:
    streams = {"one": make_stream(0)[0][0].tolist(), "two": make_stream(1)[0][0].tolist()}
    return LabelledLaboratory(make_lmn(cells=2), streams, GRID, names=NAMES, title="Lab", step=2)


def test_controls_run_the_stream_again(laboratory):
    controls, default = laboratory._widgets, laboratory.default
    controls["margin"].value = 0.0
    assert laboratory.trace.settings["margin"] == 0.0 and laboratory.default is default
    np.testing.assert_array_equal(laboratory.trace.written, laboratory.trace.margin < 0)
    assert laboratory.trace.written.sum() < default.written.sum()
    assert laboratory.inspector.content["traces"][0] == laboratory.trace.to_json()
    assert controls["theta"].disabled
    controls["combiner"].value = False
    assert not controls["theta"].disabled and laboratory.trace.settings["theta"] == controls["theta"].value
    controls["theta"].value = 0.0
    assert laboratory.trace.log_perplexity() == pytest.approx(default.log_perplexity(NETWORK), abs=1e-6)
    assert f"{default.log_perplexity():.3f}" in laboratory._report.value
    for name, value in (("cells", 1), ("decay", 0.6), ("sharpness", 9.0), ("strength", 0.3)):
        controls[name].value = value
        assert laboratory.trace.settings[name] == value


def test_another_stream_by_name_or_typed(laboratory):
    controls = laboratory._widgets
    controls["stream"].value = "two"
    assert laboratory.trace.seen.tolist() == make_stream(1)[0][0].tolist()[:-1]
    controls["margin"].value = 3.0
    assert laboratory.trace.seen.tolist() == laboratory.default.seen.tolist() == make_stream(1)[0][0].tolist()[:-1]
    controls["typed"].value = "a, C,4 , a,"
    assert laboratory.trace.seen.tolist() == [0, 2, 4] and laboratory.trace.revealed.tolist() == [2, 4, 0]
    assert laboratory.trace.settings["margin"] == 3.0 and laboratory.default.settings["margin"] == 1.0
    for wrong, message in (
        ("a, zebra", "no token &#x27;zebra&#x27;"),
        ("a", "two tokens or more"),
        ("a, 7", "no token"),
    ):
        controls["typed"].value = wrong
        assert "role='alert'" in laboratory._message.value and message in laboratory._message.value
        assert laboratory.trace.seen.tolist() == [0, 2, 4]
    controls["typed"].value = "b, b"
    assert laboratory._message.value == ""


def test_an_lmn_with_a_fixed_theta_has_no_combiner_to_choose():
    laboratory = LabelledLaboratory(
        make_lmn(theta=0.2), {"one": [1, 2, 3]}, {"theta": (0.2, 0.4)}, names=NAMES, title="Lab"
    )
    assert laboratory._widgets["combiner"].disabled and not laboratory._widgets["theta"].disabled
    assert laboratory._widgets["theta"].value == 0.2


def test_the_rendered_page_offers_the_grid(laboratory):
    data, _ = laboratory._repr_mimebundle_()
    start = embedded(data["text/html"])
    assert len(start["content"]["traces"]) == 8 and start["step"] == 2
    assert data[WIDGET]["model_id"] == laboratory.widget.model_id
    assert data["text/plain"].startswith("Laboratory of LMN. Labelled memory: Lab.")
