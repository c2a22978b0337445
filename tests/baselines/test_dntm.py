"""The altered D-NTM against naive NumPy, cell by cell, and its two views against each other."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines import dntm
from lib.baselines.dntm import DNTM, DNTMConfig
from lib.memory.addressing import EPSILON
from tests.cases import random_cases, seeds


def learner_and_streams(seed, batch=3, time=6, **config):
    sizes = {"labels": 5, "embedding": 3, "hidden": 4, "cells": 6, "address": 2, "content": 3, **config}
    learner = DNTM(DNTMConfig(**sizes)).double()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in learner.parameters():
            each.copy_(torch.randn(each.shape, generator=random, dtype=torch.float64))
    tokens = torch.randint(sizes["labels"], (2, batch, time), generator=random)
    return learner, tokens[0], tokens[1]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def softmax(a):
    a = np.exp(a - a.max())
    return a / a.sum()


def cosine(a, b):
    return a @ b / np.sqrt((a @ a + EPSILON) * (b @ b + EPSILON))


def naive_log_likelihoods(learner, xs, ys):
    own = {name: value.detach().numpy() for name, value in learner.named_parameters()}
    config = learner.config

    def linear(name, *inputs):
        return own[f"{name}.weight"] @ np.concatenate(inputs) + own[f"{name}.bias"]

    hidden, contents = np.zeros(config.hidden), np.zeros((config.cells, config.content))
    read, usage = np.zeros(config.address + config.content), np.zeros(config.cells)
    found = []
    for x, y in zip(xs, ys, strict=True):
        a = own["controller.weight_ih"] @ np.concatenate([own["embedding.weight"][x], read])
        b = own["controller.weight_hh"] @ hidden
        ra, za, na = np.split(a + own["controller.bias_ih"], 3)
        rb, zb, nb = np.split(b + own["controller.bias_hh"], 3)
        keep = sigmoid(za + zb)
        hidden = (1 - keep) * np.tanh(na + sigmoid(ra + rb) * nb) + keep * hidden

        *key, strength, share = linear("to_head", hidden)
        cells = [np.concatenate([own["addresses"][i], contents[i]]) for i in range(config.cells)]
        similarity = np.array([(1 + np.log1p(np.exp(strength))) * cosine(np.array(key), cell) for cell in cells])
        weights = softmax(similarity - sigmoid(share) * usage if config.usage else similarity)
        usage = 0.1 * usage + 0.9 * similarity
        read = sum(weight * cell for weight, cell in zip(weights, cells, strict=True))
        found.append(np.log(softmax(linear("to_logits", hidden, read))[y]))

        erase = sigmoid(linear("to_erase", hidden))
        add = np.maximum(0, linear("to_content", read, own["embedding.weight"][y]))
        for i in range(config.cells):
            contents[i] = (1 - weights[i] * erase) * contents[i] + weights[i] * add
    return found


@random_cases(30)
@given(seeds, st.booleans(), st.integers(1, 3), st.integers(1, 10), st.integers(1, 7))
def test_it_scores_as_cell_by_cell(seed, usage, batch, time, cells):
    learner, xs, ys = learner_and_streams(seed, batch, time, usage=usage, cells=cells)
    found = learner(xs, ys).log_likelihood.detach()
    for b in range(batch):
        np.testing.assert_allclose(found[b], naive_log_likelihoods(learner, xs[b], ys[b]), atol=1e-8)


@random_cases(20)
@given(seeds, st.booleans())
def test_a_step_at_a_time_it_predicts_the_same_from_an_empty_memory_each_time(seed, usage):
    learner, xs, ys = learner_and_streams(seed, usage=usage)
    whole = learner(xs, ys)
    for _ in range(2):
        learner.begin(len(xs))
        assert not learner.state.contents.any()
        for t in range(xs.shape[1]):
            p = learner.predict(xs[:, t])
            torch.testing.assert_close(p, learner.predict(xs[:, t]), rtol=0, atol=0)
            torch.testing.assert_close(p.gather(1, ys[:, t, None])[:, 0].log(), whole.log_likelihood[:, t])
            learner.observe(xs[:, t], ys[:, t])
        assert learner.state.contents.any()


@random_cases(20)
@given(seeds)
def test_a_write_changes_the_cell_that_was_read_and_no_other(seed):
    learner, xs, ys = learner_and_streams(seed)
    state = learner.initial_state(3)._replace(contents=torch.randn(3, 6, 3, dtype=torch.float64))
    only = torch.eye(6, dtype=torch.float64)[[2, 0, 5]].unsqueeze(1)
    changed = (learner.write(learner.embedding(ys[:, 0]), state, only).contents != state.contents).any(2)
    assert changed.tolist() == only[:, 0].bool().tolist()


@random_cases(10)
@given(seeds)
def test_a_later_loss_has_a_gradient_to_an_earlier_write_and_to_the_addresses(seed):
    learner, xs, ys = learner_and_streams(seed)
    learner(xs, ys).log_likelihood[:, -1].sum().backward()
    for each in (learner.addresses, learner.to_content.weight, learner.to_erase.weight):
        assert each.grad.abs().max() > 0


@random_cases(10)
@given(seeds)
def test_memories_found_again_have_the_same_gradient(seed):
    gradients = []
    for steps in (2, 100):
        learner, xs, ys = learner_and_streams(seed, usage=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dntm, "STEPS_KEPT", steps)
            learner(xs, ys).log_likelihood.sum().backward()
        gradients.append([each.grad for each in learner.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@random_cases(10)
@given(seeds)
def test_the_future_is_not_seen(seed):
    learner, xs, ys = learner_and_streams(seed)
    before = learner(xs, ys).log_likelihood[:, :3]
    xs[:, 3:], ys[:, 3:] = 0, 0
    torch.testing.assert_close(learner(xs, ys).log_likelihood[:, :3], before, rtol=0, atol=0)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="cells"):
        DNTMConfig(cells=0)
