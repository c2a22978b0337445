"""Episodic memories to look into: what a trace keeps and computes, and what a cell and a page get of it."""

import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.inspector import episodic_text, episodic_viewer, local_fit
from lib.inspector.episodic import EpisodicTrace, episodic_trace
from lib.inspector.episodic_text import BEFORE, NEIGHBOURS, SEEN, SHOWN, TextInspector, TextTrace, text_trace
from lib.inspector.episodic_viewer import EpisodicInspector
from lib.inspector.files import TraceError
from lib.inspector.local_fit import LocalFitWidget, Regression
from lib.inspector.viewer import WIDGET
from lib.memory.episodic import EpisodicMemory
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig
from tests.cases import normal, random_cases, seeds
from tests.methods import reference_mbpa as reference

NAMES = ("a", "b", "c", "d")


def made_up_trace(
    seed: int = 0, bias: bool = True, config: MbPAConfig | None = None, colours: tuple = ()
) -> EpisodicTrace:
    """Ten pairs of three numbers and four classes, and two queries."""
    rng = np.random.default_rng(seed)
    output = nn.Linear(3, 4, bias=bias)
    with torch.no_grad():
        for weight in output.parameters():
            weight.copy_(torch.from_numpy(rng.standard_normal(weight.shape)))
    images = [rng.integers(0, 256, (count, 5, 4, *colours), dtype=np.uint8) for count in (10, 2)]
    return episodic_trace(
        torch.from_numpy(rng.standard_normal((10, 3))).float(),
        torch.from_numpy(rng.integers(0, 4, 10)),
        images[0],
        output,
        torch.from_numpy(rng.standard_normal((2, 3))).float(),
        torch.from_numpy(rng.integers(0, 4, 2)),
        images[1],
        names=NAMES,
        config=MbPAConfig(neighbours=4, steps=3, rate=0.5),
        known=(0, 1),
        title="made up",
        note="for a test",
    )


settings = st.builds(
    MbPAConfig,
    neighbours=st.integers(1, 12),
    steps=st.integers(0, 5),
    rate=st.floats(0.01, 1.0),
    prior=st.floats(0.0, 0.5),
    optimizer=st.sampled_from(["sgd", "rmsprop", "adam"]),
    square=st.sampled_from([0.0, 1.0]),
)


@random_cases(40)
@given(seeds, settings, st.sets(st.integers(0, 9), max_size=8))
def test_a_fit_is_that_of_the_paper_without_what_was_deleted(seed, config, without):
    trace = made_up_trace(seed)
    fit, q = trace.fit(1, config, without), trace.queries[1].astype(np.float64)
    held = [i for i in range(10) if i not in without]
    keys = trace.keys[held].astype(np.float64)
    found = reference.nearest(q, keys, config.neighbours)
    assert [held[i] for i in found] == fit.positions.tolist()
    keys, values = keys[found], trace.values[held][found]
    weights = reference.kernel_weights(q, keys, config.epsilon)
    np.testing.assert_allclose(fit.weights, weights, rtol=1e-8)
    np.testing.assert_allclose(fit.vote, np.bincount(values, weights, 4), rtol=1e-8)
    theta = np.column_stack([trace.weight, trace.bias]).astype(np.float64)
    how = {name: getattr(config, name) for name in ("optimizer", "rate", "prior", "decay", "square")}
    for step in range(config.steps + 1):
        own = reference.fitted(theta, keys, values, weights, steps=step, **how)
        np.testing.assert_allclose(fit.p[step], reference.softmax(own @ np.append(q, 1.0)), atol=1e-7)
        np.testing.assert_allclose(fit.moved[step], np.linalg.norm(own - theta), atol=1e-6)
        p = [reference.softmax(own @ np.append(key, 1.0))[value] for key, value in zip(keys, values, strict=True)]
        np.testing.assert_allclose(fit.loss[step], -(weights * np.log(p)).sum(), atol=1e-6)


def test_a_layer_without_biases_gets_none_by_a_fit():
    trace = made_up_trace(bias=False)
    assert trace.bias is None and trace.layer().bias is None and "bias" not in trace.to_json()["arrays"]
    with_zeros = EpisodicTrace(**(vars(trace) | {"bias": np.zeros(4)}))
    np.testing.assert_allclose(with_zeros.fit(0).p[0], trace.fit(0).p[0])
    assert np.abs(with_zeros.fit(0).p[1] - trace.fit(0).p[1]).max() > 1e-3


