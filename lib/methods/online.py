"""The loop that all methods share: see x, predict y, then be told y.

An `OnlineLearner` has two views of itself, which tests hold equal step by step:

    logits = learner(xs, ys)                                     # a whole episode, batched and differentiable
    learner.begin(batch_size); p = learner.predict(x); learner.observe(x, y)      # one step at a time
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from lib.tasks.labels import Labels

CHUNK = 10  # steps in one call of `unroll`: long enough for a compiled form to gain, short enough to compile in seconds


class OnlineLearner(nn.Module):
    """A network that meets an episode step by step and is told each label one step late.

    A subclass gives `initial_state`, `step` and `read_out`; `project` where a part of the step does not depend on the
    state and can be done for the whole episode at once.
    """

    def __init__(self, features: int, labels: Labels):
        super().__init__()
        self.features, self.labels = features, labels
        self.state: Any = None
        self.told: Tensor | None = None

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first step: a named tuple of tensors with `batch_size` rows."""
        raise NotImplementedError

    def step(self, projected: Float[Tensor, "batch projected"], state: Any) -> tuple[Float[Tensor, "batch out"], Any]:
        """One step: the projected input and the last state give an output and the next state. Changes nothing."""
        raise NotImplementedError

    def read_out(self, output: Float[Tensor, "*any out"]) -> Float[Tensor, "*any outputs"]:
        """What an output of `step` predicts, in the form that `self.labels` reads: logits, for classes."""
        raise NotImplementedError

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time projected"]:
        """What a step needs of its input, for all steps at once."""
        return inputs

    def carry_over(self, state: Any) -> Any:
        """The state to begin an episode with where the memory is not wiped after the last one, which left `state`."""
        raise ValueError(f"{type(self).__name__} cannot carry a memory over from one episode to the next")

    def unroll(
        self, projected: Float[Tensor, "batch time projected"], state: Any
    ) -> tuple[Float[Tensor, "batch time out"], Any]:
        """`step` over several steps."""
        outputs = []
        for now in projected.unbind(1):  # indexing would cost the backward pass a whole tensor of zeros a step
            output, state = self.step(now, state)
            outputs.append(output)
        return torch.stack(outputs, dim=1), state

    def fast_unroll(self) -> Callable | None:
        """A form of `unroll` that gives the same and trains faster where the weights are; None if there is none."""
        return None

    def compiled_unroll(self) -> Callable | None:
        """`unroll` compiled by PyTorch, some steps at a time; None for a learner that a compiler makes no faster."""
        compiled = torch.compile(self.unroll, dynamic=False)

        def unroll(projected: Tensor, state: Any) -> tuple[Tensor, Any]:
            outputs = []
            for chunk in projected.split(CHUNK, dim=1):
                output, state = compiled(chunk, state)
                outputs.append(output)
            return torch.cat(outputs, dim=1), state

        return unroll

    def forward(
        self,
        xs: Float[Tensor, "batch time features"],
        ys: Shaped[Tensor, "batch time"],
        unroll: Callable | None = None,
    ) -> Float[Tensor, "batch time outputs"]:
        """Outputs for every step of a batch of episodes; the prediction at step t has been told ys[:, :t] only.

        xs: (B, T, features); ys: (B, T); unroll: another form of `self.unroll`, such as a compiled one. Raises
        ValueError for wrong shapes.
        """
        return self.episode(xs, ys, None, unroll)[0]

    def inputs(
        self, xs: Float[Tensor, "batch time features"], ys: Shaped[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time inputs"]:
        """What each step is shown: x_t and y_{t-1}, which is all zeros before the first label."""
        told = F.pad(self.labels.encode(ys[:, :-1]), (0, 0, 1, 0))
        return torch.cat([xs, told.to(xs.dtype)], dim=-1)

    def episode(
        self,
        xs: Float[Tensor, "batch time features"],
        ys: Shaped[Tensor, "batch time"],
        state: Any = None,
        unroll: Callable | None = None,
    ) -> tuple[Float[Tensor, "batch time outputs"], Any]:
        """As `forward`, from a given state (None: an empty memory); also returns the state after the last step."""
        projected, empty = self.prepare(xs, ys)
        outputs, state = (unroll or self.unroll)(projected, empty if state is None else state)
        return self.read_out(outputs), state

    def prepare(
        self, xs: Float[Tensor, "batch time features"], ys: Shaped[Tensor, "batch time"]
    ) -> tuple[Float[Tensor, "batch time projected"], Any]:
        """What `unroll` is given for a batch of episodes: the projected inputs, and the state of an empty memory."""
        self._check(xs, ys, dimensions=3)
        return self.project(self.inputs(xs, ys)), self.initial_state(xs.shape[0])

    def step_by_step(
        self, xs: Float[Tensor, "batch time features"], ys: Shaped[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time outputs"]:
        """`forward` as `predict` and `observe` do it, projection and all: what its faster forms are measured by."""
        self._check(xs, ys, dimensions=3)
        self.begin(len(xs))
        outputs = []
        for x, y in zip(xs.unbind(1), ys.unbind(1), strict=True):
            output, self.state = self._advance(x)
            self.told = self.labels.encode(y).to(self.told)
            outputs.append(self.read_out(output))
        self.state = None  # the stream is over
        return torch.stack(outputs, dim=1)

    @torch.no_grad()
    def begin(self, batch_size: int = 1) -> None:
        """Start a stream of `batch_size` parallel episodes with an empty memory."""
        self.state = self.initial_state(batch_size)
        self.told = next(self.parameters()).new_zeros(batch_size, self.labels.width)

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch *prediction"]:
        """What is predicted for the input x of the present step: class probabilities, or what else `self.labels` gives.

        Changes nothing: ask as often as you like.
        """
        return self.labels.predict(self.read_out(self._advance(x)[0]))

    @torch.no_grad()
    def observe(self, x: Float[Tensor, "batch features"], y: Shaped[Tensor, " batch"]) -> None:
        """End the present step: x goes into the memory, and its label y will be told with the next input."""
        self._check(x, y, dimensions=2)
        self.state = self._advance(x)[1]
        self.told = self.labels.encode(y).to(self.told)

    def _advance(self, x: Tensor) -> tuple[Tensor, Any]:
        if self.state is None:
            raise RuntimeError("the stream has not begun: call learner.begin(batch_size) first")
        expected = (len(self.told), self.features)
        if x.shape != expected:
            raise ValueError(f"expected an input {expected} for this stream, got {tuple(x.shape)}")
        inputs = torch.cat([x, self.told.to(x.dtype)], dim=-1)
        return self.step(self.project(inputs.unsqueeze(1))[:, 0], self.state)

    def _check(self, x: Tensor, y: Tensor, dimensions: int) -> None:
        if x.ndim != dimensions or x.shape[-1] != self.features or y.shape != x.shape[:-1]:
            leading = "(B, T" if dimensions == 3 else "(B"
            raise ValueError(
                f"expected inputs {leading}, {self.features}) and labels {leading}), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )
