"""MbPA: its three paths against a naive float64 reference, and what the local fit must mean."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lib.memory.episodic import Context
from lib.memory.faiss_index import FaissIndex
from lib.methods import mbpa, mbpa_fit
from lib.methods.mbpa import (
    MbPA,
    MbPAConfig,
    adapted_by_batch,
    adapted_by_dual,
    adapted_by_first_dual,
    adapted_by_loop,
    adapted_by_vmap,
)
from tests.cases import normal, random_cases, seeds
from tests.methods import reference_mbpa as reference

PATHS = {"loop": adapted_by_loop, "vmap": adapted_by_vmap, "batch": adapted_by_batch, "dual": adapted_by_dual}
WIDTH, CLASSES, K, QUERIES = 3, 4, 5, 2


def make_output(seed: int, outputs: int = CLASSES, bias: bool = True) -> nn.Linear:
    output = nn.Linear(WIDTH, outputs, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        output.weight.copy_(torch.from_numpy(normal(seed, outputs, WIDTH)))
        if bias:
            output.bias.copy_(torch.from_numpy(normal(seed + 1, outputs)))
    return output


def make_context(seed: int, classes: bool = True, outputs: int = CLASSES) -> tuple[torch.Tensor, Context]:
    rng = np.random.default_rng(seed)
    keys, queries = normal(seed + 2, QUERIES, K, WIDTH), normal(seed + 3, QUERIES, WIDTH)
    values = rng.integers(0, outputs, (QUERIES, K)) if classes else normal(seed + 4, QUERIES, K, outputs)
    weights = np.stack([reference.kernel_weights(q, k, 0.1) for q, k in zip(queries, keys, strict=True)])
    return torch.from_numpy(queries), Context(*(torch.from_numpy(each) for each in (keys, values, weights)))


def theta_of(output: nn.Linear) -> np.ndarray:
    return torch.cat([output.weight, output.bias.unsqueeze(1)], 1).detach().numpy()


configs = st.builds(
    MbPAConfig,
    neighbours=st.just(K),
    steps=st.integers(0, 4),
    rate=st.floats(0.01, 1.0),
    prior=st.sampled_from([0.0, 0.1, 0.7]),
    optimizer=st.sampled_from(["sgd", "rmsprop", "adam"]),
    decay=st.sampled_from([0.9, 0.99]),
    square=st.sampled_from([0.0, 1.0]),
)


@pytest.mark.parametrize("path", ["loop", "vmap", "batch"])
@pytest.mark.parametrize("classes", [True, False])
@random_cases(60)
@given(seed=seeds, config=configs)
def test_loop_vmap_and_batch_are_the_papers_equations(path, classes, seed, config):
    output, (queries, context) = make_output(seed), make_context(seed, classes)
    found = PATHS[path](output, queries, context, config)
    settings = {name: getattr(config, name) for name in ("optimizer", "steps", "rate", "prior", "decay", "square")}
    for i, each in enumerate(zip(*context, strict=True)):
        theta = theta_of(output)
        own = reference.fitted(theta, *(tensor.numpy() for tensor in each), **settings)
        np.testing.assert_allclose(found.outputs[i], own @ np.append(queries[i].numpy(), 1.0), atol=1e-6)
        assert found.moved[i] == pytest.approx(np.sqrt(((own - theta) ** 2).sum()), abs=1e-6)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("at_once", [1, mbpa_fit.WEIGHTS_AT_ONCE_BY_BATCH])
@random_cases(25)
@given(seed=seeds, config=configs)
def test_the_batch_is_the_loop(at_once, classes, bias, seed, config):
    output, (queries, context) = make_output(seed, bias=bias), make_context(seed, classes)
    expected = adapted_by_loop(output, queries, context, config)
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(mbpa_fit, "WEIGHTS_AT_ONCE_BY_BATCH", at_once)
        found = adapted_by_batch(output, queries, context, config)
    # From a mean square of 0 a step is g / |g|: where g is nothing but rounding, the two may differ.
    torch.testing.assert_close(found.outputs, expected.outputs, atol=1e-7, rtol=0)
    torch.testing.assert_close(found.moved, expected.moved, atol=1e-7, rtol=0)


@pytest.mark.parametrize("bias", [True, False])
@random_cases(100)
@given(seed=seeds, steps=st.integers(0, 5), rate=st.floats(0.01, 2.0), prior=st.sampled_from([0.0, 0.3]))
def test_the_dual_is_the_loop(bias, seed, steps, rate, prior):
    output, (queries, context) = make_output(seed, bias=bias), make_context(seed)
    config = MbPAConfig(steps=steps, rate=rate, prior=prior)
    expected = adapted_by_loop(output, queries, context, config)
    known = torch.softmax(output(context.keys), dim=2).detach()
    for p in (None, known):
        found = adapted_by_dual(output, queries, context, config, p)
        np.testing.assert_allclose(found.outputs, expected.outputs, atol=1e-10)
        np.testing.assert_allclose(found.moved, expected.moved, atol=1e-7)


@pytest.mark.parametrize("at_once", [1, 2 * K * CLASSES])
def test_the_dual_of_some_queries_at_a_time_is_that_of_all(monkeypatch, at_once):
    output, parts = make_output(8), [make_context(seed) for seed in (8, 9, 10)]  # 6 queries
    queries = torch.cat([q for q, _ in parts])
    context = Context(*(torch.cat(each) for each in zip(*(context for _, context in parts), strict=True)))
    known, config = torch.softmax(output(context.keys), 2).detach(), MbPAConfig(steps=3, rate=0.5, prior=0.1)
    whole, sizes, softmax = adapted_by_dual(output, queries, context, config), [], torch.softmax
    monkeypatch.setattr(mbpa_fit, "WEIGHTS_AT_ONCE", at_once)
    monkeypatch.setattr(mbpa_fit.torch, "softmax", lambda x, dim: (sizes.append(x.numel()), softmax(x, dim=dim))[1])
    for p in (None, known):
        found = adapted_by_dual(output, queries, context, config, p)
        torch.testing.assert_close(found, whole)
    assert max(sizes) == max(at_once, K * CLASSES)


@pytest.mark.parametrize("path", [*PATHS.values(), adapted_by_first_dual])
def test_no_query_has_no_answer(path):
    output, (queries, context) = make_output(1), make_context(1)
    if path is adapted_by_first_dual:
        output = nn.Sequential(nn.Linear(WIDTH, 6), nn.ReLU(), nn.Linear(6, CLASSES)).double()
    found = path(output, queries[:0], Context(*(each[:0] for each in context)), MbPAConfig(steps=2))
    assert found.outputs.shape == (0, CLASSES) and found.moved.shape == (0,)


def test_one_step_is_the_design_s_formula():
    """logits(q) - α Σ_k w_k (h_k·q + 1)(p_k - e_{y_k})."""
    output, (queries, context) = make_output(5), make_context(5)
    found = adapted_by_dual(output, queries, context, MbPAConfig(rate=0.4))
    for i, q in enumerate(queries):
        expected = output(q).detach().clone()
        for h, y, w in zip(*(each[i] for each in context), strict=True):
            error = torch.softmax(output(h), 0).detach()
            error[y] -= 1
            expected -= 0.4 * w * (h @ q + 1) * error
        torch.testing.assert_close(found.outputs[i], expected)


def test_vmap_fits_any_network(monkeypatch):
    torch.manual_seed(0)
    deep = nn.Sequential(nn.Linear(WIDTH, 6), nn.Tanh(), nn.Linear(6, CLASSES)).double()
    queries, context = make_context(3)
    for optimizer in ("sgd", "rmsprop", "adam"):
        config = MbPAConfig(steps=3, rate=0.05, prior=0.1, optimizer=optimizer)
        one, other = (path(deep, queries, context, config) for path in (adapted_by_loop, adapted_by_vmap))
        torch.testing.assert_close(one.outputs, other.outputs)
        torch.testing.assert_close(one.moved, other.moved)
        monkeypatch.setattr(mbpa_fit, "WEIGHTS_AT_ONCE", 1)  # a query at a time
        torch.testing.assert_close(adapted_by_vmap(deep, queries, context, config).outputs, one.outputs)
        monkeypatch.undo()


@pytest.mark.parametrize("biases", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("classes", [True, False])
@pytest.mark.parametrize("at_once", [1, mbpa_fit.WEIGHTS_AT_ONCE_BY_BATCH])
@random_cases(25)
@given(seed=seeds, steps=st.integers(0, 4), rate=st.floats(0.01, 1.0), prior=st.sampled_from([0.0, 0.3]))
def test_the_dual_of_a_first_layer_is_the_loop(at_once, classes, biases, seed, steps, rate, prior):
    torch.manual_seed(seed % 2**31)
    first, second = nn.Linear(WIDTH, 6, bias=biases[0]), nn.Linear(6, CLASSES, bias=biases[1])
    deep = nn.Sequential(first, nn.ReLU(), second).double()
    queries, context = make_context(seed, classes)
    config = MbPAConfig(steps=steps, rate=rate, prior=prior)
    expected = adapted_by_loop(deep, queries, context, config)
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(mbpa_fit, "WEIGHTS_AT_ONCE_BY_BATCH", at_once)
        found = adapted_by_first_dual(deep, queries, context, config)
    torch.testing.assert_close(found.outputs, expected.outputs)
    torch.testing.assert_close(found.moved, expected.moved, atol=1e-7, rtol=1e-6)


def test_the_fastest_way_that_fits_is_taken():
    linear, deep = make_output(0), nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    assert mbpa.fitter(linear, MbPAConfig(), True) is adapted_by_dual
    assert mbpa.fitter(linear, MbPAConfig(), False) is adapted_by_batch
    assert mbpa.fitter(linear, MbPAConfig(optimizer="adam"), True) is adapted_by_batch
    assert mbpa.fitter(deep, MbPAConfig(optimizer="adam"), True) is adapted_by_vmap
    assert mbpa.fitter(deep, MbPAConfig(), True) is adapted_by_first_dual
    assert (
        mbpa.fitter(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2)), MbPAConfig(), True) is adapted_by_vmap
    )


@pytest.mark.parametrize("path", PATHS.values())
def test_theta_is_left_as_it_was(path):
    output, (queries, context) = make_output(1), make_context(1)
    before = copy.deepcopy(output.state_dict())
    found = path(output, queries, context, MbPAConfig(steps=5, rate=1.0))
    assert found.moved.min() > 0.1 and not found.outputs.requires_grad
    for name, weight in output.state_dict().items():
        assert torch.equal(weight, before[name])
        assert all(weight.grad is None for weight in output.parameters())


def test_the_prior_needs_a_second_step_and_then_holds_back():
    output, (queries, context) = make_output(2), make_context(2)

    def moved(steps: int, prior: float) -> torch.Tensor:
        return adapted_by_dual(output, queries, context, MbPAConfig(steps=steps, rate=0.5, prior=prior)).moved

    torch.testing.assert_close(moved(1, 0.9), moved(1, 0.0))
    assert (moved(8, 0.9) < moved(8, 0.0)).all()


def test_a_network_that_fits_its_memory_is_left_alone():
    """«as the parametric model becomes better at fitting [...] the correction diminishes»."""
    queries, context = make_context(4)
    fits = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    with torch.no_grad():
        fits.weight.zero_()
        fits.bias.copy_(torch.tensor([50.0, 0.0, 0.0, 0.0]))
    context = context._replace(values=torch.zeros_like(context.values))
    assert adapted_by_dual(fits, queries, context, MbPAConfig(rate=1.0)).moved.max() < 1e-15


def test_attention_is_the_fit_of_a_constant():
    """Appendix E: logits that fit the context alone, whatever the input, give equation 9."""
    queries, context = make_context(6)
    constant = nn.Linear(WIDTH, CLASSES, dtype=torch.float64)
    nn.init.zeros_(constant.weight), nn.init.zeros_(constant.bias)
    without_keys = context._replace(keys=torch.zeros_like(context.keys))  # so that W has no gradient: b alone fits
    fitted = adapted_by_dual(constant, torch.zeros_like(queries), without_keys, MbPAConfig(steps=20_000, rate=1.0))
    expected = mbpa.from_memory(context, CLASSES)
    torch.testing.assert_close(torch.softmax(fitted.outputs, 1), expected, atol=1e-3, rtol=0)
    assert expected.sum(1).tolist() == pytest.approx([1.0] * QUERIES)


def test_attention_of_numbers_is_the_fit_of_a_constant_too():
    queries, context = make_context(7, classes=False, outputs=1)
    constant = nn.Linear(WIDTH, 1, dtype=torch.float64)
    nn.init.zeros_(constant.weight), nn.init.zeros_(constant.bias)
    without_keys = context._replace(keys=torch.zeros_like(context.keys))
    fitted = adapted_by_vmap(constant, torch.zeros_like(queries), without_keys, MbPAConfig(steps=60, rate=0.5))
    expected = (context.weights.unsqueeze(2) * context.values).sum(1)
    torch.testing.assert_close(fitted.outputs, expected)


def test_memory_and_mixture():
    context = Context(
        keys=torch.zeros(1, 3, 2), values=torch.tensor([[2, 0, 2]]), weights=torch.tensor([[0.5, 0.3, 0.2]])
    )
    p = mbpa.from_memory(context, 4)
    torch.testing.assert_close(p, torch.tensor([[0.3, 0.0, 0.7, 0.0]]))
    torch.testing.assert_close(mbpa.mixture(torch.full((1, 4), 0.25), p, 0.9), 0.9 * 0.25 + 0.1 * p)


def make_mbpa(config: MbPAConfig, **sizes) -> MbPA:
    torch.manual_seed(0)
    output = nn.Linear(WIDTH, CLASSES)
    return MbPA(nn.Identity(), output, config, **({"width": WIDTH, "capacity": 20, "labels": CLASSES} | sizes)).eval()


def test_the_learner_fits_what_it_was_told_and_forgets_the_fit():
    learner = make_mbpa(MbPAConfig(neighbours=2, steps=10, rate=1.0))
    xs, ys = torch.eye(3), torch.tensor([2, 0, 1])
    network = torch.softmax(learner(xs), 1)
    learner.begin()
    torch.testing.assert_close(learner.predict(xs), network)  # nothing is in memory yet
    learner.observe(xs, ys)
    first = learner.predict(xs)
    assert (first.argmax(1) == ys).all() and (
        first.gather(1, ys.unsqueeze(1)) > network.gather(1, ys.unsqueeze(1))
    ).all()
    torch.testing.assert_close(learner.predict(xs), first)
    torch.testing.assert_close(torch.softmax(learner(xs), 1), network)
    for optimizer in ("rmsprop", "adam"):
        learner.config = MbPAConfig(neighbours=2, steps=10, rate=0.3, optimizer=optimizer)
        assert (learner.predict(xs).argmax(1) == ys).all()
    learner.config = MbPAConfig(steps=0)
    torch.testing.assert_close(learner.predict(xs), network)


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop"])
def test_the_learner_answers_many_queries_some_at_a_time(monkeypatch, optimizer):
    learner = make_mbpa(MbPAConfig(neighbours=3, steps=2, rate=0.1, optimizer=optimizer))
    xs = torch.from_numpy(normal(1, 15, WIDTH)).float()
    learner.begin()
    assert learner.predict(xs[:0]).shape == (0, CLASSES)
    learner.observe(xs, torch.arange(15) % CLASSES)
    assert learner.predict(xs[:0]).shape == (0, CLASSES)
    whole, sizes, context = learner.adapted(xs), [], learner.memory.context
    monkeypatch.setattr(mbpa, "KEYS_AT_ONCE", 4 * 3 * (WIDTH + 1))
    monkeypatch.setattr(learner.memory, "context", lambda q, k, e: (sizes.append(len(q)), context(q, k, e))[1])
    torch.testing.assert_close(learner.adapted(xs), whole)
    assert sizes == [4, 4, 4, 3]


class Counted:
    """Another index, and how often it was asked."""

    def __init__(self, index):
        self.index, self.asked = index, 0

    def candidates(self, queries, keys, k):
        self.asked += 1
        return self.index.candidates(queries, keys, k)


class Flat:
    """The exact index of faiss."""

    def candidates(self, queries, keys, k):
        faiss = pytest.importorskip("faiss")
        index = faiss.IndexFlatL2(keys.shape[1])
        index.add(keys.numpy())
        return torch.from_numpy(index.search(queries.numpy(), k)[1])


def test_the_learner_asks_the_index_that_it_is_given():
    pytest.importorskip("faiss")
    config = MbPAConfig(neighbours=4, steps=3, rate=0.5)
    xs, ys = torch.from_numpy(normal(2, 30, WIDTH)).float(), torch.arange(30) % CLASSES
    plain, found = make_mbpa(config), []
    for index in (None, Counted(Flat()), Counted(FaissIndex(lists=1))):  # one list is all keys
        learner = make_mbpa(config, index=index)
        learner.output = plain.output
        learner.begin()
        learner.observe(xs, ys)  # the first ten are overwritten
        found.append(learner.adapted(xs))
        assert index is None or index.asked == 1
    for other in found[1:]:
        torch.testing.assert_close(other, found[0])


@pytest.mark.parametrize("labels", [CLASSES, None])
def test_an_episode_is_its_steps(labels):
    torch.manual_seed(0)
    embed, output, config = nn.Linear(2, WIDTH), nn.Linear(WIDTH, CLASSES), MbPAConfig(neighbours=4, steps=2, rate=0.5)
    learner = MbPA(embed, output, config, width=WIDTH, capacity=9, labels=labels, values=CLASSES)
    xs = torch.from_numpy(normal(3, 2, 8, 2)).float()
    ys = torch.arange(16).view(2, 8) % CLASSES
    ys = ys if labels else nn.functional.one_hot(ys, CLASSES).float()
    together = learner.episode(xs, ys)
    keys = learner.memory.keys.clone()
    learner.begin()
    for t in range(8):
        now = together[:, t] if labels is None else torch.softmax(together[:, t], 1)
        torch.testing.assert_close(learner.predict(xs[:, t]), now)
        learner.observe(xs[:, t], ys[:, t])
    torch.testing.assert_close(learner.memory.keys, keys)
    torch.testing.assert_close(together[:, 0], learner(xs[:, 0]).detach())  # nothing was told yet
    assert (together[:, -1] - learner(xs[:, -1])).abs().max() > 1e-3


def test_the_learner_predicts_numbers():
    torch.manual_seed(0)
    learner = MbPA(
        nn.Identity(), nn.Linear(1, 1), MbPAConfig(neighbours=1, steps=50, rate=0.3), width=1, capacity=9, labels=None
    )
    learner.begin()
    learner.observe(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [-3.0]]))
    torch.testing.assert_close(learner.predict(torch.tensor([[0.1], [0.9]])).round(), torch.tensor([[5.0], [-3.0]]))


def test_what_makes_no_sense_is_refused():
    with pytest.raises(RuntimeError, match=r"call mbpa.begin\(\) first"):
        make_mbpa(MbPAConfig()).predict(torch.zeros(1, 3))
    for wrong, message in (
        ({"neighbours": 0}, "neighbours must be 1 or more"),
        ({"steps": -1}, "steps must be 0 or more"),
        ({"rate": -0.1}, "rate must be 0 or more"),
        ({"rate": float("nan")}, "rate must be 0 or more"),
        ({"prior": 5.0}, "prior must be from 0 to 1"),
        ({"prior": -0.1}, "prior must be from 0 to 1"),
        ({"decay": 2.0}, "decay must be from 0 to 1"),
        ({"square": -1.0}, "square must be 0 or more"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            MbPAConfig(**wrong)
    output, (queries, context) = make_output(1), make_context(1)
    unknown = MbPAConfig()
    object.__setattr__(unknown, "optimizer", "lbfgs")  # past the type checker of the tests
    with pytest.raises(ValueError, match="there is no local optimizer 'lbfgs'"):
        unknown.__post_init__()
    with pytest.raises(ValueError, match="gradient descent"):
        adapted_by_dual(output, queries, context, MbPAConfig(optimizer="adam"))
    with pytest.raises(ValueError, match=r"nn\.Linear, nn\.ReLU, nn\.Linear"):
        adapted_by_first_dual(nn.Sequential(nn.ReLU(), output), queries, context, MbPAConfig())