def test_right_and_words():
    trace = made_up_trace()
    right = trace.right()
    assert right.shape == (4, 2) and right[2, 1] == (trace.fit(1).p[2].argmax() == trace.truth[1])
    said = trace.summary(1)
    assert f"class {NAMES[trace.truth[1]]}" in said and f"θ moved by {trace.fit(1).moved[-1]:.2f}" in said


@pytest.mark.parametrize("colours", [(), (3,)])
def test_a_trace_is_as_it_was_when_it_is_read_again(tmp_path, colours):
    trace = made_up_trace(colours=colours)
    again = EpisodicTrace.load(trace.save(tmp_path / "trace.json"))
    for name, value in vars(trace).items():
        np.testing.assert_array_equal(getattr(again, name), value)
    keys = normal(0, 10, 3).astype(np.float32)
    stored = EpisodicTrace.from_json(EpisodicTrace(**(vars(trace) | {"keys": keys})).to_json()).keys
    np.testing.assert_allclose(stored, keys, rtol=1e-6, atol=1e-8)


def test_what_does_not_fit_together_is_refused(tmp_path):
    trace = made_up_trace()
    for change, message in (
        ({"values": trace.values[1:]}, "values should be"),
        ({"weight": trace.weight[:, :2]}, "weight should be"),
        ({"images": trace.images[:, :4]}, "images should be"),
        ({"values": trace.values + 4}, "classes from 0 to 3"),
        ({"known": (4,)}, "classes from 0 to 3"),
    ):
        with pytest.raises(ValueError, match=message):
            EpisodicTrace(**(vars(trace) | change))
    flat = {"images": trace.images.reshape(10, -1), "query_images": trace.query_images.reshape(2, -1)}
    with pytest.raises(ValueError, match="height, width"):
        EpisodicTrace(**(vars(trace) | flat))
    for query, without, message in ((2, (), "no query 2"), (0, (10,), "can be deleted"), (0, range(10), "can be")):
        with pytest.raises(ValueError, match=message):
            trace.fit(query, without=without)
    damaged = trace.to_json()
    del damaged["settings"]
    (tmp_path / "damaged.json").write_text(json.dumps(damaged))
    with pytest.raises(TraceError, match="settings"):
        EpisodicTrace.load(tmp_path / "damaged.json")


def start_of(page: str, prefix: str) -> dict:
    return json.loads(re.search(rf'class="{prefix}-start">(.*?)</script>', page, re.S).group(1))


def test_a_cell_of_images_offers_the_widget_the_page_and_a_line_of_text():
    trace = made_up_trace()
    inspector = EpisodicInspector(trace, query=1, step=2, without=[7, 3])
    data, _ = inspector._repr_mimebundle_()
    start = start_of(data["text/html"], "em")
    assert (start["query"], start["step"], start["without"], start["neighbour"]) == (1, 2, [3, 7], None)
    assert start["settings"]["neighbours"] == 4
    np.testing.assert_array_equal(EpisodicTrace.from_json(start["content"]).keys, trace.keys)
    assert data[WIDGET]["model_id"] == inspector.model_id and data["text/plain"] == trace.summary(1)


def test_the_traits_of_the_inspector_lead_what_is_computed():
    inspector = EpisodicInspector(made_up_trace())
    assert inspector.step == 3
    inspector.settings = inspector.settings | {"steps": 1, "optimizer": "adam"}
    inspector.without = [2]
    assert inspector.step == 1 and inspector.config.optimizer == "adam"
    assert len(inspector.fit().p) == 2 and 2 not in inspector.fit().positions
    for name, wrong, message in (
        ("query", 2, "no query 2"),
        ("without", [10], "positions 0 to 9"),
        ("without", list(range(10)), "must be left"),
        ("neighbour", -1, "positions 0 to 9"),
        ("step", -1, "the first is 0"),
        ("settings", {"steps": -1}, "steps must be"),
    ):
        with pytest.raises(ValueError, match=message):
            setattr(inspector, name, wrong)


