"""The training loop: it learns, it logs, it evaluates, and it stops for a loss that is not finite."""

import json
import math
import time
from dataclasses import replace

import jaxtyping
import pytest
import torch

from lib.baselines.feedforward import FeedForward, FeedForwardConfig
from lib.memory import addressing
from lib.training import TrainingConfig, evaluate, loop, pick_device, train
from lib.training.checkpoint import CheckpointError, load_checkpoint, read_details
from lib.training.loop import NonFiniteLoss, make_optimizer, pick_unroll
from tests.training.tiny import SHORT, TINY, TinyTask, same, tiny_mann, weights_of


def lines_without_time(log: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in log]


def read_log(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def learn_the_names(learner) -> dict:
    """The validation after a hundred updates. Guessing costs 0.69 a step; knowing all but the first name 0.07."""
    task = TinyTask()
    assert evaluate(learner, task, task.validation, 4)["loss"] > 0.65
    config = replace(
        SHORT, updates=100, batch_size=16, learning_rate=3e-3, log_every=50, checkpoint_every=50, validate_every=50
    )
    return train(learner, task, replace(config, validation_batches=4), progress=False).log[-1]["validation"]


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_a_tiny_mann_learns_which_picture_is_called_what(controller):
    """With a feed-forward controller nothing but the memory can carry the name of a picture to a later step."""
    validation = learn_the_names(tiny_mann(1, replace(TINY, controller=controller, hidden=16)))
    assert validation["loss"] < 0.2
    assert min(validation["accuracy"][1:6]) > 0.9


def test_without_reading_a_feedforward_controller_learns_no_names(monkeypatch):
    monkeypatch.setattr(addressing, "read", lambda weights, memory: torch.zeros_like(weights @ memory))
    validation = learn_the_names(tiny_mann(1, replace(TINY, controller="feedforward", hidden=16)))
    assert validation["loss"] > 0.65


def test_without_memory_a_network_learns_no_names():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = FeedForward(FeedForwardConfig(features=4, classes=2, hidden=16))
    # The last label is known but not whose it was.
    assert learn_the_names(learner)["loss"] == pytest.approx(math.log(2), abs=0.03)


def test_every_update_sees_the_batch_of_its_number(monkeypatch):
    task, asked = TinyTask(), []
    batch = type(task.train).batch
    monkeypatch.setattr(type(task.train), "batch", lambda s, i, n: asked.append((s.stream, i, n)) or batch(s, i, n))
    train(tiny_mann(), task, SHORT, progress=False)
    assert [number for stream, number, _ in asked if stream == "train"] == list(range(1, 13))
    assert [number for stream, number, _ in asked if stream == "validation"] == [0, 1, 0, 1]
    assert {size for stream, _, size in asked if stream == "train"} == {3}


def test_the_log_has_its_lines_where_the_config_says(tmp_path):
    heard = []
    result = train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, progress=False, on_log=heard.append)
    assert result.complete
    assert result.updates == 12
    assert result.log == heard == read_log(tmp_path) == read_details(tmp_path / "checkpoint.safetensors")["log"]
    assert [line["update"] for line in heard] == [2, 4, 6, 8, 10, 12]
    assert [line["update"] for line in heard if "validation" in line] == [6, 12]
    assert all(line["counts"][0] <= 2 * 3 * 2 and sum(line["counts"]) == 2 * 3 * 10 for line in heard)
    assert [line["seconds"] for line in heard] == sorted(line["seconds"] for line in heard)


def test_the_last_update_is_logged_validated_and_kept_wherever_it_falls(tmp_path):
    result = train(tiny_mann(), TinyTask(), replace(SHORT, updates=7), folder=tmp_path, progress=False)
    assert [line["update"] for line in result.log] == [2, 4, 6, 7]
    assert "validation" in result.log[-1]
    assert sum(result.log[-1]["counts"]) == 3 * 10  # of one update
    assert read_details(tmp_path / "checkpoint.safetensors")["update"] == 7


