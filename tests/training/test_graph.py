"""The whole training step, as it is and as a CUDA graph, does what `train` does update by update."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from lib.tasks.episodes import EpisodeConfig
from lib.training import evaluate, train
from lib.training.graph import WARM_UP, WholeStep, make_capturable
from lib.training.loop import make_optimizer, pick_unroll
from lib.training.stacked import StackedLearners, clip_each, compose_each, train_together
from lib.training.update import Update, counters
from tests.training.drawn import EPISODES, TWENTY, drawn_learners, drawn_tasks
from tests.training.tiny import same, tiny_mann, weights_of

ROOT = Path(__file__).resolve().parents[2]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


class Losses:
    """A tally that keeps every loss, in place: a graph writes them where it found the tensor."""

    def __init__(self, device, learners: tuple = ()):
        self.kept = torch.zeros(TWENTY.updates, *learners, dtype=torch.float64, device=device)
        self.at = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, logits, batch, loss) -> None:
        self.kept.index_copy_(0, self.at.view(1), loss.unsqueeze(0))
        self.at.add_(1)


def whole_step(seeds=(0,), device="cpu", capture=False, episodes=EPISODES):
    """A step for one seed or for several stacked ones: it, what it trains, and the losses that it keeps."""
    device = torch.device(device)
    learners, tasks = drawn_learners(seeds, device=device), drawn_tasks(seeds, device, episodes)
    samplers = [task.train for task in tasks]
    if len(seeds) == 1:
        (learner,), loss = learners, tasks[0].loss
        clip = partial(torch.nn.utils.clip_grad_norm_, list(learner.parameters()), TWENTY.clip)
        done, losses, compose = 0, Losses(device), lambda drawn: samplers[0].compose(*drawn)
    else:
        learner, loss = StackedLearners(learners), torch.func.vmap(tasks[0].loss)
        clip = partial(clip_each, learner.parameters(), TWENTY.clip)
        done, losses, compose = [0] * len(seeds), Losses(device, (len(seeds),)), partial(compose_each, samplers[0])
    optimizer = make_optimizer(learner, TWENTY)
    update = Update(lambda batch: learner(batch.xs, batch.ys), optimizer, loss, clip, losses, *counters(done, device))
    return WholeStep(update, samplers, compose, TWENTY.batch_size, capture), learner, losses.kept


def run(step, updates=TWENTY.updates) -> None:
    for update in range(1, updates + 1):
        step([update] * len(step.samplers))


@pytest.mark.parametrize("episodes", [EPISODES, EpisodeConfig(3, 9, balanced=True)], ids=["at random", "balanced"])
def test_the_step_that_is_captured_gives_the_very_losses_and_weights_of_train(episodes):
    step, learner, losses = whole_step(episodes=episodes)
    run(step)
    (expected,), (task,) = drawn_learners([0]), drawn_tasks([0], episodes=episodes)
    task_losses = []
    loss = type(task).loss

    class Watched(type(task)):
        def loss(self, logits, batch):
            found = loss(self, logits, batch)
            if torch.is_grad_enabled():
                task_losses.append(found.item())
            return found

    train(expected, Watched(*vars(task).values()), TWENTY, unroll="plain", progress=False)
    assert losses.tolist() == task_losses
    assert len(set(task_losses)) == 20
    assert same(weights_of(learner), weights_of(expected))
    assert step.update.number.item() == 20
    assert step.update.first_bad.item() > 20


def test_the_batch_is_a_function_of_its_number_and_not_of_what_was_drawn_before():
    step, sampler = whole_step()[0], drawn_tasks([0])[0].train
    seen = []
    step.update = seen.append
    for index in (3, 1, 3):
        step([index])
        expected = sampler.batch(index, TWENTY.batch_size)
        assert all(torch.equal(a, b) for a, b in zip(seen[-1], expected, strict=True))
    assert not torch.equal(seen[0].xs, seen[1].xs)


@pytest.mark.parametrize("how", ["graph", "compiled-graph"])
def test_without_cuda_a_graph_is_refused_in_a_sentence(how):
    with pytest.raises(ValueError, match="needs a CUDA device, not cpu; try --device cuda or --unroll auto"):
        pick_unroll(tiny_mann(), how, 10)
    with pytest.raises(ValueError, match="needs a CUDA device"):
        train(drawn_learners([0])[0], drawn_tasks([0])[0], TWENTY, unroll=how, progress=False)
    with pytest.raises(ValueError, match="needs a CUDA device"):
        whole_step(capture=True)


def test_on_a_gpu_auto_is_a_graph_of_the_compiled_steps_where_compiling_pays(monkeypatch):
    class OnGpu:
        """A learner whose weights say that they are on a GPU."""

        @staticmethod
        def parameters():
            return iter([type("Weight", (), {"device": torch.device("cuda")})()])

        fast_unroll = staticmethod(lambda: None)
        compiled_unroll = staticmethod(lambda: len)

        def __call__(self, xs, ys, unroll=None): ...

    monkeypatch.setattr("lib.training.loop.find_spec", lambda name: name == "triton")
    monkeypatch.setattr("lib.training.loop.shutil.which", lambda name: name)
    assert pick_unroll(OnGpu(), "auto", 100_000) == ("compiled-graph", len)
    assert pick_unroll(OnGpu(), "auto", 20) == ("graph", None)
    assert pick_unroll(OnGpu(), "graph", 100_000) == ("graph", None)
    assert pick_unroll(OnGpu(), "plain", 100_000) == ("plain", None)
    monkeypatch.setattr("lib.training.loop.find_spec", lambda name: None)
    assert pick_unroll(OnGpu(), "auto", 100_000) == ("graph", None)


def test_an_optimizer_new_or_resumed_is_made_capturable_without_a_change_of_its_state():
    learner, sampler = drawn_learners([0])[0], drawn_tasks([0])[0].train
    optimizer = make_optimizer(learner, TWENTY)
    batch = sampler.batch(1, 2)
    learner(batch.xs, batch.ys).sum().backward()
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state_dict()["state"][0].items()}
    make_capturable(optimizer, torch.device("cpu"))
    assert optimizer.param_groups[0]["capturable"] is True
    assert all(torch.equal(before[name], value) for name, value in optimizer.state_dict()["state"][0].items())


@needs_cuda
@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)], ids=["one", "three stacked"])
def test_a_graph_gives_the_losses_and_weights_of_the_same_step_without_it(seeds):
    captured, learner, losses = whole_step(seeds, "cuda", capture=True)
    run(captured)
    assert captured.graph is not None
    plain, expected, expected_losses = whole_step(seeds, "cuda")
    run(plain)
    torch.testing.assert_close(losses, expected_losses, atol=1e-9, rtol=0)
    assert losses.unique().numel() == losses.numel()
    for a, b in zip(learner.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
    assert captured.update.number.flatten().tolist() == [20] * len(seeds)


@needs_cuda
def test_seeded_again_a_graph_draws_the_batch_of_any_number():
    step, _, _ = whole_step(device="cuda", capture=True)
    sampler = drawn_tasks([0], "cuda")[0].train
    batch = sampler.batch(1, TWENTY.batch_size)
    seen = [torch.empty_like(field) for field in batch]

    def keep(batch):
        for field, place in zip(batch, seen, strict=True):
            place.copy_(field)

    keep.optimizer = step.update.optimizer
    step.update = keep
    for index in (*range(1, WARM_UP + 1), 9, 4, 9):
        step([index])
        expected = sampler.batch(index, TWENTY.batch_size)
        assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True)), index
    assert step.graph is not None


@pytest.mark.parametrize(
    ("device", "hows", "backend"),
    [
        ("cpu", ["plain", "compiled"], ["aot_eager"]),
        pytest.param("cuda", ["plain", "graph", "compiled-graph"], [], marks=needs_cuda),
    ],
)
def test_compiled_the_steps_of_stacked_learners_give_the_same(device, hows, backend):
    """In a process of its own, without run-time checks of shapes, which a compiler cannot see through."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "training" / "stacked_run.py", device, ",".join(hows), *backend],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=580,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("graphs") >= 2, "nothing was compiled"
    first = found.pop("plain")
    assert len(set(first)) > 100
    for how, weights in found.items():
        assert weights == pytest.approx(first, abs=1e-9), how