@pytest.mark.parametrize("viewer", [episodic_viewer, episodic_text, local_fit])
def test_the_modules_can_stand_in_a_page_and_ask_no_server(viewer):
    assert "</script" not in viewer.MODULE and "<!--" not in viewer.MODULE
    whole = viewer.MODULE + viewer.STYLE.read_text()
    assert set(re.findall(r"https?://[^\s\"'`)]+", whole)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\bimport\s|\bimport\(|\bfetch\(|XMLHttpRequest|@import|url\(|\bsrc=", whole)


# ---- Text ---------------------------------------------------------------------------------------------------------

WORDS = tuple(f"word{number}" for number in range(20))


@pytest.fixture(scope="module")
def text():
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(words=20, embedding=6, hidden=6, dropout=0.0))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20)
    fit = MbPAConfig(neighbours=16, steps=1, rate=0.5)
    mbpa = TextMbPA(model, model.softmax, TextMbPAConfig(fit, size=30))
    tokens = torch.randint(0, 20, (60,), generator=torch.Generator().manual_seed(1))
    return mbpa, tokens


def traced(text, **options) -> TextTrace:
    known = {
        "names": WORDS,
        "neighbours": (3, 16),
        "steps": (1, 4),
        "rates": (0.1, 0.5),
        "why": ["early", "late", "last"],
    }
    return text_trace(*text, [4, 40, 58], **(known | options))


def test_the_words_of_a_text_trace_are_those_of_mbpa(text, tmp_path):
    (mbpa, tokens), trace = text, traced(text)
    trace = TextTrace.load(trace.save(tmp_path / "text.json"))
    in_order = [(k, t, rate) for k in (3, 16) for t in (1, 4) for rate in (0.1, 0.5)]
    assert trace.settings == in_order and trace.start == in_order.index((16, 1, 0.5))
    assert trace.arrays["shown"].shape[1] == len(in_order)
    parts, _ = mbpa.parts(tokens[None, :-1], tokens[None, 1:])
    for query, t in enumerate((4, 40, 58)):
        surprise = trace.arrays["surprise"][query, trace.start, :, 0]
        np.testing.assert_allclose(-surprise, [parts.network[0, t], parts.fitted[0, t]], atol=1e-5)
        assert trace.arrays["truth"][query] == tokens[t + 1] == trace.arrays["shown"][query, 0, 0]
        assert trace.arrays["held"][query] == min(t, 30)
    gains = (parts.fitted - parts.network)[0, [4, 40, 58]] / np.log(2)
    np.testing.assert_allclose(trace.gains()[:, trace.start], gains, atol=1e-5)
    longer = TextMbPA(mbpa.network, mbpa.output, TextMbPAConfig(MbPAConfig(neighbours=3, steps=4, rate=0.1), size=30))
    parts, _ = longer.parts(tokens[None, :-1], tokens[None, 1:])
    gains = (parts.fitted - parts.network)[0, [4, 40, 58]] / np.log(2)
    np.testing.assert_allclose(trace.gains()[:, trace.settings.index((3, 4, 0.1))], gains, atol=1e-5)


def test_a_text_trace_tells_what_had_been_read(text):
    (_, tokens), trace = text, traced(text)
    arrays = trace.arrays
    assert arrays["seen"][0].tolist() == [-1] * (SEEN - 5) + tokens[:5].tolist()
    for query, t in enumerate((4, 40, 58)):
        for k in range(NEIGHBOURS):
            ago = arrays["ago"][query, k]
            if not ago:
                assert t == 4 and k >= 4 and not arrays["weights"][query, :, k].any()
                continue
            step = t - ago
            assert arrays["followed"][query, k] == tokens[step + 1]
            words = tokens[max(0, step + 1 - BEFORE) : step + 1].tolist()
            assert arrays["before"][query, k].tolist() == [-1] * (BEFORE - len(words)) + words
    weights = arrays["weights"]
    assert (np.diff(weights[1:], axis=2) <= 0).all() and not weights[:, 0, 3:].any()
    np.testing.assert_allclose(weights[:, 0].sum(1), 1, atol=1e-6)


def test_the_words_that_changed_most_are_shown(text):
    (mbpa, tokens), trace = text, traced(text, neighbours=(16,), steps=(1,), rates=(0.5,))
    hidden = mbpa.network.hidden(tokens[None, :-1])[0][0]
    state = mbpa.initial_state(1)
    for t in range(40):
        state = mbpa.advance(tokens[t : t + 1], tokens[t + 1 : t + 2], state)
    alone = TextMbPA(mbpa.network, mbpa.output, TextMbPAConfig(mbpa.config.fit, size=30, share=1.0))
    change = alone.logits(tokens[40:41], state)[0].exp() - mbpa.output(hidden[40]).softmax(0)
    shown, p = trace.arrays["shown"][1, 0], trace.probabilities()[1, 0]
    np.testing.assert_allclose(p[1] - p[0], change[torch.tensor(shown)].detach(), atol=1e-5)
    others = [word for word in range(20) if word != tokens[41]]
    by_change = sorted(others, key=lambda word: -abs(change[word]))
    assert shown[0] == tokens[41] and set(shown[1:].tolist()) == set(by_change[: SHOWN - 1])


def test_text_that_makes_no_sense_is_refused(text):
    for positions, options, message in (
        ([0], {}, "a past"),
        ([59], {}, "a word that follows"),
        ([5], {"neighbours": (3,)}, "are not among"),
        ([5], {"steps": (4,)}, "are not among"),
    ):
        with pytest.raises(ValueError, match=message):
            known = {"names": WORDS, "neighbours": (16,), "steps": (1,), "rates": (0.5,)}
            text_trace(*text, positions, **(known | options))
    inspector = TextInspector(traced(text), query=2)
    assert inspector.setting == 5
    for name, wrong in (("query", 3), ("setting", 8)):
        with pytest.raises(ValueError, match="there is no"):
            setattr(inspector, name, wrong)


def test_a_cell_of_text_offers_the_widget_the_page_and_a_line_of_text(text):
    trace = traced(text)
    inspector = TextInspector(trace, query=1, setting=2)
    data, _ = inspector._repr_mimebundle_()
    start = start_of(data["text/html"], "et")
    assert (start["query"], start["setting"]) == (1, 2) and start["content"] == trace.to_json()
    assert data[WIDGET]["model_id"] == inspector.model_id and data["text/plain"] == trace.summary()


# ---- Regression ---------------------------------------------------------------------------------------------------


def made_up_regression() -> Regression:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))
    memory = EpisodicMemory(6, 1, (1,), like=torch.zeros(()))
    memory.append(torch.linspace(-2, 2, 6).unsqueeze(1), torch.linspace(-1, 3, 6).unsqueeze(1))
    truth = np.array([[-2.0, 0.0, 2.0], [-1.0, 1.0, 3.0]])
    return Regression(network, memory, truth, MbPAConfig(neighbours=2, steps=4, rate=0.1))