def test_the_logged_loss_is_the_mean_of_the_updates_losses():
    task, losses = TinyTask(), []
    loss = task.loss
    task.loss = lambda logits, batch: losses.append(loss(logits, batch)) or losses[-1]
    result = train(tiny_mann(), task, replace(SHORT, validate_every=100, updates=10), progress=False)
    for i, line in enumerate(result.log):
        assert line["loss"] == pytest.approx(torch.stack(losses[2 * i : 2 * i + 2]).mean().item(), rel=1e-6)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train(tiny_mann(), TinyTask(), SHORT, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_training_is_a_function_of_config_and_seed():
    first, second, third = tiny_mann(), tiny_mann(), tiny_mann(1)
    for learner in (first, second, third):
        torch.rand(5)
        train(learner, TinyTask(), SHORT, progress=False)
    assert same(weights_of(first), weights_of(second))
    assert not same(weights_of(first), weights_of(third))
    assert not same(weights_of(first), weights_of(tiny_mann()))


def test_validation_has_no_effect_on_training():
    often, never = tiny_mann(), tiny_mann()
    train(often, TinyTask(), replace(SHORT, validate_every=2), progress=False)
    train(never, TinyTask(), replace(SHORT, validate_every=1000), progress=False)
    assert same(weights_of(often), weights_of(never))


def test_progress_shows_loss_and_accuracy_by_instance(capsys):
    train(tiny_mann(), TinyTask(), SHORT, progress=True)
    shown = capsys.readouterr().err
    assert "loss 0." in shown
    assert "by instance 1: " in shown
    assert "12/12" in shown
    train(tiny_mann(), TinyTask(), SHORT, progress=False)
    assert capsys.readouterr().err == ""


def test_the_optimizer_and_the_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.updates, config.batch_size) == (100_000, 16)
    (group,) = make_optimizer(tiny_mann(), config).param_groups
    assert (group["lr"], group["alpha"], group["momentum"]) == (1e-4, 0.95, 0.9)
    assert not group["weight_decay"]


def test_rmsprop_is_that_of_the_formula():
    """v ← 0.95 v + 0.05 g²; b ← 0.9 b + g / (√v + ε); θ ← θ - 1e-4 b."""
    learner, task = tiny_mann().double(), TinyTask(torch.float64)
    config = replace(SHORT, updates=3, learning_rate=1e-2, clip=1e9)
    values = [w.double() for w in weights_of(learner)]
    v, b = ([torch.zeros_like(w) for w in values] for _ in range(2))
    by_hand = tiny_mann().double()
    for update in range(1, 4):
        batch = task.train.batch(update, 3)
        with torch.no_grad():
            for parameter, value in zip(by_hand.parameters(), values, strict=True):
                parameter.copy_(value)
        loss = task.loss(by_hand(batch.xs, batch.ys), batch)
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        for i, g in enumerate(gradients):
            v[i] = 0.95 * v[i] + 0.05 * g * g
            b[i] = 0.9 * b[i] + g / (v[i].sqrt() + 1e-8)
            values[i] = values[i] - 1e-2 * b[i]
    train(learner, task, config, progress=False)
    for found, expected in zip(learner.parameters(), values, strict=True):
        torch.testing.assert_close(found.detach(), expected, atol=1e-9, rtol=1e-7)


def test_adam_is_pytorchs_at_the_given_rate():
    learner, by_hand, task = tiny_mann(), tiny_mann(), TinyTask()
    config = replace(SHORT, updates=3, optimizer="adam", learning_rate=1e-2, clip=1e9)
    train(learner, task, config, progress=False)
    optimizer = torch.optim.Adam(by_hand.parameters(), lr=1e-2)
    for update in range(1, 4):
        batch = task.train.batch(update, 3)
        optimizer.zero_grad()
        task.loss(by_hand(batch.xs, batch.ys), batch).backward()
        optimizer.step()
    for found, expected in zip(learner.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="sgd"):
        replace(SHORT, optimizer="sgd")


