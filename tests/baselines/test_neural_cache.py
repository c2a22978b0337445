"""The neural cache against a naive loop in float64, however the text is cut into blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines import neural_cache
from lib.baselines.language import LanguageModel, LanguageModelConfig
from lib.baselines.neural_cache import CacheConfig, NeuralCache, attention, cache_at
from tests.cases import random_cases, seeds

WORDS = 7
sizes = st.sampled_from([1, 2, 5, 50])
shares = st.sampled_from([0.0, 0.2, 0.9, 1.0])


def cache_and_text(seed, size=5, share=0.3, sharpness=2.0, batch=2, time=17, cutoffs=()):
    torch.manual_seed(seed % 2**31)
    model = LanguageModel(LanguageModelConfig(WORDS, 3, 4, dropout=0.0, cutoffs=cutoffs, narrower=2.0)).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    text = torch.randint(WORDS, (batch, time + 1))
    return NeuralCache(model, CacheConfig(size, share, sharpness)), text[:, :-1], text[:, 1:]


def naive_probabilities(cache, xs, ys):
    """One stream: the network's probabilities are taken from it, the cache's are summed one by one."""
    config = cache.config
    hs = cache.network.hidden(xs.unsqueeze(0))[0][0]
    network_p = cache.network.scores(hs).softmax(-1).detach().numpy()
    hs = hs.detach().numpy()
    rows = []
    for t in range(len(xs)):
        past = range(max(0, t - config.size), t)
        if not past:
            rows.append(network_p[t])
            continue
        kernel = {i: np.exp(config.sharpness * (hs[t] @ hs[i])) for i in past}
        cache_p = np.zeros(WORDS)
        for i in past:
            cache_p[ys[i]] += kernel[i]
        rows.append((1 - config.share) * network_p[t] + config.share * cache_p / sum(kernel.values()))
    return np.array(rows)


@random_cases(40)
@given(seeds, sizes, shares, st.sampled_from([(), (2, 4)]), st.sampled_from([1, 3, 64]))
def test_probabilities_are_those_of_the_naive_form(seed, size, share, cutoffs, chunk):
    cache, xs, ys = cache_and_text(seed, size, share, cutoffs=cutoffs)
    expected = np.stack([naive_probabilities(cache, x, y) for x, y in zip(xs, ys, strict=True)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neural_cache, "CHUNK", chunk)
        patch.setattr(neural_cache, "CHUNK_PROBABILITIES", chunk * len(xs) * WORDS)
        found, _ = cache.episode(xs, ys)
        scored = cache(xs, ys)
    chosen = np.take_along_axis(expected, ys.numpy()[..., None], 2)
    np.testing.assert_allclose(found.exp().numpy(), chosen[..., 0], rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(scored.log_likelihood.exp().numpy(), chosen[..., 0], rtol=1e-9, atol=1e-300)
    if 0 < share < 1:
        ranks = (expected > chosen).sum(2) + ((expected == chosen).sum(2) + 1) / 2
        np.testing.assert_array_equal(scored.rank.numpy(), ranks)
    cache.begin(len(xs))
    for t in range(xs.shape[1]):
        np.testing.assert_allclose(cache.predict(xs[:, t]).numpy(), expected[:, t], rtol=1e-9, atol=1e-12)
        cache.observe(xs[:, t], ys[:, t])


@random_cases(30)
@given(seeds, sizes, st.integers(1, 17), st.integers(1, 17))
def test_nothing_depends_on_the_length_of_blocks(seed, size, first, second):
    cache, xs, ys = cache_and_text(seed, size)

    def in_blocks(time):
        past, parts = None, []
        for x, y in zip(xs.split(time, 1), ys.split(time, 1), strict=True):
            part, past = cache.episode(x, y, past)
            parts.append(part)
        return torch.cat(parts, 1), past

    (found, past), (expected, expected_past) = in_blocks(first), in_blocks(second)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(past.hidden, expected_past.hidden)
    assert torch.equal(past.words, expected_past.words) and past.words.shape[1] == min(size, 17)


def test_the_first_word_of_a_block_uses_the_cache():
    cache, xs, ys = cache_and_text(3, size=50, share=1.0)
    _, past = cache.episode(xs[:, :9], ys[:, :9])
    found, _ = cache.episode(xs[:, 9:], ys[:, 9:], past)
    seen_before = torch.stack([(ys[:, :9] == word).any(1) for word in ys[:, 9]]).diagonal()
    assert torch.equal(found[:, 0] > -torch.inf, seen_before) and seen_before.any()


def test_a_flat_cache_counts_words_and_a_sharp_one_repeats_what_followed_the_same_state():
    hidden = torch.eye(3, dtype=torch.float64).unsqueeze(0)
    flat = attention(hidden[:, :1], hidden, earlier=3, size=3, sharpness=0.0)
    sharp = attention(hidden[:, :1], hidden, earlier=3, size=3, sharpness=100.0)
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 3))
    torch.testing.assert_close(sharp, hidden[:, :1])


def test_the_network_stays_as_it_is():
    cache, xs, ys = cache_and_text(5)
    before = {name: value.clone() for name, value in cache.network.state_dict().items()}
    cache.train()
    cache(xs, ys)
    assert not cache.network.training and not any(p.requires_grad for p in cache.parameters())
    assert all(torch.equal(value, before[name]) for name, value in cache.network.state_dict().items())


@pytest.mark.parametrize("wrong", [{"size": 0}, {"share": 1.1}, {"share": -0.1}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))[:4].replace("size", "step")):
        CacheConfig(**wrong)


@random_cases(30)
@given(seeds, sizes, st.sets(st.integers(0, 16), min_size=1).map(sorted), st.sampled_from([1, 3, 64]))
def test_at_some_words_it_says_what_it_says_at_all(seed, size, at, chunk):
    cache, xs, ys = cache_and_text(seed, size, share=1.0, batch=1)
    hs = cache.network.hidden(xs)[0][0].detach()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neural_cache, "CHUNK", chunk)
        found = cache_at(hs, ys[0], torch.tensor(at), size, (0.7, 2.0))
    expected = naive_probabilities(cache, xs[0], ys[0])[at, ys[0, at]]
    assert found[:, 0].isnan().tolist() == [t == 0 for t in at]  # no past
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found[:, 1].exp().numpy()[np.array(at) > 0], expected[np.array(at) > 0], rtol=1e-9)
    assert found.shape == (len(at), 2)
