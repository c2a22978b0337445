"""A learning rate that falls: what it is at each update, and who may use it."""

from dataclasses import replace

import pytest
import torch

from lib.training import TrainingConfig, loop, train
from lib.training.loop import rate_left
from lib.training.stacked import train_together
from tests.training.tiny import SHORT, TinyTask, same, tiny_mann, weights_of

FALLING = replace(SHORT, optimizer="adam", rate_falls_from=0.25)


def test_it_stays_and_then_falls_in_a_straight_line_to_nothing():
    left = [rate_left(FALLING, update) for update in range(1, 13)]
    assert left[:3] == [1.0, 1.0, 1.0]
    falls = torch.tensor([1.0, *left[3:], 0.0], dtype=torch.float64).diff()
    torch.testing.assert_close(falls[1:], falls[1:].mean().expand(9))
    assert -0.2 < falls[0] <= 0 and left[-1] > 0
    assert [rate_left(SHORT, update) for update in (1, 12)] == [1.0, 1.0]


def test_training_uses_it(monkeypatch):
    seen, make = [], loop.make_optimizer

    def watched(learner, config):
        optimizer = make(learner, config)
        optimizer.register_step_pre_hook(lambda optimizer, *_: seen.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(loop, "make_optimizer", watched)
    train(tiny_mann(), TinyTask(), FALLING, unroll="plain", progress=False)
    assert seen == [FALLING.learning_rate * rate_left(FALLING, update) for update in range(1, 13)]


def test_a_rate_that_never_falls_is_the_rate_without_the_setting():
    learners = tiny_mann(), tiny_mann()
    for learner, config in zip(learners, (SHORT, replace(SHORT, rate_falls_from=1.0)), strict=True):
        train(learner, TinyTask(), config, unroll="plain", progress=False)
    assert same(*map(weights_of, learners))


def test_who_cannot_use_it_says_so():
    with pytest.raises(ValueError, match="from 0 to 1"):
        TrainingConfig(rate_falls_from=1.5)
    with pytest.raises(ValueError, match="learning rate falls"):
        train_together([tiny_mann(0), tiny_mann(1)], [TinyTask(), TinyTask()], FALLING, progress=False)