def test_a_large_gradient_is_scaled_down_to_the_given_norm(monkeypatch):
    monkeypatch.setattr(loop, "make_optimizer", lambda learner, _: torch.optim.SGD(learner.parameters(), lr=1.0))
    task = TinyTask()
    mean = task.loss
    task.loss = lambda logits, batch: 1e6 * mean(logits, batch)
    learner = tiny_mann()
    before = weights_of(learner)
    train(learner, task, replace(SHORT, updates=1, clip=0.5), progress=False)
    moved = torch.cat([(a - b).flatten() for a, b in zip(before, weights_of(learner), strict=True)])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-3)


def test_evaluate_changes_no_weight_and_gives_the_same_again():
    learner, task = tiny_mann(), TinyTask()
    before = weights_of(learner)
    first = evaluate(learner, task, task.validation, 3, batch_size=4)
    assert sum(first["counts"]) == 3 * 4 * 10
    assert evaluate(learner, task, task.validation, 3, batch_size=4) == first
    assert same(before, weights_of(learner))
    assert all(p.grad is None for p in learner.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_the_mode_of_the_learner_as_it_was(training):
    learner, task = tiny_mann().train(training), TinyTask()
    modes = []
    learner.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    evaluate(learner, task, task.validation, 1)
    assert modes == [False]
    assert learner.training is training


def test_evaluate_counts_what_the_learner_says():
    """A learner that always says 1 is right where the label is 1."""
    learner, task = tiny_mann(), TinyTask()
    with torch.no_grad():
        learner.to_logits.weight.zero_()
        learner.to_logits.bias.copy_(torch.tensor([0.0, 3.0]))
    summary = evaluate(learner, task, task.validation, 5, batch_size=8)
    ones = sum((task.validation.batch(i, 8).ys == 1).sum().item() for i in range(5))
    assert sum(summary["hits"]) == ones


class BadAt(TinyTask):
    """A task whose loss is made bad at one update."""

    def __init__(self, update: int, make_bad):
        super().__init__()
        self.calls, self.update, self.make_bad = 0, update, make_bad

    def loss(self, logits, batch):
        loss = super().loss(logits, batch)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls == self.update:
                return self.make_bad(loss, logits)
        return loss


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("update", [1, 7, 8, 12])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_config(tmp_path, update, value):
    task = BadAt(update, lambda loss, logits: loss * 0 + value)
    with pytest.raises(NonFiniteLoss) as caught:
        train(tiny_mann(), task, SHORT, folder=tmp_path, identity={"run": "tiny/nan"}, progress=False)
    message = str(caught.value)
    assert f"at update {update};" in message
    assert "tiny/nan" in message
    assert '"learning_rate": 0.001' in message
    path = tmp_path / "checkpoint.safetensors"
    assert path.exists() is (update > 4)
    if update > 4:
        learner = tiny_mann(5)
        assert load_checkpoint(path, learner)["update"] == (update - 1) // 4 * 4
        assert all(torch.isfinite(p).all() for p in learner.parameters())
        assert len(read_log(tmp_path)) == (update - 1) // 4 * 2


@pytest.mark.parametrize("update", [1, 4, 7, 12])
def test_weights_that_are_not_finite_are_never_kept(tmp_path, update):
    """A finite loss can have a gradient that is not: √0 has an infinite slope."""
    task = BadAt(update, lambda loss, logits: loss + (logits - logits.detach()).abs().sum().sqrt())
    learner = tiny_mann()
    with pytest.raises(NonFiniteLoss, match="update"):
        train(learner, task, SHORT, folder=tmp_path, progress=False)
    path = tmp_path / "checkpoint.safetensors"
    if path.exists():
        load_checkpoint(path, learner)
        assert all(torch.isfinite(p).all() for p in learner.parameters())


def test_a_run_that_is_out_of_time_is_left_at_a_checkpoint(tmp_path):
    learner = tiny_mann()
    task = TinyTask()
    asked = []
    until = time.monotonic() + 3600

    class Clock:
        """A clock that stands still until update 7 is drawn."""

        @staticmethod
        def monotonic():
            return until + 1 if asked and asked[-1] >= 7 else until - 1

    batch = type(task.train).batch
    task.train = type("Watched", (), {"batch": lambda _, i, n: asked.append(i) or batch(TinyTask().train, i, n)})()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", Clock)
        result = train(learner, task, SHORT, folder=tmp_path, progress=False, until=until)
    assert not result.complete
    details = read_details(tmp_path / "checkpoint.safetensors")
    assert result.updates == details["update"]
    assert [line["update"] for line in result.log if line["update"] > result.updates] == []
    finished = train(learner, TinyTask(), SHORT, folder=tmp_path, progress=False)
    whole = tiny_mann()
    uninterrupted = train(whole, TinyTask(), SHORT, progress=False)
    assert finished.complete
    assert same(weights_of(learner), weights_of(whole))
    assert lines_without_time(finished.log) == lines_without_time(uninterrupted.log)


def test_the_time_counted_is_that_of_all_processes_together(tmp_path):
    first = train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, progress=False)
    again = train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, progress=False)
    kept = read_details(tmp_path / "checkpoint.safetensors")["seconds"]
    assert first.seconds >= kept > 0
    assert again.seconds >= kept


