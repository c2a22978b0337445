"""Dynamic evaluation: against a plain loop, however the text is cut, and the network is left as it was."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.dynamic_evaluation import DynamicConfig, DynamicEvaluation
from lib.baselines.language import LanguageModel, LanguageModelConfig
from tests.cases import random_cases, seeds

WORDS, TIME = 6, 23


def model_and_text(seed: int) -> tuple[LanguageModel, torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed % 2**31)
    model = LanguageModel(LanguageModelConfig(words=WORDS, embedding=3, hidden=4)).double().eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight)
    text = torch.randint(WORDS, (1, TIME + 1))
    return model, text[:, :-1], text[:, 1:]


def plain_loop(model, xs, ys, config) -> torch.Tensor:
    """Window by window, whole ones only to learn from."""
    own, found, state = copy.deepcopy(model).eval(), [], None
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[config.optimizer]
    optimizer = kind(own.parameters(), lr=config.rate)
    for x, y in zip(xs.split(config.window, 1), ys.split(config.window, 1), strict=True):
        hs, state = own.hidden(x, state)
        log_p = torch.log_softmax(own.scores(hs), 2).gather(2, y.unsqueeze(2)).squeeze(2)
        found.append(log_p.detach())
        if x.shape[1] == config.window:
            optimizer.zero_grad()
            (-log_p.mean()).backward()
            torch.nn.utils.clip_grad_norm_(own.parameters(), config.clip)
            optimizer.step()
            state = type(state)(*(part.detach() for part in state))
    return torch.cat(found, 1)


@random_cases(20)
@given(seeds, st.integers(1, 8), st.sampled_from(["adam", "sgd"]), st.lists(st.integers(1, TIME - 1), max_size=3))
def test_it_is_the_plain_loop_however_the_text_is_cut(seed, window, optimizer, cuts):
    model, xs, ys = model_and_text(seed)
    config = DynamicConfig(rate=0.05, optimizer=optimizer, window=window)
    learner, carried, found = DynamicEvaluation(model, config), None, []
    borders = [0, *sorted(set(cuts)), TIME]
    for start, end in zip(borders, borders[1:], strict=False):
        part, carried = learner.episode(xs[:, start:end], ys[:, start:end], carried)
        found.append(part)
    torch.testing.assert_close(torch.cat(found, 1), plain_loop(model, xs, ys, config))


def test_the_network_is_left_as_it_was_and_a_new_text_begins_with_it():
    model, xs, ys = model_and_text(1)
    before = copy.deepcopy(model.state_dict())
    learner = DynamicEvaluation(model, DynamicConfig(rate=0.5))
    first, _ = learner.episode(xs, ys)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    torch.testing.assert_close(learner.episode(xs, ys)[0], first)
    plain = model.episode(xs, ys)[0].detach()
    torch.testing.assert_close(first[:, :5], plain[:, :5])  # nothing is learnt before it is scored
    assert (first[:, 5:] - plain[:, 5:]).abs().max() > 1e-3


def test_it_gets_better_at_a_text_that_repeats_itself():
    model, xs, _ = model_and_text(2)
    xs = torch.arange(120).remainder(4).unsqueeze(0)
    found, _ = DynamicEvaluation(model, DynamicConfig(rate=0.05)).episode(xs[:, :-1], xs[:, 1:])
    assert found[:, -20:].mean() > found[:, :20].mean() + 0.5


def test_what_adam_knew_in_training_can_be_given():
    model, xs, ys = model_and_text(3)
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    (-model.episode(xs, ys)[0].mean()).backward()
    optimizer.step()
    known, fresh = (DynamicEvaluation(model, DynamicConfig(), state) for state in (optimizer.state_dict(), None))
    before = copy.deepcopy(optimizer.state_dict()["state"])
    first, _ = known.episode(xs, ys)
    torch.testing.assert_close(known.episode(xs, ys)[0], first)  # a second text begins with what was known, too
    torch.testing.assert_close(optimizer.state_dict()["state"], before, atol=0, rtol=0)
    assert (known.episode(xs, ys)[0] - fresh.episode(xs, ys)[0]).abs().max() > 0
    _, learning = known.episode(xs, ys)
    assert learning.optimizer.param_groups[0]["lr"] == 1e-4, "the rate is that of the config"


def test_a_window_of_no_words_is_refused():
    with pytest.raises(ValueError, match="at least one word, not 0"):
        DynamicConfig(window=0)
