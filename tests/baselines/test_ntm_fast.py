"""The fast form of the NTM against the plain one: values, states, gradients, and a training run."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib import kernels
from lib.baselines.ntm import NTM, NTMConfig
from lib.baselines.ntm_fast import fast_unroll
from lib.training import TrainingConfig, train
from lib.training.loop import pick_unroll
from tests.cases import random_cases, seeds
from tests.methods.test_mann import random_episodes
from tests.methods.test_mann_fast import compare, needs_a_compiler, results
from tests.training.tiny import TinyTask

configs = st.builds(
    NTMConfig,
    features=st.integers(1, 4),
    classes=st.integers(2, 4),
    hidden=st.integers(1, 5),
    slots=st.sampled_from([1, 2, 3, 7, 16, 17, 35]),
    width=st.integers(1, 4),
    reads=st.sampled_from([1, 2, 4]),
)


def random_ntm(config: NTMConfig, seed: int, scale: float = 1.0) -> NTM:
    """An NTM in float64 with normal weights."""
    learner, random = NTM(config).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return learner


@needs_a_compiler
@random_cases(60)
@given(configs, seeds, st.integers(1, 3), st.integers(1, 13), st.sampled_from([0.3, 1.0]))
def test_values_and_gradients_are_those_of_the_plain_form(config, seed, batch, length, scale):
    learner = random_ntm(config, seed, scale)
    compare(learner, *random_episodes(config, seed + 1, batch, length), fast_unroll(learner))


@needs_a_compiler
def test_so_they_are_at_the_papers_sizes():
    config = NTMConfig(features=9)
    learner = random_ntm(config, 3, scale=0.1)
    compare(learner, *random_episodes(config, 4, batch=2, length=45), fast_unroll(learner))


@needs_a_compiler
@pytest.mark.parametrize("batch", [1, 5, 35])
def test_threads_share_a_batch_and_change_nothing(two_threads, batch):
    config = NTMConfig(features=4, classes=3, hidden=9, slots=11, width=5, reads=4)
    learner, in_turn = random_ntm(config, 3), random_ntm(config, 3)
    episodes = random_episodes(config, 4, batch, length=6)
    shared = results(learner, *episodes, fast_unroll(learner))
    torch.set_num_threads(1)
    for name, expected in results(in_turn, *episodes, fast_unroll(in_turn)).items():
        torch.testing.assert_close(shared[name], expected, atol=1e-12, rtol=1e-12, msg=lambda m, n=name: n + m)


@needs_a_compiler
def test_gradients_in_single_precision_agree_to_its_rounding():
    learner = NTM(NTMConfig(features=9))
    xs, ys = random_episodes(learner.config, 4, batch=4, length=40, dtype=torch.float32)
    plain, fast = results(learner, xs, ys, None), results(learner, xs, ys, fast_unroll(learner))
    for name, expected in plain.items():
        assert (fast[name] - expected).norm() <= 1e-4 * expected.norm(), name


@needs_a_compiler
def test_extreme_controls_stay_finite():
    learner = random_ntm(NTMConfig(features=4, hidden=9), 3, scale=30.0).float()
    xs, ys = random_episodes(learner.config, 4, batch=2, length=20, dtype=torch.float32)
    plain, fast = results(learner, xs, ys, None), results(learner, xs, ys, fast_unroll(learner))
    assert plain["logits"].isfinite().all()
    assert all(value.isfinite().all() for value in fast.values())


@needs_a_compiler
def test_a_stream_goes_on_from_the_state_it_returned():
    learner = random_ntm(NTMConfig(features=4, classes=3, hidden=5, slots=6, width=3, reads=2), 5)
    projected = torch.randn(2, 9, 20, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    fast = fast_unroll(learner)
    with torch.no_grad():
        whole, last = learner.unroll(projected, learner.initial_state(2))
        first_half, state = fast(projected[:, :4], learner.initial_state(2))
        second_half, state = fast(projected[:, 4:], state)
    torch.testing.assert_close(torch.cat([first_half, second_half], 1), whole)
    for name, expected in last._asdict().items():
        torch.testing.assert_close(getattr(state, name), expected)


@needs_a_compiler
def test_training_takes_the_same_way():
    config = TrainingConfig(
        updates=100, batch_size=4, log_every=1, validate_every=100, validation_batches=1, checkpoint_every=100
    )
    losses = {}
    for how in ("plain", "fast"):
        torch.manual_seed(0)
        learner = NTM(NTMConfig(features=4, classes=3))
        log = train(learner, TinyTask(length=20), config, unroll=how, progress=False).log
        losses[how] = [line["loss"] for line in log]
    torch.testing.assert_close(losses["fast"], losses["plain"], atol=1e-4, rtol=0)
    assert losses["plain"][-1] != losses["plain"][0]


@needs_a_compiler
def test_auto_takes_the_fast_form_where_there_is_one():
    small = NTMConfig(features=4, classes=3, hidden=5, slots=6, width=3, reads=2)
    assert pick_unroll(NTM(small), "auto", 10)[0] == "fast"
    assert fast_unroll(NTM(replace(small, writes=2))) is None
    assert fast_unroll(NTM(small).bfloat16()) is None


@needs_a_compiler
def test_what_it_cannot_do_it_leaves_to_the_plain_form():
    learner = NTM(NTMConfig(features=4, classes=3, hidden=5, slots=6, width=3, reads=2))
    fast = fast_unroll(learner)
    xs, ys = random_episodes(learner.config, 4, batch=2, length=5)
    learner.double()
    torch.testing.assert_close(learner(xs, ys, fast), learner(xs, ys))


@needs_a_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_there_is_a_compiler_there_is_a_kernel(dtype):
    kernels.load("ntm", dtype)
