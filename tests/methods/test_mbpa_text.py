"""MbPA on a text: blocks, steps and a slow reference agree, and what is not in memory has no say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.baselines.neural_cache import CacheConfig, NeuralCache
from lib.methods import mbpa_text
from lib.methods.mbpa import MbPAConfig
from lib.methods.mbpa_text import TextMbPA, TextMbPAConfig
from tests.cases import random_cases, seeds
from tests.methods import reference_mbpa as reference

WORDS, STEPS = 7, 12


def make_learner(seed: int, fit: MbPAConfig, **settings) -> TextMbPA:
    torch.manual_seed(seed)
    network = LanguageModel(LanguageModelConfig(words=WORDS, embedding=4, hidden=5)).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight)
    return TextMbPA(network, network.softmax, TextMbPAConfig(fit, **settings))


def make_text(seed: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, WORDS, (batch, STEPS + 1), generator=torch.Generator().manual_seed(seed % 2**31))
    return tokens[:, :-1], tokens[:, 1:]


fits = st.builds(
    MbPAConfig,
    neighbours=st.integers(1, 15),
    steps=st.integers(0, 3),
    rate=st.floats(0.01, 1.0),
    prior=st.sampled_from([0.0, 0.2]),
    optimizer=st.sampled_from(["sgd", "sgd", "rmsprop"]),
)


@random_cases(60)
@given(seed=seeds, fit=fits, size=st.integers(1, 14))
def test_each_step_is_fitted_to_the_likest_of_the_last_n(seed, fit, size):
    learner, (xs, ys) = make_learner(seed, fit, size=size), make_text(seed)
    parts, _ = learner.parts(xs, ys)
    hidden = learner.network.hidden(xs)[0].detach().numpy()
    theta = torch.cat([learner.output.weight, learner.output.bias.unsqueeze(1)], 1).detach().numpy()
    settings = {name: getattr(fit, name) for name in ("optimizer", "steps", "rate", "prior", "decay", "square")}
    for stream in range(len(xs)):
        for t in range(STEPS):
            past = range(max(0, t - size), t)
            keys, own = hidden[stream, list(past)], theta
            if len(past):
                at = reference.nearest(hidden[stream, t], keys, fit.neighbours)
                weights = reference.kernel_weights(hidden[stream, t], keys[at], fit.epsilon)
                values = ys[stream, list(past)].numpy()[at]
                own = reference.fitted(theta, keys[at], values, weights, **settings)
            p = reference.softmax(own @ np.append(hidden[stream, t], 1.0))
            assert parts.fitted[stream, t].item() == pytest.approx(np.log(p[ys[stream, t]]), abs=1e-6)


@random_cases(40)
@given(seed=seeds, fit=fits, size=st.integers(1, 14), shares=st.sampled_from([(0.1, 0.0), (0.3, 0.2), (0.0, 1.0)]))
def test_both_views_agree_step_by_step(seed, fit, size, shares):
    learner = make_learner(seed, fit, size=size, share=shares[0], cache_share=shares[1])
    xs, ys = make_text(seed)
    together, _ = learner.episode(xs, ys)
    learner.begin(len(xs))
    for t in range(STEPS):
        p = learner.predict(xs[:, t])
        torch.testing.assert_close(p.sum(1), torch.ones(len(xs), dtype=p.dtype))
        own = p.gather(1, ys[:, t : t + 1]).squeeze(1)
        torch.testing.assert_close(own.log().clamp(min=-60), together[:, t].clamp(min=-60), atol=1e-6, rtol=0)
        learner.observe(xs[:, t], ys[:, t])


@random_cases(30)
@given(seed=seeds, fit=fits, cuts=st.lists(st.integers(1, STEPS - 1), max_size=3, unique=True))
def test_the_blocks_do_not_matter(seed, fit, cuts):
    learner, (xs, ys) = make_learner(seed, fit, size=5), make_text(seed)
    whole, _ = learner.parts(xs, ys)
    past, pieces = None, []
    borders = [0, *sorted(cuts), STEPS]
    for start, end in zip(borders, borders[1:], strict=False):
        parts, past = learner.parts(xs[:, start:end], ys[:, start:end], past)
        pieces.append(parts)
    for name, part in zip(whole._fields, zip(*pieces, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(part, 1), getattr(whole, name), msg=name)


@pytest.mark.parametrize("size", [4, 5000])
@pytest.mark.parametrize("block", [1, 3, 5])
def test_nor_do_the_blocks_within(monkeypatch, block, size):
    learner, (xs, ys) = make_learner(1, MbPAConfig(neighbours=3), size=size), make_text(1)
    whole, _ = learner.parts(xs, ys)
    monkeypatch.setattr(mbpa_text, "BLOCK", block)
    monkeypatch.setattr(mbpa_text, "KEYS_AT_ONCE", 1)
    monkeypatch.setattr(mbpa_text, "COLUMNS", 3)
    torch.testing.assert_close(learner.parts(xs, ys)[0], whole)
    many_steps = make_learner(1, MbPAConfig(neighbours=3, steps=2), size=size)
    one_by_one, _ = many_steps.parts(xs, ys)
    monkeypatch.undo()
    torch.testing.assert_close(many_steps.parts(xs, ys)[0], one_by_one)


@pytest.mark.parametrize("steps", [1, 2])
def test_several_rates_at_once_are_each_of_them(steps):
    learner, (xs, ys) = make_learner(2, MbPAConfig(neighbours=3, steps=steps, rate=0.4)), make_text(2)
    found, past = learner.parts_by_rate(xs, ys, (0.1, 0.4))
    one, other = learner.parts(xs, ys)
    torch.testing.assert_close(found[1], one)
    torch.testing.assert_close(past.hidden, other.hidden)
    assert (found[0].fitted - one.fitted).abs().max() > 1e-4
    torch.testing.assert_close(found[0].network, one.network)


def test_its_cache_is_the_neural_cache():
    learner, (xs, ys) = make_learner(3, MbPAConfig(), size=4, share=0.0, cache_share=0.2), make_text(3)
    cache = NeuralCache(learner.network, CacheConfig(size=4, share=0.2, sharpness=0.3))
    torch.testing.assert_close(learner.episode(xs, ys)[0], cache.episode(xs, ys)[0])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="at least one step, not 0"):
        TextMbPAConfig(size=0)
    with pytest.raises(ValueError, match="1 at most together"):
        TextMbPAConfig(share=0.6, cache_share=0.5)
    parts, _ = make_learner(0, MbPAConfig()).parts(*make_text(0))
    for shares in ((-0.1, 0.0), (0.1, -0.1), (0.6, 0.5)):
        with pytest.raises(ValueError, match="must be 0 or more"):
            parts.mixed(*shares)
    torch.testing.assert_close(parts.mixed(0.7, 0.3), torch.logaddexp(*_weighed(parts, 0.7, 0.3)))
    assert not make_learner(0, MbPAConfig()).train().network.training


def _weighed(parts, share: float, cache_share: float) -> tuple[torch.Tensor, torch.Tensor]:
    return parts.fitted + np.log(share), parts.cache + np.log(cache_share)
