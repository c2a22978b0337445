"""The fast form of FLMN against the plain one: values, states, gradients, and a training run."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import kernels
from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.flmn_fast import fast_unroll
from lib.training import TrainingConfig, train
from lib.training.loop import pick_unroll
from tests.cases import random_cases, seeds
from tests.methods.test_flmn import TINY, configs, random_flmn
from tests.methods.test_mann import random_episodes
from tests.methods.test_mann_fast import compare, needs_a_compiler, results
from tests.training.tiny import TinyTask

# Also sizes at which the kernel's blocks of 16 slots are whole, or leave a rest.
blocks = st.builds(replace, configs, slots=st.sampled_from([16, 17, 35]))
every_gate = pytest.mark.parametrize("gate", ["constant", "dynamic"])


@needs_a_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_there_is_a_compiler_there_is_a_kernel(dtype):
    kernels.load("flmn", dtype)


@needs_a_compiler
@random_cases(60)
@given(configs | blocks, seeds, st.integers(1, 3), st.integers(1, 13), st.sampled_from([0.3, 1.0]))
def test_values_and_gradients_are_those_of_the_plain_form(config, seed, batch, length, scale):
    learner = random_flmn(config, seed, scale)
    compare(learner, *random_episodes(config, seed + 1, batch, length), fast_unroll(learner))


@needs_a_compiler
@every_gate
def test_so_they_are_at_the_papers_sizes_and_where_slots_are_used_again(gate):
    for config in (FLMNConfig(features=9, gate=gate), FLMNConfig(features=9, gate=gate, slots=20)):
        learner = random_flmn(config, 3, scale=0.1)
        compare(learner, *random_episodes(config, 4, batch=2, length=50), fast_unroll(learner))


@needs_a_compiler
@pytest.mark.parametrize("batch", [1, 5, 35])
def test_threads_share_a_batch_and_change_nothing(two_threads, batch):
    config = FLMNConfig(features=4, classes=3, hidden=9, slots=11, width=5)
    learner = random_flmn(config, 3)
    episodes = random_episodes(config, 4, batch, length=6)
    shared = results(learner, *episodes, fast_unroll(learner))
    torch.set_num_threads(1)
    for name, expected in results(learner, *episodes, fast_unroll(learner)).items():
        torch.testing.assert_close(shared[name], expected, atol=1e-12, rtol=1e-12, msg=lambda m, n=name: n + m)


@needs_a_compiler
def test_gradients_in_single_precision_agree_to_its_rounding():
    learner = FLMN(FLMNConfig(features=9))
    xs, ys = random_episodes(learner.config, 4, batch=4, length=40, dtype=torch.float32)
    plain, fast = results(learner, xs, ys, None), results(learner, xs, ys, fast_unroll(learner))
    for name, expected in plain.items():
        assert (fast[name] - expected).norm() <= 1e-4 * expected.norm(), name


@needs_a_compiler
@every_gate
def test_a_stream_goes_on_from_the_state_it_returned(gate):
    config = replace(TINY, gate=gate, slots=17)  # more slots than steps: none ties with another but the unused
    learner = random_flmn(config, 5)
    projected = torch.randn(
        2, 9, len(learner.from_input.bias), generator=torch.Generator().manual_seed(6), dtype=torch.float64
    )
    fast = fast_unroll(learner)
    with torch.no_grad():
        whole, last = learner.unroll(projected, learner.initial_state(2))
        first_half, state = fast(projected[:, :4], learner.initial_state(2))
        one_step, state = fast(projected[:, 4:5], state)
        second_half, state = fast(projected[:, 5:], state)
    torch.testing.assert_close(torch.cat([first_half, one_step, second_half], 1), whole)
    for name, expected in last._asdict().items():
        torch.testing.assert_close(getattr(state, name), expected, msg=lambda m, n=name: n + m)


@needs_a_compiler
def test_a_hundred_updates_in_single_precision_give_the_losses_of_the_plain_form():
    config = TrainingConfig(
        updates=100, batch_size=4, log_every=1, validate_every=100, validation_batches=1, checkpoint_every=100
    )
    losses = {}
    for how in ("plain", "fast"):
        torch.manual_seed(0)
        learner = FLMN(FLMNConfig(features=4, classes=3))
        log = train(learner, TinyTask(length=20), config, unroll=how, progress=False).log
        losses[how] = [line["loss"] for line in log]
    torch.testing.assert_close(losses["fast"], losses["plain"], atol=1e-4, rtol=0)
    assert losses["plain"][-1] != losses["plain"][0]


@needs_a_compiler
def test_auto_takes_the_fast_form_where_there_is_one():
    assert pick_unroll(FLMN(TINY), "auto", 10)[0] == "fast"
    assert fast_unroll(FLMN(TINY).bfloat16()) is None


@needs_a_compiler
def test_what_it_cannot_do_it_leaves_to_the_plain_form():
    learner = FLMN(TINY)
    fast = fast_unroll(learner)
    xs, ys = random_episodes(TINY, 4, batch=2, length=5)
    learner.double()
    torch.testing.assert_close(learner(xs, ys, fast), learner(xs, ys))
