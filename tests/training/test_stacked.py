"""Learners trained together end where each would have ended alone."""

import math
from dataclasses import replace

import pytest
import torch

from lib.baselines.feedforward import FeedForward, FeedForwardConfig
from lib.baselines.lstm import LSTM, LSTMConfig
from lib.methods.flmn import FLMNConfig
from lib.tasks.episodes import EpisodeConfig
from lib.training import loop, train
from lib.training.checkpoint import CheckpointError, load_checkpoint, read_details
from lib.training.loop import NonFiniteLoss, make_optimizer
from lib.training.stacked import StackedLearners, clip_each, compose_each, train_together
from tests.training.drawn import SMALL, TWENTY, drawn_learners, drawn_tasks
from tests.training.tiny import same, weights_of

SEEDS = (0, 1, 2)


def alone(seed: int, config=TWENTY, learner_config=SMALL, **options):
    (learner,), (task,) = drawn_learners([seed], learner_config), drawn_tasks([seed])
    return learner, train(learner, task, config, unroll="plain", progress=False, **options)


def together(seeds=SEEDS, config=TWENTY, learner_config=SMALL, **options):
    learners = drawn_learners(seeds, learner_config)
    return learners, train_together(learners, drawn_tasks(seeds), config, unroll="plain", progress=False, **options)


def test_with_adam_seeds_together_end_where_each_ends_alone(tmp_path):
    adam = replace(TWENTY, optimizer="adam")
    learners, results = together(config=adam)
    for seed, learner, result in zip(SEEDS, learners, results, strict=True):
        assert_alike(learner, result, *alone(seed, config=adam))
    folders = [tmp_path / str(seed) for seed in SEEDS]
    identities = [{"run": f"tiny/{seed}"} for seed in SEEDS]
    with pytest.raises(KeyboardInterrupt):
        alone(SEEDS[0], config=adam, folder=folders[0], identity=identities[0], on_log=stop_at_update_6)
    with pytest.raises(ValueError, match="run them one by one"):
        together(config=adam, folders=folders, identities=identities)


def stop_at_update_6(line):
    if line["update"] == 6:
        raise KeyboardInterrupt


def assert_alike(learner, result, other, expected):
    """The same run, but for rounding in float64 and the time it took."""
    assert result.updates == expected.updates
    assert result.complete is expected.complete
    for a, b in zip(weights_of(learner), weights_of(other), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
    assert [line["update"] for line in result.log] == [line["update"] for line in expected.log]
    for line, want in zip(result.log, expected.log, strict=True):
        assert ("validation" in line) is ("validation" in want)
        for part, wanted in ((line, want), (line.get("validation", line), want.get("validation", want))):
            assert part["loss"] == pytest.approx(wanted["loss"], abs=1e-6)  # summed in float32
            assert (part["hits"], part["counts"]) == (wanted["hits"], wanted["counts"])


@pytest.mark.parametrize(
    "learner_config",
    [
        SMALL,
        replace(SMALL, gate="constant"),
        replace(SMALL, gate="fixed"),
        replace(SMALL, controller="feedforward", keys="shared", write_to="own"),
        FLMNConfig(classes=3, hidden=8, slots=6, width=4),
    ],
    ids=["as in the paper", "constant gate", "fixed gate", "other readings", "FLMN"],
)
def test_three_seeds_together_end_where_each_ends_alone(learner_config):
    learners, results = together(learner_config=learner_config)
    for seed, learner, result in zip(SEEDS, learners, results, strict=True):
        assert_alike(learner, result, *alone(seed, learner_config=learner_config))
    assert len({result.log[-1]["loss"] for result in results}) == 3


def test_the_gradient_of_each_learner_is_clipped_by_its_own_norm():
    """With a small bound, so that every gradient is scaled; one norm over all learners would scale otherwise."""
    config = replace(TWENTY, clip=0.05)
    learners, results = together(config=config)
    for seed, learner, result in zip(SEEDS, learners, results, strict=True):
        assert_alike(learner, result, *alone(seed, config))
    unclipped, _ = together()
    assert not torch.allclose(weights_of(learners[0])[0], weights_of(unclipped[0])[0], atol=1e-6)


def test_clip_each_scales_as_pytorch_does_for_one():
    parameters = [torch.nn.Parameter(torch.zeros(2, 3, 4)), torch.nn.Parameter(torch.zeros(2))]
    gradients = [torch.randn(2, 3, 4).double(), torch.randn(2).double()]
    gradients = [gradient * torch.tensor([10.0, 0.01]).view(-1, *[1] * (gradient.ndim - 1)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.data = parameter.data.double()
        parameter.grad = gradient.clone()
    norms = clip_each(parameters, 1.0)
    for index in range(2):
        one = [torch.nn.Parameter(torch.zeros_like(gradient[index])) for gradient in gradients]
        for parameter, gradient in zip(one, gradients, strict=True):
            parameter.grad = gradient[index].clone()
        torch.testing.assert_close(norms[index], torch.nn.utils.clip_grad_norm_(one, 1.0))
        for parameter, stacked in zip(one, parameters, strict=True):
            torch.testing.assert_close(stacked.grad[index], parameter.grad)
    assert norms[0] > 1.0 > norms[1]


@pytest.mark.parametrize("episodes", [EpisodeConfig(3, 9), EpisodeConfig(3, 9, balanced=True)])
def test_each_learner_meets_the_batches_that_it_meets_alone(episodes):
    samplers = [task.train for task in drawn_tasks(SEEDS, episodes=episodes)]
    randoms = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    drawn = [sampler.draw(random, 4) for sampler, random in zip(samplers, randoms, strict=True)]
    batch = compose_each(samplers[0], drawn)
    assert batch.xs.shape == (3, 4, 9, 400)
    for index, sampler in enumerate(samplers):
        own = sampler.compose(sampler.draw(torch.Generator().manual_seed(SEEDS[index]), 4))
        assert torch.equal(batch.ys[index], own.ys)
        assert torch.equal(batch.characters[index], own.characters)
        torch.testing.assert_close(batch.xs[index], own.xs, atol=1e-6, rtol=0)


def test_a_feedforward_baseline_can_be_stacked_and_pytorchs_lstm_is_refused():
    learners = [FeedForward(FeedForwardConfig(features=4, classes=2, hidden=5)).double() for _ in range(2)]
    xs, ys = torch.rand(2, 3, 6, 4).double(), torch.randint(2, (2, 3, 6))
    expected = torch.stack([learner(x, y) for learner, x, y in zip(learners, xs, ys, strict=True)])
    torch.testing.assert_close(StackedLearners(learners)(xs, ys), expected)
    with pytest.raises(ValueError, match="train it alone"):
        StackedLearners([LSTM(LSTMConfig(4, 2, 5))])


def test_learners_or_episodes_that_differ_are_refused():
    learners = [drawn_learners([0])[0], drawn_learners([1], replace(SMALL, hidden=9))[0]]
    with pytest.raises(ValueError, match="one config"):
        train_together(learners, drawn_tasks((0, 1)), TWENTY, progress=False)
    tasks = [*drawn_tasks([0]), *drawn_tasks([1])]
    with pytest.raises(ValueError, match="one bank"):
        train_together(drawn_learners((0, 1)), tasks, TWENTY, progress=False)


def test_each_seed_has_its_own_checkpoint_and_goes_on_from_it_alone_or_together(tmp_path):
    """Stopped on the way; then one goes on alone, and then all together, though they stand at different updates."""
    folders = [tmp_path / str(seed) for seed in SEEDS]
    identities = [{"run": f"tiny/{seed}"} for seed in SEEDS]
    runs = {"folders": folders, "identities": identities}
    steps = iter(range(100))

    class Clock:
        """Time is up at the sixth look at the clock of the loop, of whoever trains."""

        @staticmethod
        def monotonic():
            return next(steps)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib.training.stacked.time", Clock)
        _, results = together(until=15, **runs)
    stopped = [result.updates for result in results]
    assert len(set(stopped)) == 1
    assert stopped[0] in (4, 8, 12)
    assert not any(result.complete for result in results)
    assert [line["update"] for line in results[0].log][-1] == stopped[0]

    step, other = stopped[0], tmp_path / "whole"
    with pytest.MonkeyPatch.context() as patch:  # killed four updates later

        def die(*arguments):
            save(*arguments)
            raise KeyboardInterrupt

        save = loop.save
        patch.setattr(loop, "save", die)
        with pytest.raises(KeyboardInterrupt):
            alone(1, folder=folders[1], identity=identities[1])
    standing = [read_details(folder / "checkpoint.safetensors")["update"] for folder in folders]
    assert standing == [step, step + 4, step]

    learners, results = together(**runs)
    for seed, learner, result in zip(SEEDS, learners, results, strict=True):
        expected = alone(seed, folder=other / str(seed), identity=identities[seed])
        assert_alike(learner, result, *expected)
        # The checkpoint is that of a run alone: the optimizer's state, too.
        kept = drawn_learners([9])[0], drawn_learners([9])[0]
        optimizers = [make_optimizer(learner, TWENTY) for learner in kept]
        for own, optimizer, folder in zip(kept, optimizers, (folders[seed], other / str(seed)), strict=True):
            details = load_checkpoint(folder / "checkpoint.safetensors", own, optimizer)
            assert details["update"] == 20
        first, second = (optimizer.state_dict()["state"] for optimizer in optimizers)
        for index, state in second.items():
            assert state.keys() == first[index].keys()
            for name, value in state.items():
                torch.testing.assert_close(first[index][name], value, atol=1e-9, rtol=0)
    trained_by = read_details(folders[0] / "checkpoint.safetensors")["trained_by"]
    assert [part["together"] for part in trained_by] == [3, 3]
    assert [part["from_update"] for part in trained_by] == [1, step + 1]

    # Nothing is left to do.
    again, results = together(**runs)
    assert all(result.complete and result.updates == 20 for result in results)
    for learner, other in zip(learners, again, strict=True):
        assert same(weights_of(learner), weights_of(other))


def test_a_checkpoint_of_another_seed_is_refused(tmp_path):
    together((0,), folders=[tmp_path], identities=[{"run": "tiny/0"}])
    with pytest.raises(CheckpointError, match="another run"):
        together((1,), folders=[tmp_path], identities=[{"run": "tiny/1"}])


def test_a_loss_that_is_not_finite_names_the_seed_that_had_it():
    learners = drawn_learners(SEEDS)
    with torch.no_grad():
        learners[1].to_logits.bias.fill_(math.nan)
    identities = [{"run": f"tiny/{seed}"} for seed in SEEDS]
    with pytest.raises(NonFiniteLoss, match=r"at update 1;.*tiny/1") as caught:
        train_together(learners, drawn_tasks(SEEDS), TWENTY, identities=identities, unroll="plain", progress=False)
    assert "tiny/0" not in str(caught.value)
