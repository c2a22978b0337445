"""MANN over whole episodes against the paper's equations in naive NumPy, and what its parts must mean."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from lib.memory import addressing, lrua
from lib.methods.mann import MANN, MANNConfig
from tests.cases import random_cases, seeds
from tests.methods import reference_mann as reference

TINY = MANNConfig(features=4, classes=3, hidden=5, slots=6, width=3, reads=2, write_to="own")
STATE = ("memory", "usage", "read_weights", "write_weights", "read", "hidden")


def random_mann(config: MANNConfig, seed: int, scale: float = 1.0) -> MANN:
    """A MANN in float64 with normal weights, larger than at the start of training: gates and reads differ."""
    learner = MANN(config).double()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random, dtype=torch.float64))
    return learner


def random_episodes(config: MANNConfig, seed: int, batch: int, length: int, dtype=torch.float64):
    """Inputs (B, T, features) and labels (B, T)."""
    random = torch.Generator().manual_seed(seed)
    xs = torch.randn(batch, length, config.features, generator=random, dtype=dtype)
    return xs, torch.randint(config.classes, (batch, length), generator=random)


def to_reference(learner: MANN) -> reference.Weights:
    """The same weights under the paper's names. Inputs stand in the order x, y, r, h."""
    own = {name: value.detach().numpy() for name, value in learner.named_parameters()}
    matrix, bias = own["from_input.weight"], own["from_input.bias"]
    config, state = learner.config, own["from_state.weight"]
    if config.controller == "feedforward":
        gates = {"hidden": (np.concatenate([matrix, state], axis=1), bias)}
    else:
        hidden, read = state[:, : config.hidden], state[:, config.hidden :]
        whole = np.concatenate([matrix, read, hidden], axis=1)
        names = ("forget", "input", "output", "update")
        gates = dict(zip(names, zip(np.split(whole, 4), np.split(bias, 4), strict=True), strict=True))
    dynamic = config.gate == "dynamic"
    stored = config.reads * config.width
    return reference.Weights(
        gates=gates,
        read_key_matrix=own["to_keys.weight"][:stored],
        read_key_bias=own["to_keys.bias"][:stored],
        write_key_matrix=own["to_keys.weight"][-stored:],
        write_key_bias=own["to_keys.bias"][-stored:],
        gate_matrix=own["to_gate.weight"] if dynamic else None,
        gate_bias=own["to_gate.bias"] if dynamic else own["alpha"],
        output_matrix=own["to_logits.weight"],
        output_bias=own["to_logits.bias"],
    )


def compare_with_reference(learner: MANN, xs: torch.Tensor, ys: torch.Tensor) -> None:
    """Logits, probabilities and every state of whole episodes, to 1e-9."""
    config = learner.config
    logits, streams = reference.episode(
        to_reference(learner),
        xs.numpy(),
        ys.numpy(),
        hidden_size=config.hidden,
        slots=config.slots,
        width=config.width,
        n=config.reads,
        classes=config.classes,
        decay=config.usage_decay,
        write_to=config.write_to,
    )
    np.testing.assert_allclose(learner(xs, ys).detach(), logits, atol=1e-9, rtol=0)
    learner.begin(len(xs))
    for t in range(xs.shape[1]):
        expected = np.stack([reference.probabilities(logits[b, t]) for b in range(len(xs))])
        np.testing.assert_allclose(learner.predict(xs[:, t]), expected, atol=1e-9, rtol=0)
        learner.observe(xs[:, t], ys[:, t])
        for name in STATE + (("cell",) if config.controller == "lstm" else ()):
            naive = np.stack([getattr(stream[t], name) for stream in streams])
            np.testing.assert_allclose(
                getattr(learner.state, name), naive, atol=1e-9, rtol=0, err_msg=f"{name}, step {t}"
            )


configs = st.builds(
    MANNConfig,
    features=st.integers(1, 4),
    classes=st.integers(2, 4),
    controller=st.sampled_from(["lstm", "feedforward"]),
    hidden=st.integers(1, 5),
    slots=st.integers(4, 9),
    width=st.integers(1, 4),
    reads=st.sampled_from([1, 4]),
    usage_decay=st.sampled_from([0.5, 0.95, 0.99]),
    keys=st.sampled_from(["separate", "shared"]),
    write_to=st.sampled_from(["own", "all"]),
    gate=st.sampled_from(["dynamic", "constant"]),
)


@random_cases(60)
@given(configs, seeds, st.integers(1, 3), st.integers(1, 13), st.sampled_from([0.3, 1.0, 2.0]))
def test_whole_episodes_agree_with_the_equations(config, seed, batch, length, scale):
    compare_with_reference(random_mann(config, seed, scale), *random_episodes(config, seed + 1, batch, length))


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
@pytest.mark.parametrize("reads", [1, 4])
@pytest.mark.parametrize("keys", ["separate", "shared"])
@pytest.mark.parametrize("write_to", ["own", "all"])
@pytest.mark.parametrize("gate", ["dynamic", "constant"])
def test_every_variant_agrees_with_the_equations_over_a_long_episode(controller, reads, keys, write_to, gate):
    sizes = {"features": 3, "classes": 3, "hidden": 6, "slots": 10, "width": 4}
    config = MANNConfig(controller=controller, reads=reads, keys=keys, write_to=write_to, gate=gate, **sizes)
    compare_with_reference(random_mann(config, 11), *random_episodes(config, 12, batch=2, length=25))


# Wrong implementations that public code has had, or that differ from the paper in one place. Each must be caught.
right = {name: getattr(lrua, name) for name in ("update_usage", "least_used_slots", "write_weights", "write")}


def most_used(usage, count):
    return right["least_used_slots"](-usage, count)


def one_choice_for_the_batch(usage, count):
    return right["least_used_slots"](usage.mean(0, keepdim=True).expand_as(usage), count)


def last_index_wins_a_tie(usage, count):
    return right["least_used_slots"](usage.flip(-1), count).flip(-1)


def nothing_is_zeroed(memory, least_used, weights, keys):
    return right["write"](memory, torch.zeros_like(least_used), weights, keys)


def all_is_zeroed_after_the_write(memory, least_used, weights, keys):
    return right["write"](memory, torch.zeros_like(least_used), weights, keys) * (1 - least_used.sum(1)).unsqueeze(2)


def nothing_is_written(memory, least_used, weights, keys):
    return right["write"](memory, least_used, torch.zeros_like(weights), keys)


def heads_write_each_others_keys(memory, least_used, weights, keys):
    return right["write"](memory, least_used, weights, keys.flip(1))


def no_decay(usage, reads, writes, decay):
    return right["update_usage"](usage, reads, writes, 1.0)


def writes_do_not_count(usage, reads, writes, decay):
    return right["update_usage"](usage, reads, torch.zeros_like(writes), decay)


def reads_do_not_count(usage, reads, writes, decay):
    return right["update_usage"](usage, torch.zeros_like(reads), writes, decay)


def gate_the_wrong_way_round(gate, reads, least_used):
    return right["write_weights"](1 - gate, reads, least_used)


def gate_without_sigmoid(gate, reads, least_used):
    return right["write_weights"](torch.logit(gate), reads, least_used)


def softmax_twice(keys, memory):
    return torch.softmax(torch.softmax(addressing.cosine_similarity(keys, memory), -1), -1)


def dot_product_instead_of_cosine(keys, memory):
    return torch.softmax(keys @ memory.transpose(1, 2), -1)


