"""FLMN against its equations, and what its parts must do."""

import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from lib.memory import addressing, lrua
from lib.methods import flmn as flmn_module
from lib.methods.flmn import FLMN, FLMNConfig
from tests.cases import random_cases, seeds
from tests.methods import reference_flmn as reference
from tests.methods.test_mann import (
    all_is_zeroed_after_the_write,
    dot_product_instead_of_cosine,
    gate_the_wrong_way_round,
    gate_without_sigmoid,
    last_index_wins_a_tie,
    most_used,
    no_decay,
    nothing_is_written,
    nothing_is_zeroed,
    one_choice_for_the_batch,
    random_episodes,
    reads_do_not_count,
    softmax_twice,
    step_through,
    writes_do_not_count,
)

TINY = FLMNConfig(features=4, classes=3, hidden=5, slots=6, width=3)
STATE = ("hidden", "cell", "feature_memory", "label_memory", "usage", "read")
WEIGHTS = ("read_weights", "write_weights", "label_weights")


def random_flmn(config: FLMNConfig, seed: int, scale: float = 1.0) -> FLMN:
    """An FLMN in float64 with normal weights, larger than at the start of training."""
    learner, random = FLMN(config).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return learner


def to_reference(learner: FLMN) -> reference.Weights:
    """The same weights under the paper's names. Inputs stand in the order x, y, r, h."""
    own, config = {name: value.detach().numpy() for name, value in learner.named_parameters()}, learner.config
    hidden, read = own["from_state.weight"][:, : config.hidden], own["from_state.weight"][:, config.hidden :]
    whole = np.concatenate([own["from_input.weight"], read, hidden], axis=1)
    pairs = zip(np.split(whole, 4), np.split(own["from_input.bias"], 4), strict=True)
    vectors = zip(np.split(own["to_vectors.weight"], 3), np.split(own["to_vectors.bias"], 3), strict=True)
    dynamic = config.gate == "dynamic"
    return reference.Weights(
        dict(zip(("forget", "input", "output", "update"), pairs, strict=True)),
        *vectors,
        gate=(own["to_gate.weight"][0], own["to_gate.bias"][0]) if dynamic else (None, own["alpha"][0]),
        output=(own["to_logits.weight"], own["to_logits.bias"]),
    )


def compare_with_reference(learner: FLMN, xs: torch.Tensor, ys: torch.Tensor) -> None:
    """Logits, probabilities and every state of whole episodes, to 1e-9."""
    config = learner.config
    sizes = {"hidden_size": config.hidden, "slots": config.slots, "width": config.width, "classes": config.classes}
    readings = {"label_write": config.label_write, "answer_from": config.answer_from, "decay": config.usage_decay}
    logits, streams = reference.episode(to_reference(learner), xs.numpy(), ys.numpy(), **sizes, **readings)
    np.testing.assert_allclose(learner(xs, ys).detach(), logits, atol=1e-9, rtol=0)
    learner.begin(len(xs))
    for t in range(xs.shape[1]):
        expected = np.stack([reference.probabilities(logits[b, t]) for b in range(len(xs))])
        np.testing.assert_allclose(learner.predict(xs[:, t]), expected, atol=1e-9, rtol=0)
        learner.observe(xs[:, t], ys[:, t])
        for name in STATE + WEIGHTS:
            naive = np.stack([getattr(stream[t], name) for stream in streams])
            found = getattr(learner.state, name)
            found = found.squeeze(1) if name in WEIGHTS else found
            np.testing.assert_allclose(found, naive, atol=1e-9, rtol=0, err_msg=f"{name}, step {t}")


configs = st.builds(
    FLMNConfig,
    features=st.integers(1, 4),
    classes=st.integers(2, 4),
    hidden=st.integers(1, 5),
    slots=st.integers(1, 9),
    width=st.integers(1, 4),
    usage_decay=st.sampled_from([0.5, 0.95, 0.99]),
    gate=st.sampled_from(["dynamic", "constant"]),
    label_write=st.sampled_from(["recursive", "same-step"]),
    answer_from=st.sampled_from(["both", "memory"]),
)


@random_cases(60)
@given(configs, seeds, st.integers(1, 3), st.integers(1, 13), st.sampled_from([0.3, 1.0, 2.0]))
def test_whole_episodes_agree_with_the_equations(config, seed, batch, length, scale):
    compare_with_reference(random_flmn(config, seed, scale), *random_episodes(config, seed + 1, batch, length))


@pytest.mark.parametrize("gate", ["dynamic", "constant"])
def test_a_long_episode_agrees_with_the_equations(gate):
    config = FLMNConfig(features=3, classes=3, hidden=6, slots=10, width=4, gate=gate)
    compare_with_reference(random_flmn(config, 11), *random_episodes(config, 12, batch=2, length=25))


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (lrua, "least_used_slots", most_used),
        (lrua, "least_used_slots", one_choice_for_the_batch),
        (lrua, "least_used_slots", last_index_wins_a_tie),
        (lrua, "write", nothing_is_zeroed),
        (lrua, "write", all_is_zeroed_after_the_write),
        (lrua, "write", nothing_is_written),
        (lrua, "update_usage", no_decay),
        (lrua, "update_usage", writes_do_not_count),
        (lrua, "update_usage", reads_do_not_count),
        (lrua, "write_weights", gate_the_wrong_way_round),
        (lrua, "write_weights", gate_without_sigmoid),
        (addressing, "content_weights", softmax_twice),
        (addressing, "content_weights", dot_product_instead_of_cosine),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_comparison_catches_known_mistakes(monkeypatch, module, name, wrong):
    learner, episodes = random_flmn(TINY, 1), random_episodes(TINY, 2, batch=3, length=15)
    compare_with_reference(learner, *episodes)
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        compare_with_reference(learner, *episodes)