@pytest.mark.parametrize("what", ["checkpoint_every", "validate_every"])
def test_checkpoints_and_validations_between_two_lines_of_the_log_are_refused(what):
    with pytest.raises(ValueError, match=rf"{what} \(3\) must be a multiple of log_every \(2\)"):
        replace(SHORT, **{what: 3})


def test_a_checkpoint_of_another_run_is_refused_and_left_alone(tmp_path):
    train(tiny_mann(), TinyTask(), SHORT, folder=tmp_path, identity={"data": "abc"}, progress=False)
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    for identity, config in (
        ({"data": "abd"}, SHORT),
        ({"data": "abc"}, replace(SHORT, learning_rate=0.1)),
        ({}, SHORT),
    ):
        learner = tiny_mann(3)
        before = weights_of(learner)
        with pytest.raises(CheckpointError, match="another run") as caught:
            train(learner, TinyTask(), config, folder=tmp_path, identity=identity, progress=False)
        assert str(path) in str(caught.value)
        assert path.read_bytes() == content
        assert same(before, weights_of(learner)), "a refused checkpoint must not change the learner"


def test_a_finished_run_is_not_trained_again(tmp_path, monkeypatch):
    first = tiny_mann()
    train(first, TinyTask(), SHORT, folder=tmp_path, progress=False)
    again = tiny_mann(4)
    task = TinyTask()
    monkeypatch.setattr(type(task.train), "batch", lambda *_: pytest.fail("no batch is needed"))
    result = train(again, task, SHORT, folder=tmp_path, progress=False)
    assert result.complete
    assert len(result.log) == 6
    assert same(weights_of(first), weights_of(again))


def test_auto_is_cuda_where_there_is_one_and_else_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("name", ["cuda:99", "nonsense", "", "cpu:x", "mps", "xpu"])
def test_a_device_that_is_not_here_is_an_error_that_says_so(name):
    with pytest.raises(ValueError, match="cannot be used here") as caught:
        pick_device(name)
    assert repr(name) in str(caught.value)
    assert "--device" in str(caught.value)


@pytest.mark.parametrize("name", ["updates", "batch_size", "log_every"])
def test_a_size_of_nothing_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, it is 0"):
        TrainingConfig(**{name: 0})


def test_what_cannot_be_captured_is_refused_as_a_graph_and_not_picked(monkeypatch):
    monkeypatch.setattr("lib.training.loop.require_cuda", lambda _: None)
    with pytest.raises(ValueError, match="no CUDA graph can hold a run whose episodes grow"):
        pick_unroll(tiny_mann(), "graph", 10, capturable=False)
    assert pick_unroll(tiny_mann(), "graph", 10)[0] == "graph"
