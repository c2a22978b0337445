"""The language model against naive NumPy, and as it is trained: block by block, to be taken up again anywhere."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.language import LanguageModel, LanguageModelConfig, dropped
from lib.tasks.language import LanguageTask, TextBlocks
from lib.tasks.seeds import generator
from lib.training import TrainingConfig, train
from tests.cases import random_cases, seeds

WORDS = 9
all_softmaxes = st.sampled_from([{}, {"cutoffs": (3,)}, {"cutoffs": (2, 5)}, {"cutoffs": (1, 2, 8)}, {"tied": True}])
SHORT = TrainingConfig(
    updates=8,
    batch_size=2,
    learning_rate=1e-2,
    log_every=2,
    validate_every=4,
    validation_batches=2,
    checkpoint_every=4,
    optimizer="adam",
    wipe_memory=False,
    rate_falls_from=0.5,
)


def model_and_text(seed=0, cutoffs=(), dropout=0.0, batch=2, time=6, tied=False):
    torch.manual_seed(seed % 2**31)
    model = LanguageModel(LanguageModelConfig(WORDS, 3, 8, dropout, cutoffs, narrower=2.0, tied=tied), seed=1).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    text = torch.randint(WORDS, (batch, time + 1))
    return model, text[:, :-1], text[:, 1:]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def log_softmax(a):
    return a - a.max() - np.log(np.exp(a - a.max()).sum())


def naive_log_probabilities(model, xs):
    """One stream, word by word, from PyTorch's own weights; the adaptive softmax as a product of two shares."""
    own = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    hidden = cell = np.zeros(model.config.hidden)
    embedding = own["softmax.weight" if model.config.tied else "embedding.weight"]
    rows = []
    for x in xs:
        gates = own["lstm.weight_ih_l0"] @ embedding[x] + own["lstm.bias_ih_l0"]
        gates = gates + own["lstm.weight_hh_l0"] @ hidden + own["lstm.bias_hh_l0"]
        i, f, g, o = np.split(gates, 4)
        cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
        hidden = sigmoid(o) * np.tanh(cell)
        if model.config.tied:
            rows.append(log_softmax(own["softmax.weight"] @ (own["projection.weight"] @ hidden) + own["softmax.bias"]))
            continue
        if not model.config.cutoffs:
            rows.append(log_softmax(own["softmax.weight"] @ hidden + own["softmax.bias"]))
            continue
        head = log_softmax(own["softmax.head.weight"] @ hidden)
        first, parts = model.config.cutoffs[0], [head[: model.config.cutoffs[0]]]
        for part in range(len(model.config.cutoffs)):
            narrow, wide = (own[f"softmax.tail.{part}.{layer}.weight"] for layer in (0, 1))
            parts.append(head[first + part] + log_softmax(wide @ (narrow @ hidden)))
        rows.append(np.concatenate(parts))
    return np.array(rows)


@random_cases(30)
@given(seeds, all_softmaxes)
def test_probabilities_are_those_of_the_naive_form(seed, softmax):
    model, xs, ys = model_and_text(seed, **softmax)
    expected = np.stack([naive_log_probabilities(model, x) for x in xs])
    np.testing.assert_allclose(np.exp(expected).sum(2), 1, atol=1e-12)
    hs, _ = model.hidden(xs)
    with torch.no_grad():
        np.testing.assert_allclose(model.scores(hs).log_softmax(2).numpy(), expected, atol=1e-10)
        chosen = np.take_along_axis(expected, ys.numpy()[..., None], 2)
        np.testing.assert_allclose(model.log_likelihood(hs, ys).numpy(), chosen[..., 0], atol=1e-10)
        scored = model(xs, ys)
    np.testing.assert_allclose(scored.log_likelihood.numpy(), chosen[..., 0], atol=1e-10)
    np.testing.assert_array_equal(scored.rank.numpy(), 1 + (expected > chosen).sum(2))


@random_cases(20)
@given(seeds, all_softmaxes, st.integers(1, 6))
def test_blocks_and_single_steps_give_what_the_whole_gives(seed, softmax, time):
    model, xs, ys = model_and_text(seed, **softmax)
    model.eval()
    whole, state, blocks = model(xs, ys).log_likelihood, None, []
    for x, y in zip(xs.split(time, 1), ys.split(time, 1), strict=True):
        block, state = model.episode(x, y, state)
        state = model.carry_over(state)
        blocks.append(block)
    torch.testing.assert_close(torch.cat(blocks, 1), whole)
    model.begin(len(xs))
    for t in range(xs.shape[1]):
        p = model.predict(xs[:, t])
        torch.testing.assert_close(p.gather(1, ys[:, t, None])[:, 0].log(), whole[:, t])
        model.observe(xs[:, t], ys[:, t])