def step_with(right: str, wrong: str):
    """FLMN's step from a module in whose source `right` was replaced."""
    source = Path(flmn_module.__file__).read_text()
    assert source.count(right) == 1, right
    changed = types.ModuleType("changed")
    sys.modules["changed"] = changed  # where its dataclass looks for its types
    exec(source.replace(right, wrong), vars(changed))
    del sys.modules["changed"]
    return changed.FLMN.step


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("else state.write_weights\n", "else write_weights\n"),
        ("else state.write_weights\n", "else torch.zeros_like(write_weights)\n"),
        ("else state.write_weights\n", "else state.label_weights\n"),
        ("torch.baddbmm(state.label_memory,", "torch.baddbmm(state.label_memory * (1 - state.least_used).mT,"),
        ("label_weights.transpose(1, 2), label)", "label_weights.transpose(1, 2), feature)"),
        ("content_weights(key, feature_memory)", "content_weights(key, state.feature_memory)"),
        ("content_weights(key, feature_memory)", "content_weights(key, label_memory)"),
        ("addressing.read(read_weights, label_memory)", "addressing.read(read_weights, state.label_memory)"),
        ("addressing.read(read_weights, label_memory)", "addressing.read(read_weights, feature_memory)"),
        ("= self.vectors(cell)", "= self.vectors(hidden)"),
        ("self.to_gate(hidden)", "self.to_gate(cell)"),
        ("write_weights.detach(), self", "(write_weights + label_weights).detach(), self"),
        ("torch.cat([hidden, read], dim=-1), FLMN", "torch.cat([hidden, 0 * read], dim=-1), FLMN"),
    ],
)
def test_the_comparison_catches_a_step_that_does_another_thing(monkeypatch, right, wrong):
    learner, episodes = random_flmn(replace(TINY, gate="dynamic"), 1), random_episodes(TINY, 2, batch=3, length=15)
    monkeypatch.setattr(FLMN, "step", step_with("# Look among", "# Look at"))
    compare_with_reference(learner, *episodes)
    monkeypatch.setattr(FLMN, "step", step_with(right, wrong))
    with pytest.raises(AssertionError):
        compare_with_reference(learner, *episodes)


def test_a_closed_gate_fills_slot_after_slot_and_each_label_follows_its_feature():
    learner = random_flmn(TINY, 5)
    with torch.no_grad():
        learner.alpha.fill_(-1000.0)
    xs, ys = random_episodes(TINY, 6, batch=2, length=5)
    states = step_through(learner, xs, ys)
    for t, state in enumerate(states):
        _, feature, label = learner.vectors(state.cell)
        torch.testing.assert_close(state.feature_memory[:, t], feature[:, 0])
        assert (state.feature_memory[:, t + 1 :] == 0).all()
        assert (state.label_memory[:, t:] == 0).all()  # this step's own label is not known yet
        if t:
            torch.testing.assert_close(state.label_memory[:, t - 1], label[:, 0])


def test_features_decide_where_is_read_and_labels_what():
    learner = random_flmn(TINY, 8)
    xs, ys = random_episodes(TINY, 9, batch=2, length=7)
    state = step_through(learner, xs, ys)[-1]
    projected, _ = learner.prepare(xs[:, :1], ys[:, :1])
    _, expected = learner.step(projected[:, 0], state)
    other = torch.randn(state.label_memory.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    _, found = learner.step(projected[:, 0], state._replace(label_memory=other))
    assert torch.equal(found.read_weights, expected.read_weights)
    assert not torch.allclose(found.read, expected.read)
    _, found = learner.step(projected[:, 0], state._replace(feature_memory=other))
    assert not torch.allclose(found.read_weights, expected.read_weights)


@pytest.mark.parametrize("gate", ["dynamic", "constant"])
def test_every_parameter_gets_a_gradient(gate):
    learner = random_flmn(replace(TINY, gate=gate), 30)
    xs, ys = random_episodes(TINY, 31, batch=4, length=10)
    F.cross_entropy(learner(xs, ys).flatten(0, 1), ys.flatten()).backward()
    for name, parameter in learner.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("gate", ["dynamic", "constant"])
@pytest.mark.parametrize("label_write", ["recursive", "same-step"])
def test_the_gradients_are_those_of_finite_differences(gate, label_write):
    config = FLMNConfig(2, 2, hidden=3, slots=4, width=2, gate=gate, label_write=label_write)
    learner = random_flmn(config, 40, scale=0.7)
    xs, ys = random_episodes(config, 41, batch=2, length=5)
    names = [name for name, _ in learner.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in learner.parameters()]

    def logits(xs, *parameters):
        return functional_call(learner, dict(zip(names, parameters, strict=True)), (xs, ys))

    assert torch.autograd.gradcheck(logits, (xs.requires_grad_(), *values), atol=1e-6, fast_mode=True)
