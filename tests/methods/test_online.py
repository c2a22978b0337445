"""What holds for every online learner: its two views agree, no label is seen early, batch rows are strangers."""

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from lib.baselines.feedforward import FeedForward, FeedForwardConfig
from lib.baselines.lstm import LSTM, LSTMConfig
from lib.baselines.ntm import NTM, NTMConfig
from lib.methods.flmn import FLMN, FLMNConfig
from lib.methods.mann import MANN, MANNConfig
from lib.methods.online import CHUNK, OnlineLearner
from tests.cases import random_cases, seeds

FEATURES, CLASSES = 6, 4


def make(
    kind: str, seed: int = 0, features: int = FEATURES, classes: int = CLASSES, large: bool = False
) -> OnlineLearner:
    """A learner with larger weights than a fresh one has; `large`: one of the paper's sizes, fresh."""
    hidden, slots, width, reads = (200, 128, 40, 4) if large else (8, 12, 5, 2)
    sizes = {"features": features, "classes": classes, "hidden": hidden}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        learner = {
            "mann": lambda: MANN(MANNConfig(**sizes, slots=slots, width=width, reads=reads)),
            "mann-feedforward": lambda: MANN(
                MANNConfig(**sizes, controller="feedforward", slots=slots, width=width, reads=reads, gate="constant")
            ),
            "lstm": lambda: LSTM(LSTMConfig(**sizes)),
            "feedforward": lambda: FeedForward(FeedForwardConfig(**sizes)),
            "flmn": lambda: FLMN(FLMNConfig(**sizes, slots=slots // 2, width=width)),
            "ntm": lambda: NTM(NTMConfig(**sizes, slots=slots, width=width, reads=reads)),
        }[kind]()
        if not large:
            with torch.no_grad():
                for parameter in learner.parameters():
                    parameter.normal_(0.0, 0.7)
    return learner


def episodes(seed: int, batch: int, length: int, features: int = FEATURES, classes: int = CLASSES):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(batch, length, features, generator=random), torch.randint(
        classes, (batch, length), generator=random
    )


def stream(learner: OnlineLearner, xs: torch.Tensor, ys: torch.Tensor) -> torch.Tensor:
    """Probabilities (B, T, C) of the streaming view."""
    learner.begin(len(xs))
    answers = []
    for t in range(xs.shape[1]):
        answers.append(learner.predict(xs[:, t]))
        learner.observe(xs[:, t], ys[:, t])
    return torch.stack(answers, dim=1)


KINDS = ["mann", "mann-feedforward", "flmn", "lstm", "feedforward", "ntm"]
every_kind = pytest.mark.parametrize("kind", KINDS)
with_memory = pytest.mark.parametrize("kind", ["mann", "mann-feedforward", "flmn", "lstm", "ntm"])


@pytest.fixture
def unchecked_shapes():
    """Lets a wrong shape through to the learner's own check, if shapes are also checked by their annotations."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@random_cases(40)
@given(st.sampled_from(KINDS), seeds, st.integers(1, 3), st.sampled_from([1, 2, CHUNK - 1, CHUNK, CHUNK + 1, 23]))
def test_streaming_and_batched_views_agree(kind, seed, batch, length):
    learner = make(kind, seed % 1000)
    xs, ys = episodes(seed, batch, length)
    torch.testing.assert_close(stream(learner, xs, ys), learner(xs, ys).softmax(-1).detach(), atol=1e-5, rtol=0)


@every_kind
def test_streaming_and_batched_views_agree_at_the_papers_sizes(kind):
    learner = make(kind, 1, 400, 5, large=True)
    xs, ys = episodes(2, 2, 50, 400, 5)
    torch.testing.assert_close(stream(learner, xs, ys), learner(xs, ys).softmax(-1).detach(), atol=1e-5, rtol=0)


@every_kind
def test_probabilities_are_probabilities(kind):
    answers = stream(make(kind), *episodes(3, 2, 5))
    assert answers.shape == (2, 5, CLASSES)
    assert (answers >= 0).all()
    torch.testing.assert_close(answers.sum(-1), torch.ones(2, 5))


@every_kind
def test_predict_changes_nothing(kind):
    learner = make(kind)
    xs, ys = episodes(4, 2, 6)
    asked_once = stream(learner, xs, ys)
    weights = [p.detach().clone() for p in learner.parameters()]
    learner.begin(2)
    for t in range(6):
        state, label = [s.clone() for s in learner.state], learner.told.clone()
        for other in (1 - xs[:, t], torch.zeros_like(xs[:, t])):
            learner.predict(other)
        assert torch.equal(learner.predict(xs[:, t]), asked_once[:, t])
        assert all(torch.equal(a, b) for a, b in zip(state, learner.state, strict=True))
        assert torch.equal(label, learner.told)
        learner.observe(xs[:, t], ys[:, t])
    assert all(torch.equal(a, b) for a, b in zip(weights, learner.parameters(), strict=True))
    assert all(p.grad is None for p in learner.parameters())


@every_kind
def test_a_prediction_knows_no_label_of_its_step_or_later_and_no_later_input(kind):
    learner = make(kind).double()
    xs, ys = episodes(5, 2, 13)
    xs = xs.double()
    logits = learner(xs, ys)
    for t in range(13):
        other_ys, other_xs = ys.clone(), xs.clone()
        other_ys[:, t:] = (ys[:, t:] + 1) % CLASSES
        other_xs[:, t + 1 :] += 1.0
        changed = learner(other_xs, other_ys)
        torch.testing.assert_close(changed[:, : t + 1], logits[:, : t + 1], atol=1e-12, rtol=0)
        if t < 12:
            # ... and the label is told with the next input: there the answer does change.
            assert (changed[:, t + 1] - logits[:, t + 1]).abs().max() > 1e-6


@with_memory
def test_a_prediction_depends_on_the_first_input_and_the_first_label(kind):
    learner = make(kind).double()
    xs, ys = episodes(6, 1, 8)
    xs = xs.double()
    logits = learner(xs, ys)
    other_ys, other_xs = ys.clone(), xs.clone()
    other_ys[:, 0] = (ys[:, 0] + 1) % CLASSES
    other_xs[:, 0] += 1.0
    assert (learner(xs, other_ys) - logits)[:, 4:].abs().max() > 1e-9
    assert (learner(other_xs, ys) - logits)[:, 4:].abs().max() > 1e-9


@with_memory
def test_the_gradient_goes_back_through_the_whole_episode(kind):
    """From the last answer to the first input, by the chain rule and by a small step; three calls of `unroll` apart."""
    learner = make(kind).double()
    xs, ys = episodes(15, 1, 2 * CHUNK + 2)
    xs = xs.double().requires_grad_()
    answer = learner(xs, ys)[0, -1, 0]
    (gradient,) = torch.autograd.grad(answer, xs)
    direction = torch.zeros_like(xs)
    direction[0, 0] = gradient[0, 0] / gradient[0, 0].norm()
    step = 1e-5
    with torch.no_grad():
        up, down = (learner(xs + sign * step * direction, ys)[0, -1, 0] for sign in (1, -1))
    assert gradient[0, 0].norm() > 1e-7
    assert ((up - down) / (2 * step)).item() == pytest.approx(gradient[0, 0].norm().item(), rel=1e-3)


def test_a_feedforward_network_remembers_nothing_but_the_last_label():
    learner = make("feedforward")
    xs, ys = episodes(6, 1, 8)
    other_xs, other_ys = xs.clone(), ys.clone()
    other_xs[:, :6] += 1.0
    other_ys[:, :5] = (ys[:, :5] + 1) % CLASSES
    torch.testing.assert_close(learner(other_xs, other_ys)[:, 6:], learner(xs, ys)[:, 6:])


@every_kind
def test_the_rows_of_a_batch_are_independent(kind):
    learner = make(kind).double()
    xs, ys = episodes(7, 4, 12)
    xs = xs.double()
    logits = learner(xs, ys)
    for b in range(4):
        torch.testing.assert_close(learner(xs[b : b + 1], ys[b : b + 1])[0], logits[b], atol=1e-11, rtol=0)
    gradient = torch.autograd.grad(learner(xs.requires_grad_(), ys)[1].square().sum(), xs)[0]
    assert (gradient[[0, 2, 3]] == 0).all()
    assert gradient[1].abs().max() > 0


@every_kind
def test_the_null_label_of_the_first_step_is_no_label_at_all(kind):
    learner = make(kind)
    xs, _ = episodes(8, 3, 3)
    inputs = learner.inputs(xs, torch.tensor([[0, CLASSES - 1, 1]]).expand(3, -1))
    assert torch.equal(inputs[..., :FEATURES], xs)
    assert inputs[0, :, FEATURES:].tolist() == [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    learner.begin(3)
    shown = learner.step(learner.project(inputs[:1, :1])[:, 0], learner.initial_state(1))[0]
    torch.testing.assert_close(learner.predict(xs[:, 0])[:1], learner.read_out(shown).softmax(-1).detach())


@every_kind
def test_begin_forgets_what_was_before(kind):
    learner = make(kind)
    xs, ys = episodes(9, 2, 5)
    first = stream(learner, xs, ys)
    assert torch.equal(stream(learner, xs, ys), first)
    learner.begin(7)
    assert learner.predict(torch.zeros(7, FEATURES)).shape == (7, CLASSES)


@every_kind
def test_a_stream_that_has_not_begun_is_an_error(kind):
    learner = make(kind)
    with pytest.raises(RuntimeError, match="begin"):
        learner.predict(torch.zeros(1, FEATURES))
    with pytest.raises(RuntimeError, match="begin"):
        learner.observe(torch.zeros(1, FEATURES), torch.zeros(1, dtype=torch.int64))


@every_kind
@pytest.mark.parametrize(
    ("xs_shape", "ys_shape"),
    [
        ((2, 5, FEATURES + 1), (2, 5)),
        ((2, 5, FEATURES), (2, 4)),
        ((2, 5, FEATURES), (5, 2)),
        ((2, 5, FEATURES), (2, 5, 1)),
        ((5, FEATURES), (5,)),
        ((2, 5, 2, FEATURES), (2, 5, 2)),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_episodes_of_wrong_shapes_are_refused(kind, xs_shape, ys_shape):
    with pytest.raises(ValueError, match="expected inputs"):
        make(kind)(torch.zeros(xs_shape), torch.zeros(ys_shape, dtype=torch.int64))


@every_kind
@pytest.mark.parametrize("x_shape", [(3, FEATURES + 1), (3, 1, FEATURES), (FEATURES,), (2, FEATURES)])
@pytest.mark.usefixtures("unchecked_shapes")
def test_steps_of_wrong_shapes_are_refused(kind, x_shape):
    learner = make(kind)
    learner.begin(3)
    x = torch.zeros(x_shape)
    with pytest.raises(ValueError, match="expected"):
        learner.predict(x)
    with pytest.raises(ValueError, match="expected"):
        learner.observe(x, torch.zeros(x_shape[:-1], dtype=torch.int64))
    with pytest.raises(ValueError, match="expected"):
        learner.observe(torch.zeros(3, FEATURES), torch.zeros(2, dtype=torch.int64))


@every_kind
def test_dtype_follows_the_parameters(kind):
    learner = make(kind).double()
    xs, ys = episodes(10, 2, 3)
    assert learner(xs.double(), ys).dtype == torch.float64
    assert stream(learner, xs.double(), ys).dtype == torch.float64
    assert all(s.dtype == torch.float64 for s in learner.state)


@every_kind
def test_device_follows_the_parameters(kind):
    learner = make(kind).to("meta")
    xs, ys = (part.to("meta") for part in episodes(10, 2, 3))
    assert learner(xs, ys).device.type == "meta"
    assert stream(learner, xs, ys).device.type == "meta"
    assert learner.told.device.type == "meta"
    assert all(s.device.type == "meta" for s in learner.state)


@every_kind
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_gives_what_the_cpu_gives(kind):
    learner = make(kind).double()
    xs, ys = episodes(11, 2, 12)
    expected = learner(xs.double(), ys)
    found = learner.cuda()(xs.double().cuda(), ys.cuda())
    torch.testing.assert_close(found.cpu(), expected, atol=1e-9, rtol=0)
    torch.testing.assert_close(
        stream(learner, xs.double().cuda(), ys.cuda()).cpu(), expected.softmax(-1), atol=1e-9, rtol=0
    )


@every_kind
def test_a_stream_keeps_no_graph(kind):
    learner = make(kind)
    answers = stream(learner, *episodes(12, 2, 3))
    assert not answers.requires_grad
    assert not any(s.requires_grad for s in learner.state)


@every_kind
def test_a_given_unroll_takes_the_place_of_the_own_one(kind):
    learner = make(kind)
    xs, ys = episodes(13, 2, 2 * CHUNK + 3)
    lengths = []

    def unroll(projected, state):
        lengths.append(projected.shape[1])
        return learner.unroll(projected, state)

    torch.testing.assert_close(learner(xs, ys, unroll), learner(xs, ys))
    assert lengths == [2 * CHUNK + 3]


@pytest.mark.parametrize("kind", ["mann", "mann-feedforward"])
def test_the_compiled_form_goes_some_steps_at_a_time(kind, monkeypatch):
    learner = make(kind)
    xs, ys = episodes(13, 2, 2 * CHUNK + 3)
    lengths = []

    def compile(unroll, dynamic):
        def compiled(projected, state):
            lengths.append(projected.shape[1])
            return unroll(projected, state)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    torch.testing.assert_close(learner(xs, ys, learner.compiled_unroll()), learner(xs, ys))
    assert lengths == [CHUNK, CHUNK, 3]


@every_kind
def test_training_lowers_the_loss_of_one_batch(kind):
    learner = make(kind)
    xs, ys = episodes(14, 2, 6)
    optimizer = torch.optim.Adam(learner.parameters(), lr=0.05)
    losses = []
    for _ in range(40):
        loss = F.cross_entropy(learner(xs, ys).flatten(0, 1), ys.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_labels_of_any_kind_are_told_one_step_late():
    """The prediction of a step depends on every earlier label, and on no later one."""
    for labels, ys in (
        ("strings", torch.tensor([[3124, 77, 500, 12]])),
        ("real", torch.tensor([[0.3, -1.2, 2.0, 0.7]])),
    ):
        for config, kind in ((MANNConfig, MANN), (NTMConfig, NTM), (LSTMConfig, LSTM)):
            torch.manual_seed(0)
            learner = kind(config(features=FEATURES, hidden=8, labels=labels))
            xs = torch.rand(1, 4, FEATURES)
            before = learner(xs, ys)
            torch.testing.assert_close(learner.labels.predict(before), stream(learner, xs, ys))
            changed = ys.clone()
            changed[0, 1] += 1
            difference = (learner(xs, changed) - before).abs().amax(-1)[0]
            assert difference[:2].max() == 0
            assert difference[2:].min() > 0


def test_a_memory_that_is_not_wiped_is_all_that_is_carried_over():
    learner = make("mann")
    xs, ys = episodes(3, 2, 9)
    _, state = learner.episode(xs, ys)
    begun = learner.carry_over(state)
    fresh = learner.initial_state(2)
    for name in ("memory", "usage", "read_weights", "write_weights", "least_used"):
        assert torch.equal(getattr(begun, name), getattr(state, name))
        assert not getattr(begun, name).requires_grad
    assert all(torch.equal(getattr(begun, name), getattr(fresh, name)) for name in ("hidden", "cell", "read"))
    wiped, _ = learner.episode(xs, ys)
    assert not torch.equal(learner.episode(xs, ys, begun)[0], wiped)
    torch.testing.assert_close(learner.episode(xs, ys, fresh)[0], wiped)


def test_a_learner_without_memory_has_none_to_carry_over():
    learner = make("lstm")
    with pytest.raises(ValueError, match="LSTM cannot carry a memory over"):
        learner.carry_over(learner.initial_state(1))