def test_the_gradient_ends_at_the_border_of_a_block():
    model, xs, ys = model_and_text()
    _, state = model.episode(xs, ys)
    assert state.hidden.requires_grad
    carried = model.carry_over(state)
    assert not carried.hidden.requires_grad and torch.equal(carried.cell, state.cell)


@random_cases(20)
@given(seeds, st.sampled_from([0.0, 0.2, 0.5]))
def test_dropout_keeps_the_mean_and_drops_its_share(seed, share):
    values = torch.ones(50, 20, 10)
    found = dropped(values, share, generator(seed, "dropout", 0))
    assert (found == 0).double().mean().item() == pytest.approx(share, abs=0.02)
    torch.testing.assert_close(found[found != 0], torch.full_like(found[found != 0], 1 / (1 - share)))


def test_dropout_is_of_the_block_trained_on_and_of_nothing_else():
    def losses(model, xs, ys):
        return [model.episode(xs, ys)[0] for _ in range(2)]

    first, second = losses(*model_and_text(dropout=0.5))
    torch.rand(5)  # PyTorch's own random numbers have no part in it
    again = losses(*model_and_text(dropout=0.5))
    assert not torch.equal(first, second)
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])
    model, xs, ys = model_and_text(dropout=0.5)
    model.eval()
    assert torch.equal(*losses(model, xs, ys)) and model.blocks_trained == 0


class Stop(Exception):
    """What a kill looks like from inside."""


class Interrupted(TextBlocks):
    """Blocks that end in the middle of a training."""

    def batch(self, n, size):
        if n == SHORT.checkpoint_every + 2:
            raise Stop
        return super().batch(n, size)


@pytest.mark.parametrize("softmax", [{"cutoffs": (3,)}, {"tied": True}], ids=["adaptive", "tied"])
def test_training_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path, softmax):
    text = torch.randint(WORDS, (101,), generator=generator(0, "text", 0))
    blocks = TextBlocks(text, 5)

    def trained(folder, train_blocks):
        model, *_ = model_and_text(dropout=0.3, **softmax)
        task = LanguageTask(train_blocks, blocks)
        return model, train(model, task, SHORT, folder=folder, unroll="plain", progress=False)

    with pytest.raises(Stop):
        trained(tmp_path, Interrupted(text, 5))
    resumed, found = trained(tmp_path, blocks)
    whole, expected = trained(None, blocks)
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), whole.parameters(), strict=True))
    assert [(line["update"], line["loss"]) for line in found.log] == [(n["update"], n["loss"]) for n in expected.log]
    assert found.log[3]["validation"] == expected.log[3]["validation"]
    assert whole.blocks_trained == SHORT.updates


def test_tied_vectors_are_one_and_learn_from_both_of_their_uses():
    model, xs, ys = model_and_text(tied=True)
    sizes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    assert sizes["softmax.weight"] == (WORDS, 3) and sizes["projection.weight"] == (3, 8)
    assert not any(name.startswith("embedding") for name in sizes) and model.hidden_size == 3
    # With nothing to predict from the hidden units, only the first use is left: words that are read have a gradient.
    hs, _ = model.hidden(torch.tensor([[2, 5]]))
    hs.sum().backward()
    assert model.softmax.weight.grad.abs().sum(1).nonzero().flatten().tolist() == [2, 5]
    model.zero_grad()
    model.episode(xs, ys)[0].sum().backward()
    assert (model.softmax.weight.grad.abs().sum(1) > 0).all()
    assert not LanguageModel(LanguageModelConfig(WORDS, 3, 8)).config.tied


def test_an_adaptive_softmax_cannot_be_tied():
    with pytest.raises(ValueError, match="no vector of the embedding's length"):
        LanguageModelConfig(WORDS, 3, 8, cutoffs=(3,), tied=True)


@pytest.mark.parametrize(
    "wrong", [{"words": 0}, {"hidden": 0}, {"dropout": 1.0}, {"cutoffs": (5, 3)}, {"cutoffs": (0,)}, {"cutoffs": (9,)}]
)
def test_sizes_that_mean_nothing_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LanguageModelConfig(**({"words": WORDS} | wrong))
