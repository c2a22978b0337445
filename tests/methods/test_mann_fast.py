"""The fast form of MANN against the plain one: values, states, gradients, and a training run."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import kernels
from lib.baselines.feedforward import FeedForward, FeedForwardConfig
from lib.baselines.lstm import LSTM, LSTMConfig
from lib.methods.mann import MANN, MANNConfig
from lib.methods.mann_fast import fast_unroll
from lib.training import TrainingConfig, train
from lib.training.loop import pick_unroll
from tests.cases import random_cases, seeds
from tests.methods.test_mann import TINY, configs, random_episodes, random_mann
from tests.training.tiny import TinyTask

needs_a_compiler = pytest.mark.skipif(not kernels.compiler(), reason="needs a C compiler")


@needs_a_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_there_is_a_compiler_there_is_a_kernel(dtype):
    kernels.load("mann", dtype)


# Also sizes at which the kernel's blocks of 16 slots are whole, or leave a rest.
blocks = st.builds(replace, configs, slots=st.sampled_from([16, 17, 35]), reads=st.integers(1, 5))


def results(learner: MANN, xs: torch.Tensor, ys: torch.Tensor, unroll) -> dict[str, torch.Tensor]:
    """Logits of a batch, and the gradients of a random function of them by the inputs and by every weight."""
    learner.zero_grad()
    inputs = xs.clone().requires_grad_()
    logits = learner(inputs, ys, unroll)
    random = torch.Generator().manual_seed(1)
    (logits * torch.randn(logits.shape, generator=random, dtype=logits.dtype)).sum().backward()
    gradients = {name: parameter.grad.clone() for name, parameter in learner.named_parameters()}
    return {"logits": logits.detach(), "inputs": inputs.grad, **gradients}


def compare(learner: MANN, xs: torch.Tensor, ys: torch.Tensor, unroll) -> None:
    plain, fast = results(learner, xs, ys, None), results(learner, xs, ys, unroll)
    assert plain.keys() == fast.keys()
    for name, expected in plain.items():
        largest = expected.abs().max().item()
        torch.testing.assert_close(fast[name], expected, atol=1e-9 * (1 + largest), rtol=0, msg=lambda m, n=name: n + m)


@needs_a_compiler
@random_cases(60)
@given(configs | blocks, seeds, st.integers(1, 3), st.integers(1, 13), st.sampled_from([0.3, 1.0]))
def test_values_and_gradients_are_those_of_the_plain_form(config, seed, batch, length, scale):
    learner = random_mann(config, seed, scale)
    compare(learner, *random_episodes(config, seed + 1, batch, length), fast_unroll(learner))


@needs_a_compiler
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("keys", ["separate", "shared"])
@pytest.mark.parametrize("write_to", ["all", "own"])
def test_so_they_are_at_the_papers_sizes_where_slots_are_used_again(controller, keys, write_to):
    config = MANNConfig(features=9, controller=controller, keys=keys, write_to=write_to)
    learner = random_mann(config, 3, scale=0.1)
    compare(learner, *random_episodes(config, 4, batch=2, length=45), fast_unroll(learner))


@needs_a_compiler
@pytest.mark.parametrize("batch", [1, 5, 35])
def test_threads_share_a_batch_and_change_nothing(two_threads, batch):
    config = MANNConfig(features=4, classes=3, hidden=9, slots=11, width=5, reads=4)
    learner = random_mann(config, 3)
    episodes = random_episodes(config, 4, batch, length=6)
    in_turn = random_mann(config, 3)
    compare(learner, *episodes, fast_unroll(learner))
    shared = results(learner, *episodes, fast_unroll(learner))
    torch.set_num_threads(1)
    for name, expected in results(in_turn, *episodes, fast_unroll(in_turn)).items():
        torch.testing.assert_close(shared[name], expected, atol=1e-12, rtol=1e-12, msg=lambda m, n=name: n + m)


@needs_a_compiler
def test_an_episode_gives_the_same_to_the_last_bit_whatever_stands_beside_it():
    learner = MANN(MANNConfig(features=9))
    projected = torch.randn(35, 6, len(learner.from_input.bias), generator=torch.Generator().manual_seed(0))
    fast = fast_unroll(learner)
    with torch.no_grad():
        together, _ = fast(projected, learner.initial_state(35))
        for i in (0, 16, 34):
            alone, _ = fast(projected[i : i + 1], learner.initial_state(1))
            assert torch.equal(alone[0], together[i])


@needs_a_compiler
def test_gradients_in_single_precision_agree_to_its_rounding():
    learner = MANN(MANNConfig(features=9))
    xs, ys = random_episodes(learner.config, 4, batch=4, length=40, dtype=torch.float32)
    plain, fast = results(learner, xs, ys, None), results(learner, xs, ys, fast_unroll(learner))
    for name, expected in plain.items():
        assert (fast[name] - expected).norm() <= 1e-4 * expected.norm(), name


@needs_a_compiler
def test_what_it_cannot_do_it_leaves_to_the_plain_form():
    learner = MANN(TINY)
    fast = fast_unroll(learner)
    xs, ys = random_episodes(TINY, 4, batch=2, length=5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        learner(xs.float(), ys, fast)
    learner.double()
    torch.testing.assert_close(learner(xs, ys, fast), learner(xs, ys))


@needs_a_compiler
@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_the_state_goes_on_from_one_call_to_the_next(controller):
    config = MANNConfig(4, 3, controller, hidden=5, slots=7, width=3, reads=2)
    learner = random_mann(config, 5)
    projected = torch.randn(2, 9, len(learner.from_input.bias), dtype=torch.float64)
    fast = fast_unroll(learner)
    with torch.no_grad():
        expected, last = learner.unroll(projected, learner.initial_state(2))
        first_half, state = fast(projected[:, :4], learner.initial_state(2))
        second_half, state = fast(projected[:, 4:], state)
    torch.testing.assert_close(torch.cat([first_half, second_half], dim=1), expected)
    for name in ("hidden", "cell", "read"):
        torch.testing.assert_close(getattr(state, name), getattr(last, name), msg=lambda m, n=name: n + m)
    assert (state.least_used.sum(-1) == 1).all()
    torch.testing.assert_close(without_order(state), without_order(last))


def without_order(state) -> torch.Tensor:
    """All that is kept of the slots, whatever their order: slots that tie but for rounding may change places."""
    weights = [state.read_weights.transpose(1, 2), state.write_weights.transpose(1, 2)]
    slots = torch.cat([state.memory, state.usage.unsqueeze(2), *weights], dim=2)
    return slots.transpose(1, 2) @ slots


@needs_a_compiler
def test_a_hundred_updates_in_single_precision_give_the_losses_of_the_plain_form():
    config = TrainingConfig(
        updates=100, batch_size=4, log_every=1, validate_every=100, validation_batches=1, checkpoint_every=100
    )
    losses = {}
    for how in ("plain", "fast"):
        torch.manual_seed(0)
        learner = MANN(MANNConfig(features=4, classes=3))
        task = TinyTask(length=20)
        losses[how] = [line["loss"] for line in train(learner, task, config, unroll=how, progress=False).log]
    torch.testing.assert_close(losses["fast"], losses["plain"], atol=1e-4, rtol=0)
    assert losses["plain"][-1] != losses["plain"][0]


@pytest.mark.parametrize("learner", [LSTM(LSTMConfig(4, 2, 3)), FeedForward(FeedForwardConfig(4, 2, 3))])
def test_the_baselines_are_never_compiled(learner):
    assert pick_unroll(learner, "auto", 100_000) == ("plain", None)
    with pytest.raises(ValueError, match="there is no compiled form of"):
        pick_unroll(learner, "compiled", 100_000)


@needs_a_compiler
def test_auto_takes_the_fast_form_and_names_it():
    assert pick_unroll(MANN(TINY), "auto", 10)[0] == "fast"
    assert pick_unroll(MANN(TINY), "plain", 10) == ("plain", None)
    assert pick_unroll(MANN(TINY), "compiled", 10)[0] == "compiled"
    with pytest.raises(ValueError, match=r"no way 'quick' to unroll; known: auto, plain, fast, compiled"):
        pick_unroll(MANN(TINY), "quick", 10)


def test_without_a_fast_form_only_long_runs_are_compiled_and_only_with_a_compiler(monkeypatch):
    monkeypatch.setattr(MANN, "fast_unroll", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    assert pick_unroll(MANN(TINY), "auto", 20) == ("plain", None)
    assert pick_unroll(MANN(TINY), "auto", 100_000)[0] == "compiled"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert pick_unroll(MANN(TINY), "auto", 100_000) == ("plain", None)
    with pytest.raises(ValueError, match="there is no fast form of MANN here"):
        pick_unroll(MANN(TINY), "fast", 20)


def test_other_dtypes_have_no_fast_form():
    assert fast_unroll(MANN(TINY).bfloat16()) is None


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """A cache folder without kernels, and none loaded."""
    monkeypatch.setenv("BOOK_CACHE_DIR", str(tmp_path))
    kernels.load.cache_clear()
    kernels.available.cache_clear()
    yield tmp_path
    kernels.load.cache_clear()
    kernels.available.cache_clear()


@pytest.mark.parametrize("compiler", ["/nowhere/cc", "false"])
def test_where_nothing_compiles_the_plain_form_runs_and_the_log_says_why(nothing_built, monkeypatch, caplog, compiler):
    monkeypatch.setenv("CC", compiler)
    with caplog.at_level(logging.WARNING):
        assert fast_unroll(MANN(TINY)) is None
        assert fast_unroll(MANN(TINY)) is None
    assert len(caplog.records) == 1
    assert "mann.c cannot be built" in caplog.text
    assert pick_unroll(MANN(TINY), "auto", 10) == ("plain", None)


def test_without_a_compiler_on_the_path_the_plain_form_runs(nothing_built, monkeypatch, caplog):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert fast_unroll(MANN(TINY)) is None
    assert "no C compiler" in caplog.text


@needs_a_compiler
def test_a_kernel_is_built_once_and_found_again(nothing_built, monkeypatch):
    assert fast_unroll(MANN(TINY)) is not None
    (built,) = (nothing_built / "kernels").iterdir()
    kernels.load.cache_clear()
    kernels.available.cache_clear()
    monkeypatch.setattr(kernels, "_build", None)  # may not be called again
    assert fast_unroll(MANN(TINY)) is not None
    assert [built] == list((nothing_built / "kernels").iterdir())


def test_a_damaged_kernel_says_which_file_to_delete(nothing_built, monkeypatch, caplog):
    monkeypatch.setattr(kernels, "_build", lambda *arguments: (nothing_built / "kernels").mkdir())
    monkeypatch.setenv("CC", "cc")
    assert fast_unroll(MANN(TINY)) is None
    assert "cannot be loaded" in caplog.text
    assert "delete it" in caplog.text


@needs_a_compiler
def test_where_threads_cannot_be_had_the_kernel_does_without_and_the_log_says_so(nothing_built, monkeypatch, caplog):
    built_with = []
    run = kernels.subprocess.run

    def without_openmp(command, **options):
        built_with.append(command)
        return run(["false"] if "-fopenmp" in command else command, **options)

    monkeypatch.setattr(kernels.subprocess, "run", without_openmp)
    learner = random_mann(TINY, 3)
    compare(learner, *random_episodes(TINY, 4, batch=3, length=5), fast_unroll(learner))
    assert "-fopenmp" not in built_with[-2]
    assert "built without -fopenmp: exit 1" in caplog.text


@needs_a_compiler
def test_pytorchs_own_threads_are_used_and_no_others(nothing_built):
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("only Linux lists what a process has loaded")

    def loaded() -> set[str]:
        return {line.split()[-1] for line in maps.read_text().splitlines() if "libgomp" in line}

    before = loaded()
    kernels.load("mann")
    assert loaded() == before


@needs_a_compiler
def test_a_loaded_kernel_leaves_the_process_its_denormal_numbers(nothing_built):
    kernels.load("mann")
    assert 5e-324 / 1 > 0.0
    assert (torch.tensor(1e-310, dtype=torch.float64) * 0.5).item() > 0.0


@needs_a_compiler
@pytest.mark.parametrize("foreign", ["rows", "dtype"])
def test_a_state_that_does_not_fit_is_an_error_of_the_plain_steps_and_no_crash(foreign):
    learner = random_mann(TINY, 3).double()
    xs, ys = random_episodes(TINY, 4, batch=3, length=5)
    state = learner.initial_state(1 if foreign == "rows" else 3)
    if foreign == "dtype":
        state = type(state)(*(part.float() for part in state))
    projected, _ = learner.prepare(xs.double(), ys)
    with pytest.raises((RuntimeError, jaxtyping.TypeCheckError)):
        fast_unroll(learner)(projected, state)


@needs_a_compiler
def test_a_carried_memory_gives_the_fast_form_what_it_gives_the_plain_one():
    learner = random_mann(TINY, 3)
    xs, ys = random_episodes(TINY, 4, batch=3, length=7)
    begun = learner.carry_over(learner.episode(xs, ys)[1])
    outputs = [learner.episode(xs, ys, begun, unroll)[0] for unroll in (None, fast_unroll(learner))]
    torch.testing.assert_close(*outputs)
    assert not torch.allclose(outputs[0], learner(xs, ys))
