"""The loop that all methods share: see x, predict y, then be told y.

An `OnlineLearner` has two views of itself, which tests hold equal step by step:

    logits = learner(xs, ys)                                     # a whole episode, batched and differentiable
    learner.begin(batch_size); p = learner.predict(x); learner.observe(x, y)      # one step at a time
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

NO_LABEL = -1  # the label told before the first step: an all-zero one-hot vector
CHUNK = 10  # steps in one call of `unroll`: long enough for a compiled form to gain, short enough to compile in seconds


class OnlineLearner(nn.Module):
    """A network that meets an episode step by step and is told each label one step late.

    A subclass gives `initial_state`, `step` and `classify`; `project` where a part of the step does not depend on the
    state and can be done for the whole episode at once.
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.features, self.classes = features, classes
        self.state: Any = None
        self.previous_label: Tensor | None = None

    def initial_state(self, batch_size: int) -> Any:
        """The state before the first step: a named tuple of tensors with `batch_size` rows."""
        raise NotImplementedError

    def step(self, projected: Float[Tensor, "batch projected"], state: Any) -> tuple[Float[Tensor, "batch out"], Any]:
        """One step: the projected input and the last state give an output and the next state. Changes nothing."""
        raise NotImplementedError

    def classify(self, output: Float[Tensor, "*any out"]) -> Float[Tensor, "*any classes"]:
        """Logits of an output of `step`."""
        raise NotImplementedError

    def project(self, inputs: Float[Tensor, "batch time inputs"]) -> Float[Tensor, "batch time projected"]:
        """What a step needs of its input, for all steps at once."""
        return inputs

    def unroll(
        self, projected: Float[Tensor, "batch time projected"], state: Any
    ) -> tuple[Float[Tensor, "batch time out"], Any]:
        """`step` over several steps."""
        outputs = []
        for t in range(projected.shape[1]):
            output, state = self.step(projected[:, t], state)
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
        ys: Int[Tensor, "batch time"],
        unroll: Callable | None = None,
    ) -> Float[Tensor, "batch time classes"]:
        """Logits for every step of a batch of episodes; the prediction at step t has been told ys[:, :t] only.

        xs: (B, T, features); ys: (B, T), class indices; unroll: another form of `self.unroll`, such as a compiled one.
        Raises ValueError for wrong shapes.
        """
        self._check(xs, ys, dimensions=3)
        unroll = unroll or self.unroll
        previous = F.pad(ys[:, :-1], (1, 0), value=NO_LABEL)
        projected = self.project(self._with_label(xs, previous))
        outputs, _ = unroll(projected, self.initial_state(xs.shape[0]))
        return self.classify(outputs)

    def step_by_step(
        self, xs: Float[Tensor, "batch time features"], ys: Int[Tensor, "batch time"]
    ) -> Float[Tensor, "batch time classes"]:
        """`forward` as `predict` and `observe` do it, projection and all: what its faster forms are measured by."""
        self._check(xs, ys, dimensions=3)
        self.begin(len(xs))
        logits = []
        for x, y in zip(xs.unbind(1), ys.unbind(1), strict=True):
            output, self.state = self._advance(x)
            self.previous_label = y
            logits.append(self.classify(output))
        self.state = None  # the stream is over
        return torch.stack(logits, dim=1)

    @torch.no_grad()
    def begin(self, batch_size: int = 1) -> None:
        """Start a stream of `batch_size` parallel episodes with an empty memory."""
        self.state = self.initial_state(batch_size)
        self.previous_label = torch.full((batch_size,), NO_LABEL, device=self._device())

    @torch.no_grad()
    def predict(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch classes"]:
        """Class probabilities for the input x of the present step. Changes nothing: ask as often as you like."""
        return torch.softmax(self.classify(self._advance(x)[0]), dim=-1)

    @torch.no_grad()
    def observe(self, x: Float[Tensor, "batch features"], y: Int[Tensor, " batch"]) -> None:
        """End the present step: x goes into the memory, and its label y will be told with the next input."""
        self._check(x, y, dimensions=2)
        self.state = self._advance(x)[1]
        self.previous_label = y.to(self._device())

    def _advance(self, x: Tensor) -> tuple[Tensor, Any]:
        if self.state is None:
            raise RuntimeError("the stream has not begun: call learner.begin(batch_size) first")
        expected = (len(self.previous_label), self.features)
        if x.shape != expected:
            raise ValueError(f"expected an input {expected} for this stream, got {tuple(x.shape)}")
        inputs = self._with_label(x, self.previous_label)
        return self.step(self.project(inputs.unsqueeze(1))[:, 0], self.state)

    def _with_label(self, x: Tensor, previous_label: Tensor) -> Tensor:
        label = F.one_hot(previous_label + 1, self.classes + 1)[..., 1:]
        return torch.cat([x, label.to(x.dtype)], dim=-1)

    def _check(self, x: Tensor, y: Tensor, dimensions: int) -> None:
        if x.ndim != dimensions or x.shape[-1] != self.features or y.shape != x.shape[:-1]:
            leading = "(B, T" if dimensions == 3 else "(B"
            raise ValueError(
                f"expected inputs {leading}, {self.features}) and labels {leading}), "
                f"got {tuple(x.shape)} and {tuple(y.shape)}"
            )

    def _device(self) -> torch.device:
        return next(self.parameters()).device
