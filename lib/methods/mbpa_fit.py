"""MbPA's local fit (Sprechmann et al. 2018, equations 2 to 4): an output network fitted to a query's neighbours.

A step descends the loss of what was retrieved, and is drawn back to θ:

    θ_x ← θ_x - α ∇ Σ_k w_k (-log p(v_k | h_k, θ_x)) - β (θ_x - θ)

Equation 4 has its signs so that the likelihood would fall and θ_x be pushed away from θ; the text says «gradient
descent [...] to minimise (3)», which is the line above. With one step θ_x = θ and β has no effect.

All ways give the same. `adapted_by_loop` is the plain one: a copy of g_θ for each query and PyTorch's optimizers.
`adapted_by_vmap` does all queries at once, for any output network and optimizer. `adapted_by_batch` does so for one
linear layer, whose gradient is written by hand. `adapted_by_dual` is exact for gradient descent on a softmax layer: its
weights stay θ - Σ_k c_k (h_k, 1)ᵀ, so that only the products of the neighbours with each other and with the query are
needed, and no copy of θ at all. `adapted_by_first_dual` does so for the first of two layers, whose inputs are the keys
and do not change either; the second is fitted as by batch. `fitter` picks.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lib.memory.episodic import Context

# Weights of copies of θ, or numbers of c_k, that are held at once. On a GPU 256 MB, and as much for gradients; on a CPU
# what caches hold, since every step goes through all of them: measured, more is slower, and less is too, for what each
# call costs.
WEIGHTS_AT_ONCE_ON_GPU, WEIGHTS_AT_ONCE, WEIGHTS_AT_ONCE_BY_BATCH = 2**26, 2**20, 2**18
OPTIMIZERS = ("sgd", "rmsprop", "adam")
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class MbPAConfig:
    """How the output network is fitted to a query."""

    neighbours: int = 50
    """K (paper: «saturates quickly after 50» on ImageNet; 256 for language)."""
    steps: int = 1
    """T, of the descent; 0 is the parametric network alone (paper: 1 for language, tuned from 1 to 20 elsewhere)."""
    rate: float = 0.15
    """α_M (paper: 0.15 for language, tuned elsewhere)."""
    prior: float = 0.0
    """β: the part of θ_x - θ that each step takes back; no effect with one step (paper: tuned for language)."""
    optimizer: Literal["sgd", "rmsprop", "adam"] = "sgd"
    """What makes a step of a gradient (paper: RMSprop for ImageNet)."""
    decay: float = 0.9
    """Of RMSprop's mean square (paper: silent; by default 0.99 in PyTorch, 0.9 in TensorFlow 1)."""
    square: float = 0.0
    """RMSprop's mean square at the beginning: 0 in PyTorch, 1 in TensorFlow 1 (paper: silent). From 0 the first step
    moves every weight alike, by rate / sqrt(1 - decay), however small its gradient; from 1 it is near that of gradient
    descent."""
    epsilon: float = 1e-3
    """ε of the kernel, in squared distance (paper: silent; 10⁻³ in the work that it takes the kernel from)."""

    def __post_init__(self):
        if self.neighbours < 1:
            raise ValueError(f"neighbours must be 1 or more, not {self.neighbours}")
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, not {self.steps}")
        if not self.rate >= 0:
            raise ValueError(f"rate must be 0 or more, not {self.rate}: the fit descends")
        for name in ("prior", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {getattr(self, name)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"there is no local optimizer {self.optimizer!r}: choose sgd, rmsprop or adam")
        if not self.square >= 0:
            raise ValueError(f"square must be 0 or more, not {self.square}: it is a mean of squares")
        if not self.epsilon > 0:
            raise ValueError(f"epsilon must be positive, not {self.epsilon}: the kernel divides by it")


class Adapted(NamedTuple):
    """What the fitted network says of each query, and how far its weights had to move for it."""

    outputs: Float[Tensor, "queries outputs"]
    moved: Float[Tensor, " queries"]
    """‖θ_x - θ‖"""


def fit_loss(
    outputs: Float[Tensor, "k outputs"], values: Shaped[Tensor, "k *value"], weights: Float[Tensor, " k"]
) -> Float[Tensor, ""]:
    """Σ_k w_k (-log p(v_k | h_k, θ)): of classes, or of numbers as normal ones of variance 1, without its constant."""
    if values.is_floating_point():
        return (weights * (outputs - values).square().sum(1)).sum() / 2
    return (weights * F.cross_entropy(outputs, values, reduction="none")).sum()


class Mover(NamedTuple):
    """An optimizer as two functions of tensors, so that they can be applied to a query's weights one by one."""

    start: Callable[[Tensor], tuple[Tensor, ...]]
    """What it keeps of a weight at the beginning."""
    move: Callable[[Tensor, tuple[Tensor, ...], int], tuple[Tensor, tuple[Tensor, ...]]]
    """(gradient, kept, step from 1) to what is taken off the weight, and what is kept."""


def mover(config: MbPAConfig) -> Mover:
    """The local optimizer, with PyTorch's constants where the config has none."""
    rate = config.rate
    if config.optimizer == "sgd":
        return Mover(lambda weight: (), lambda gradient, kept, step: (rate * gradient, kept))
    if config.optimizer == "rmsprop":

        def by_size(gradient: Tensor, kept: tuple[Tensor, ...], step: int) -> tuple[Tensor, tuple[Tensor, ...]]:
            square = config.decay * kept[0] + (1 - config.decay) * gradient.square()
            return rate * gradient / (square.sqrt() + 1e-8), (square,)

        return Mover(lambda weight: (torch.full_like(weight, config.square),), by_size)

    def by_moments(gradient: Tensor, kept: tuple[Tensor, ...], step: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        mean, square = 0.9 * kept[0] + 0.1 * gradient, 0.999 * kept[1] + 0.001 * gradient.square()
        size = (square / (1 - 0.999**step)).sqrt() + 1e-8
        return rate * (mean / (1 - 0.9**step)) / size, (mean, square)

    return Mover(lambda weight: (torch.zeros_like(weight), torch.zeros_like(weight)), by_moments)


def adapted_by_loop(
    output: nn.Module, queries: Float[Tensor, "queries width"], context: Context, config: MbPAConfig
) -> Adapted:
    """Query after query, with a copy of the output network and an optimizer of PyTorch for each: what the others are
    held to and measured by."""
    if not len(queries):
        return untouched(output, queries)
    outputs, moved = [], []
    for q, keys, values, weights in zip(queries, *context, strict=True):
        own = copy.deepcopy(output).requires_grad_(True)
        optimizer = _optimizer(own, config)
        for _ in range(config.steps):
            before = [weight.detach().clone() for weight in own.parameters()]
            optimizer.zero_grad()
            with torch.enable_grad():
                fit_loss(own(keys), values, weights).backward()
            optimizer.step()
            with torch.no_grad():
                for weight, was, start in zip(own.parameters(), before, output.parameters(), strict=True):
                    weight -= config.prior * (was - start)
        with torch.no_grad():
            outputs.append(own(q.unsqueeze(0)).squeeze(0))
            changes = [a - b for a, b in zip(own.parameters(), output.parameters(), strict=True)]
            moved.append(torch.stack([change.square().sum() for change in changes]).sum().sqrt())
    return Adapted(torch.stack(outputs), torch.stack(moved))


def untouched(output: nn.Module, queries: Tensor) -> Adapted:
    """What the network says as it is: all there is where nothing is to be fitted."""
    with torch.no_grad():
        return Adapted(output(queries), queries.new_zeros(len(queries)))


def _optimizer(output: nn.Module, config: MbPAConfig) -> torch.optim.Optimizer:
    if config.optimizer == "sgd":
        return torch.optim.SGD(output.parameters(), lr=config.rate)
    if config.optimizer == "adam":
        return torch.optim.Adam(output.parameters(), lr=config.rate)
    optimizer = torch.optim.RMSprop(output.parameters(), lr=config.rate, alpha=config.decay)
    for weight in output.parameters():
        square = torch.full_like(weight, config.square)
        optimizer.state[weight] = {"step": torch.zeros(()), "square_avg": square}
    return optimizer


@torch.no_grad()
def adapted_by_vmap(
    output: nn.Module, queries: Float[Tensor, "queries width"], context: Context, config: MbPAConfig
) -> Adapted:
    """All queries at once, a copy of θ for each: for any output network and optimizer. The network must not draw
    random numbers: it has to be in evaluation mode if it has dropout."""
    if not len(queries):
        return untouched(output, queries)
    theta, optimizer = {name: weight.detach() for name, weight in output.named_parameters()}, mover(config)

    def loss(own: Weights, keys: Tensor, values: Tensor, weights: Tensor) -> Tensor:
        return fit_loss(functional_call(output, own, (keys,)), values, weights)

    def one(q: Tensor, keys: Tensor, values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        own, kept = theta, {name: optimizer.start(weight) for name, weight in theta.items()}
        for step in range(1, config.steps + 1):
            gradient, changed = grad(loss)(own, keys, values, weights), {}
            for name, weight in own.items():
                change, kept[name] = optimizer.move(gradient[name], kept[name], step)
                changed[name] = weight - change - config.prior * (weight - theta[name])
            own = changed
        square = sum((own[name] - theta[name]).square().sum() for name in theta)
        return functional_call(output, own, (q.unsqueeze(0),)).squeeze(0), square.sqrt()

    some = _at_once(queries, WEIGHTS_AT_ONCE, sum(weight.numel() for weight in theta.values()))
    return Adapted(*vmap(one, chunk_size=some)(queries, *context))


def _at_once(queries: Tensor, on_cpu: int, per_query: int) -> int:
    """How many queries are fitted at once."""
    return max(1, (WEIGHTS_AT_ONCE_ON_GPU if queries.is_cuda else on_cpu) // max(1, per_query))


def in_parts(fit: Callable[..., Adapted], some: int, *of_queries: Tensor) -> Adapted:
    """fit of some queries at a time, and what else there is for each of them."""
    found = [fit(*each) for each in zip(*(tensor.split(some) for tensor in of_queries), strict=True)]
    return Adapted(*(torch.cat(each) for each in zip(*found, strict=True)))


@torch.no_grad()
def adapted_by_batch(
    output: nn.Linear, queries: Float[Tensor, "queries width"], context: Context, config: MbPAConfig
) -> Adapted:
    """One linear layer, of classes or of numbers, by any of the optimizers: as many queries at once as caches hold.

    With d_k = w_k (softmax(W h_k + b) - e_{v_k}), or w_k (W h_k + b - v_k) for numbers, the gradients are Σ_k d_k h_kᵀ
    and Σ_k d_k: two products of small matrices a step for each query, and updates in place.
    """
    some = _at_once(queries, WEIGHTS_AT_ONCE_BY_BATCH, output.weight.numel())
    return in_parts(lambda q, *own: _fitted_layers(output, q, Context(*own), config), some, queries, *context)


def _fitted_layers(output: nn.Linear, queries: Tensor, context: Context, config: MbPAConfig) -> Adapted:
    (keys, values, weights), optimizer = context, mover(config)
    theta = _weights_of(output)
    own = [weight.expand(len(queries), -1, -1).clone() for weight in theta]
    kept = [optimizer.start(weight) for weight in own]

    for step in range(1, config.steps + 1):
        error = _error(_layer(own, keys), values, weights)
        gradients = (torch.bmm(error.mT, keys), error.sum(1, keepdim=True))
        for weight, gradient, held, start in zip(own, gradients, kept, theta, strict=False):  # biases, if there are any
            if config.prior:
                weight.lerp_(start, config.prior)  # the gradient is that of before, as the prior's part is
            _move_in_place(weight, gradient, held, step, config)
    fitted = _layer(own, queries.unsqueeze(1)).squeeze(1)
    changes = [weight.sub_(start).flatten(1) for weight, start in zip(own, theta, strict=True)]
    return Adapted(fitted, torch.stack([torch.linalg.vector_norm(each, dim=1) for each in changes]).norm(dim=0))


def _weights_of(layer: nn.Linear) -> list[Tensor]:
    """Its weight, and its biases as a row if it has any."""
    return [layer.weight] if layer.bias is None else [layer.weight, layer.bias.unsqueeze(0)]


def _layer(own: list[Tensor], inputs: Tensor) -> Tensor:
    """What each query's own layer makes of each of its inputs."""
    return torch.baddbmm(own[1], inputs, own[0].mT) if len(own) > 1 else torch.bmm(inputs, own[0].mT)


def _error(outputs: Tensor, values: Tensor, weights: Tensor, dim: int = 2) -> Tensor:
    """d_k: the gradient of the loss by what a network says of each neighbour, in its place: (queries, k, outputs), or
    (queries, outputs, k) where dim is 1."""
    if values.is_floating_point():
        error = outputs.sub_(values if dim == 2 else values.mT)
    else:
        error, at = torch.softmax(outputs, dim), values.unsqueeze(dim)
        error.scatter_add_(dim, at, error.new_full((1, 1, 1), -1.0).expand_as(at))
    return error.mul_(weights.unsqueeze(dim))


def _move_in_place(weight: Tensor, gradient: Tensor, kept: tuple[Tensor, ...], step: int, config: MbPAConfig) -> None:
    """As `mover`, with nothing new but one room for roots."""
    if config.optimizer == "sgd":
        weight.sub_(gradient, alpha=config.rate)
    elif config.optimizer == "rmsprop":
        (square,) = kept
        square.mul_(config.decay).addcmul_(gradient, gradient, value=1 - config.decay)
        weight.addcdiv_(gradient, square.sqrt().add_(1e-8), value=-config.rate)
    else:
        mean, square = kept
        mean.lerp_(gradient, 0.1)
        square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        size = (square / (1 - 0.999**step)).sqrt_().add_(1e-8)
        weight.addcdiv_(mean, size, value=-config.rate / (1 - 0.9**step))


@torch.no_grad()
def adapted_by_dual(
    output: nn.Linear,
    queries: Float[Tensor, "queries width"],
    context: Context,
    config: MbPAConfig,
    p: Float[Tensor, "queries k outputs"] | None = None,
) -> Adapted:
    """Gradient descent on a softmax layer without a copy of it.

    After every step W = W_θ - Σ_k c_k h_kᵀ and b = b_θ - Σ_k c_k, so a step changes the K vectors c_k alone:

        c_k ← (1 - β) c_k + α w_k (p_k - e_{v_k}),     p_k = softmax(W h_k + b) = softmax(W_θ h_k + b_θ - Σ_j g_kj c_j)

    with g_kj = h_k·h_j, and 1 more if the layer has biases. p: p_k by θ, where it is known, as it is once a memory was
    written. Some queries at a time: c is as large as their keys' logits. Raises ValueError for another optimizer or
    values that are no classes.
    """
    if config.optimizer != "sgd" or not isinstance(output, nn.Linear) or context.values.is_floating_point():
        raise ValueError("the dual form is of gradient descent (sgd) on a softmax layer, an nn.Linear of classes")
    some = _at_once(queries, WEIGHTS_AT_ONCE, context.values.shape[1] * output.out_features)
    if len(queries) > some:
        known = () if p is None else (p,)

        def part(q: Tensor, k: Tensor, v: Tensor, w: Tensor, *known: Tensor) -> Adapted:
            return adapted_by_dual(output, q, Context(k, v, w), config, *known)

        return in_parts(part, some, queries, *context, *known)
    one = 0.0 if output.bias is None else 1.0
    keys, values, weights = context
    gram = keys @ keys.mT + one
    to_query = (keys @ queries.unsqueeze(2)).squeeze(2) + one
    logits = None if p is not None and config.steps <= 1 else output(keys)
    c = keys.new_zeros(*values.shape, output.out_features)
    for step in range(config.steps):
        now = p if step == 0 and p is not None else torch.softmax(logits - gram @ c, dim=2)
        error = now.scatter_add(2, values.unsqueeze(2), now.new_full((1, 1, 1), -1.0).expand(*values.shape, 1))
        c = (1 - config.prior) * c + config.rate * weights.unsqueeze(2) * error
    outputs = output(queries) - (to_query.unsqueeze(1) @ c).squeeze(1)
    return Adapted(outputs, ((gram @ c) * c).sum((1, 2)).clamp(min=0).sqrt())


@torch.no_grad()
def adapted_by_first_dual(
    output: nn.Sequential, queries: Float[Tensor, "queries width"], context: Context, config: MbPAConfig
) -> Adapted:
    """Gradient descent on two layers with ReLUs between them, without a copy of the first: where keys are long, as
    images are, it has most of the weights.

    The first layer is as in `adapted_by_dual`: for neighbour k it gives a_k = W_θ h_k + b_θ - Σ_j g_kj c_j. The second,
    V and its biases, is fitted as in `adapted_by_batch`, with relu(a_k) in the place of the keys. A step takes
    c_k ← (1 - β) c_k + α (Vᵀ d_k where a_k > 0, else 0). Raises ValueError for another optimizer or network.
    """
    if config.optimizer != "sgd" or not _has_two_layers(output):
        raise ValueError("this form is of gradient descent (sgd) on an nn.Sequential of nn.Linear, nn.ReLU, nn.Linear")
    if not len(queries):
        return untouched(output, queries)
    of_keys = context.values.shape[1] * output[0].out_features
    some = _at_once(queries, WEIGHTS_AT_ONCE_BY_BATCH, of_keys + output[2].weight.numel())
    return in_parts(lambda q, *own: _fitted_two_layers(output, q, Context(*own), config), some, queries, *context)


def _has_two_layers(output: nn.Module) -> bool:
    return isinstance(output, nn.Sequential) and [type(each) for each in output] == [nn.Linear, nn.ReLU, nn.Linear]


def _fitted_two_layers(output: nn.Sequential, queries: Tensor, context: Context, config: MbPAConfig) -> Adapted:
    first, _, second = output
    keys, values, weights = context
    one = 0.0 if first.bias is None else 1.0
    gram, to_query = torch.bmm(keys, keys.mT).add_(one), torch.bmm(keys, queries.unsqueeze(2)).add_(one)
    by_theta, theta = first(keys), _weights_of(second)
    own, c = [weight.expand(len(queries), -1, -1).clone() for weight in theta], torch.zeros_like(by_theta)
    hidden, back = torch.empty_like(c), torch.empty_like(c)
    for _ in range(config.steps):
        torch.baddbmm(by_theta, gram, c, alpha=-1, out=hidden).relu_()
        outputs = torch.bmm(own[0], hidden.mT)  # (queries, outputs, k): of few classes the softmax is faster so
        if len(own) > 1:
            outputs += own[1].mT
        error = _error(outputs, values, weights, dim=1)
        torch.bmm(error.mT, own[0], out=back)
        gradients = (torch.bmm(error, hidden), error.sum(2).unsqueeze(1))
        if config.prior:
            c.mul_(1 - config.prior)
            for weight, start in zip(own, theta, strict=True):
                weight.lerp_(start, config.prior)
        c.addcmul_(back, hidden.sign_(), value=config.rate)
        for weight, gradient in zip(own, gradients, strict=False):
            weight.sub_(gradient, alpha=config.rate)
    hidden = (first(queries).unsqueeze(1) - torch.bmm(to_query.mT, c)).relu_()
    fitted = _layer(own, hidden).squeeze(1)
    squares = [
        torch.bmm(gram, c).mul_(c),
        *((weight - start).square_() for weight, start in zip(own, theta, strict=True)),
    ]
    return Adapted(fitted, sum(each.sum((1, 2)) for each in squares).clamp(min=0).sqrt())


def fitter(output: nn.Module, config: MbPAConfig, classes: bool) -> Callable[..., Adapted]:
    """The fastest of the ways that fit such an output network."""
    if config.optimizer == "sgd" and isinstance(output, nn.Linear) and classes:
        return adapted_by_dual
    if config.optimizer == "sgd" and _has_two_layers(output):
        return adapted_by_first_dual
    return adapted_by_batch if isinstance(output, nn.Linear) else adapted_by_vmap