@needs_cuda
def test_training_with_a_graph_ends_where_plain_training_ends_and_goes_on_from_a_checkpoint(tmp_path):
    def learn(unroll, updates=TWENTY.updates, folder=None):
        learner, task = drawn_learners([0], device="cuda")[0], drawn_tasks([0], "cuda")[0]
        steps = iter(range(10_000))
        until = 10_000 if updates == TWENTY.updates else 3 + updates
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lib.training.loop.time", type("Clock", (), {"monotonic": lambda: next(steps)}))
            return learner, train(learner, task, TWENTY, unroll=unroll, progress=False, folder=folder, until=until)

    expected, plain = learn("plain")
    whole, result = learn("graph")
    _, cut = learn("graph", updates=9, folder=tmp_path)
    assert not cut.complete
    resumed, _ = learn("graph", folder=tmp_path)
    for learner in (whole, resumed):
        for a, b in zip(weights_of(learner), weights_of(expected), strict=True):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=0)
    for line, want in zip(result.log, plain.log, strict=True):
        assert line["loss"] == pytest.approx(want["loss"], abs=1e-5)
        assert line["counts"] == want["counts"]


@needs_cuda
def test_seeds_together_in_a_graph_end_where_each_ends_alone():
    learners = drawn_learners((0, 1), device="cuda")
    train_together(learners, drawn_tasks((0, 1), "cuda"), TWENTY, unroll="graph", progress=False)
    for seed, learner in enumerate(learners):
        alone, task = drawn_learners([seed], device="cuda")[0], drawn_tasks([seed], "cuda")[0]
        train(alone, task, TWENTY, unroll="plain", progress=False)
        for a, b in zip(weights_of(learner), weights_of(alone), strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=0)
        assert evaluate(learner, task, task.test, 1)["counts"] == evaluate(alone, task, task.test, 1)["counts"]


WAITS = """
from tests.training.test_graph import run, whole_step
step, _, _ = whole_step(device="cuda", capture=True)
update = step.update
def waits(batch):
    update(batch)
    update.number.item()
waits.optimizer = update.optimizer
step.update = waits
try:
    run(step)
except ValueError as error:
    print(error)
"""


@needs_cuda
def test_a_step_that_waits_for_the_device_cannot_be_captured_and_the_message_says_what_to_do():
    """In a process of its own: a capture that failed may leave CUDA in a bad state."""
    done = subprocess.run([sys.executable, "-c", WAITS], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert "the training step cannot be captured as a CUDA graph here" in done.stdout, done.stderr
    assert "try --unroll compiled or plain" in done.stdout