@pytest.mark.parametrize(
    ("module", "name", "wrong"),
    [
        (lrua, "least_used_slots", most_used),
        (lrua, "least_used_slots", one_choice_for_the_batch),
        (lrua, "least_used_slots", last_index_wins_a_tie),
        (lrua, "write", nothing_is_zeroed),
        (lrua, "write", all_is_zeroed_after_the_write),
        (lrua, "write", nothing_is_written),
        (lrua, "write", heads_write_each_others_keys),
        (lrua, "update_usage", no_decay),
        (lrua, "update_usage", writes_do_not_count),
        (lrua, "update_usage", reads_do_not_count),
        (lrua, "write_weights", gate_the_wrong_way_round),
        (lrua, "write_weights", gate_without_sigmoid),
        (addressing, "content_weights", softmax_twice),
        (addressing, "content_weights", dot_product_instead_of_cosine),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_comparison_catches_known_mistakes(monkeypatch, module, name, wrong):
    learner = random_mann(TINY, 1)
    episodes = random_episodes(TINY, 2, batch=3, length=15)
    compare_with_reference(learner, *episodes)
    monkeypatch.setattr(module, name, wrong)
    with pytest.raises(AssertionError):
        compare_with_reference(learner, *episodes)


def test_the_two_readings_of_who_writes_where_differ():
    own, together = random_mann(TINY, 1), random_mann(replace(TINY, write_to="all"), 1)
    xs, ys = random_episodes(TINY, 2, batch=2, length=6)
    assert (own(xs, ys) - together(xs, ys)).abs().max() > 1e-3


def test_a_shared_key_is_a_separate_one_that_happens_to_be_the_query():
    separate, shared = random_mann(TINY, 1), random_mann(replace(TINY, keys="shared"), 1)
    xs, ys = random_episodes(TINY, 2, batch=2, length=6)
    weights = shared.state_dict()
    for name in ("to_keys.weight", "to_keys.bias"):
        weights[name] = weights[name].repeat(2, *[1] * (weights[name].dim() - 1))
    separate.load_state_dict(weights)
    torch.testing.assert_close(separate(xs, ys), shared(xs, ys))
    with torch.no_grad():
        separate.to_keys.weight[-1] += 1.0
    assert (separate(xs, ys) - shared(xs, ys)).abs().max() > 1e-3


def step_through(learner: MANN, xs: torch.Tensor, ys: torch.Tensor) -> list:
    """The state after each step."""
    learner.begin(len(xs))
    states = []
    for t in range(xs.shape[1]):
        learner.observe(xs[:, t], ys[:, t])
        states.append(learner.state)
    return states


def with_gate(config: MANNConfig, alpha: float) -> MANN:
    """A MANN whose gate α has one value for ever."""
    learner = random_mann(replace(config, gate="constant"), 5)
    with torch.no_grad():
        learner.alpha.fill_(alpha)
    return learner


def test_a_closed_gate_writes_each_key_to_its_own_least_used_slot():
    learner = with_gate(TINY, -1000.0)
    xs, ys = random_episodes(TINY, 6, batch=2, length=3)
    states = step_through(learner, xs, ys)
    # Six slots, two heads, three steps: every slot is written once, the lowest index first.
    for t, state in enumerate(states):
        assert state.write_weights.argmax(-1).tolist() == [[2 * t, 2 * t + 1]] * 2
        torch.testing.assert_close(state.write_weights.max(-1).values, torch.ones(2, 2).double())
        torch.testing.assert_close(state.memory[:, 2 * t : 2 * t + 2], learner.keys(state.cell)[1])
        assert (state.memory[:, 2 * t + 2 :] == 0).all()


def test_where_all_heads_write_together_each_least_used_slot_holds_the_sum_of_the_keys():
    learner = with_gate(replace(TINY, write_to="all"), -1000.0)
    xs, ys = random_episodes(TINY, 6, batch=2, length=3)
    for t, state in enumerate(step_through(learner, xs, ys)):
        total = learner.keys(state.cell)[1].sum(1)
        torch.testing.assert_close(state.memory[:, 2 * t], total)
        torch.testing.assert_close(state.memory[:, 2 * t + 1], total)


def test_an_open_gate_writes_where_was_read_last():
    learner = with_gate(TINY, 1000.0)
    xs, ys = random_episodes(TINY, 6, batch=2, length=5)
    states = step_through(learner, xs, ys)
    assert (states[0].memory == 0).all()  # nothing was read before the first step, so nothing is written
    for last, state in zip(states, states[1:], strict=False):
        torch.testing.assert_close(state.write_weights, last.read_weights)


def test_the_memory_of_a_step_is_read_after_its_write():
    learner = with_gate(replace(TINY, keys="shared"), -1000.0)
    xs, ys = random_episodes(TINY, 6, batch=1, length=1)
    (state,) = step_through(learner, xs, ys)
    # Of the two slots written with the two keys, each head reads its own most: the key meets itself there.
    assert state.read_weights.argmax(-1).tolist() == [[0, 1]]
    assert state.read.abs().max() > 0


def test_the_slots_that_are_used_least_are_the_ones_erased():
    learner = random_mann(TINY, 8)
    xs, ys = random_episodes(TINY, 9, batch=3, length=12)
    states = step_through(learner, xs, ys)
    for last, state in zip(states, states[1:], strict=False):
        lowest = torch.sort(last.usage, dim=-1, stable=True).indices[:, :2]
        assert last.least_used.argmax(-1).tolist() == lowest.tolist()
        added = torch.einsum("bhn,bhm->bnm", state.write_weights, learner.keys(state.cell)[1])
        for b in range(3):
            torch.testing.assert_close(state.memory[b, lowest[b]], added[b, lowest[b]])


@pytest.mark.parametrize("reads", [0, 7])
def test_more_heads_than_slots_are_refused(reads):
    with pytest.raises(ValueError, match=f"{reads} heads .* among 6"):
        MANN(replace(TINY, reads=reads))


def test_a_fresh_stream_has_an_empty_memory_and_chooses_the_first_slots():
    learner = MANN(TINY)
    learner.begin(2)
    assert (learner.state.memory == 0).all()
    assert (learner.state.usage == 0).all()
    assert learner.state.least_used.argmax(-1).tolist() == [[0, 1], [0, 1]]


def test_the_keys_come_from_the_cell_state_and_the_gate_from_the_hidden_state():
    learner = random_mann(TINY, 3)
    xs, ys = random_episodes(TINY, 4, batch=2, length=4)
    states = step_through(learner, xs, ys)
    for last, state in zip(states, states[1:], strict=False):
        openness = torch.sigmoid(learner.to_gate(state.hidden)).unsqueeze(2)
        mixed = openness * last.read_weights + (1 - openness) * last.least_used
        torch.testing.assert_close(state.write_weights, mixed)
    read_keys = learner.keys(states[-1].cell)[0]
    torch.testing.assert_close(addressing.content_weights(read_keys, states[-1].memory), states[-1].read_weights)


def gradients_to_earlier_memories(learner: MANN, length: int) -> list[float]:
    """For each step, the largest gradient of the last step's loss to the slots that this step erased and wrote."""
    xs, ys = random_episodes(learner.config, 21, batch=1, length=length)
    projected = learner.project(learner.inputs(xs, ys))
    state = learner.initial_state(1)
    written = []
    for t in range(length):
        chosen = state.least_used.sum(1).bool()
        output, state = learner.step(projected[:, t], state)
        if not state.memory.requires_grad:
            state = state._replace(memory=state.memory.clone().requires_grad_())
        state.memory.retain_grad()
        written.append((state.memory, chosen))
    F.cross_entropy(learner.read_out(output), ys[:, -1]).backward()
    return [0.0 if m.grad is None else m.grad[chosen].abs().max().item() for m, chosen in written]


LONG = MANNConfig(features=4, classes=3, hidden=5, slots=64, width=4, reads=2)


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_a_loss_reaches_what_was_written_up_to_twenty_steps_before(controller):
    learner = random_mann(replace(LONG, controller=controller), 20, scale=0.5)
    gradients = gradients_to_earlier_memories(learner, 21)
    assert len(gradients) == 21
    assert min(gradients) > 1e-9, gradients


def test_a_memory_that_is_detached_at_every_write_is_caught(monkeypatch):
    monkeypatch.setattr(lrua, "write", lambda memory, *rest: right["write"](memory.detach(), *rest))
    learner = random_mann(replace(LONG, controller="feedforward"), 20, scale=0.5)
    gradients = gradients_to_earlier_memories(learner, 21)
    assert min(gradients) < 1e-9


@pytest.mark.parametrize("controller", ["lstm", "feedforward"])
def test_every_parameter_gets_a_gradient(controller):
    for gate in ("dynamic", "constant"):
        learner = random_mann(replace(TINY, controller=controller, gate=gate), 30)
        xs, ys = random_episodes(TINY, 31, batch=4, length=10)
        F.cross_entropy(learner(xs, ys).flatten(0, 1), ys.flatten()).backward()
        for name, parameter in learner.named_parameters():
            assert torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize(
    "config",
    [
        MANNConfig(2, 2, hidden=3, slots=4, width=2, reads=2),
        MANNConfig(2, 2, "feedforward", hidden=3, slots=4, width=2, reads=2, gate="constant"),
        MANNConfig(2, 2, hidden=3, slots=4, width=2, reads=2, write_to="own"),
        MANNConfig(2, 2, hidden=3, slots=4, width=2, reads=2, keys="shared"),
    ],
    ids=["lstm", "feedforward", "own", "shared"],
)
def test_the_gradients_are_those_of_finite_differences(config):
    learner = random_mann(config, 40, scale=0.7)
    xs, ys = random_episodes(config, 41, batch=2, length=5)
    names = [name for name, _ in learner.named_parameters()]
    values = [parameter.detach().clone().requires_grad_() for parameter in learner.parameters()]

    def logits(xs, *parameters):
        return functional_call(learner, dict(zip(names, parameters, strict=True)), (xs, ys))

    assert torch.autograd.gradcheck(logits, (xs.requires_grad_(), *values), atol=1e-6, fast_mode=True)


def test_the_first_steps_gradient_is_finite_although_the_memory_is_empty():
    learner = MANN(MANNConfig())
    xs = torch.rand(2, 3, 400, generator=torch.Generator().manual_seed(0))
    learner(xs, torch.zeros(2, 3, dtype=torch.int64)).sum().backward()
    for name, parameter in learner.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name


def test_the_number_of_parameters_does_not_depend_on_the_number_of_slots():
    def count(slots):
        return sum(p.numel() for p in MANN(MANNConfig(slots=slots)).parameters())

    assert count(16) == count(128)