def test_a_regression_answers_by_network_attention_and_fit():
    regression = made_up_regression()
    found = regression.answers(0.1)
    w = 1 / (1e-3 + np.array([0.3, 0.5]) ** 2)
    assert found.attention == pytest.approx((w * [1.4, 0.6]).sum() / w.sum(), abs=1e-5)
    with torch.no_grad():
        assert found.network == pytest.approx(regression.network(torch.tensor([[0.1]])).item())
    still = regression.answers(0.1, MbPAConfig(neighbours=2, steps=0))
    assert still.fitted == found.network and still.moved == 0
    long = regression.answers(0.1, MbPAConfig(neighbours=2, steps=60, rate=0.1))
    assert abs(long.fitted - 1.1) < 0.1 < abs(long.network - 1.1), "the samples are on a line through (0.1, 1.1)"


def test_the_widget_of_the_regression_shows_what_its_traits_say():
    regression = made_up_regression()
    widget = LocalFitWidget({"one": regression, "two": regression}, query=0.1)
    widget.variant, widget.query = "two", -0.5
    widget.settings = widget.settings | {"steps": 1}
    start = start_of(widget._repr_mimebundle_()[0]["text/html"], "lf")
    assert (start["variant"], start["query"], start["settings"]["steps"]) == ("two", -0.5, 1)
    assert np.shape(start["content"]["one"]["network"][0]) == (5,)
    assert widget.summary().startswith("At x = −0.50 the network says ")
    for name, wrong, message in (
        ("variant", "three", "no variant 'three'"),
        ("query", 2.5, "between -2 and 2"),
        ("settings", {"optimizer": "adam"}, "by sgd"),
    ):
        with pytest.raises(ValueError, match=message):
            setattr(widget, name, wrong)
    with pytest.raises(ValueError, match="no variant 'three'"):
        LocalFitWidget({"one": regression}, variant="three")


def test_other_networks_are_not_shown():
    regression = made_up_regression()
    relu = nn.Sequential(nn.Linear(1, 5), nn.ReLU(), nn.Linear(5, 1))
    for network, config in ((relu, regression.config), (regression.network, MbPAConfig(optimizer="adam"))):
        with pytest.raises(ValueError, match="Tanh"):
            Regression(network, regression.memory, regression.truth, config)
