"""FLMN's training on the CPU, fast: the same steps as `lib/methods/flmn.py`, with the derivative written by hand.

Built as MANN's fast form is (`lib/methods/mann_fast.py`): one C function for all steps of a batch of episodes
(`lib/kernels/flmn.c`), one for their derivative.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.kernels.unrolled import Kernel, by_weights, fast_form, panels, whole_vectors
from lib.methods.flmn import FLMN, FLMNConfig, FLMNState

SIZES = ("threads", "batch", "steps", "units", "heads", "slots", "padded", "width", "dynamic", "same_step")
WEIGHTS = ("from_state", "to_vectors", "to_gate", "vectors_bias", "gate_bias")
OF_STEPS = ("outputs", "gates", "cell", "squashed", "vectors", "gate", "read_weights", "write_weights")
OF_STEPS += ("cosine", "scale", "erased", "least_used")
OF_EPISODES = ("features", "labels", "usage", "scratch")
DERIVATIVES = ("d_outputs", "d_gates", "d_vectors", "d_alpha", "d_cell", "d_features", "d_labels")
DERIVATIVES += ("d_read_weights", "d_write_weights")
KERNEL = Kernel("flmn", SIZES, ("decay",), WEIGHTS + OF_STEPS + OF_EPISODES + DERIVATIVES)


def fast_unroll(learner: FLMN) -> Callable[[Tensor, FLMNState], tuple[Tensor, FLMNState]] | None:
    """`learner.unroll` made fast; None where it cannot be: not on the CPU, no C compiler, another dtype.

    No gradient passes to the state that it is given, nor from the state that it returns: episodes stand alone.
    """

    def run(projected: Tensor, state: FLMNState) -> tuple[Tensor, FLMNState]:
        dynamic = learner.config.gate == "dynamic"
        gate = (learner.to_gate.weight, learner.to_gate.bias) if dynamic else (None, learner.alpha)
        vectors = (learner.to_vectors.weight, learner.to_vectors.bias)
        outputs, *final = _Unroll.apply(projected, learner.from_state.weight, *vectors, *gate, learner.config, state)
        return outputs, FLMNState(*final)

    return fast_form(learner, KERNEL.name, run)


class _Unroll(torch.autograd.Function):
    """Forward and backward over all steps of a batch of episodes."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        from_state: Tensor,
        to_vectors: Tensor,
        vectors_bias: Tensor,
        to_gate: Tensor | None,
        gate_bias: Tensor,
        config: FLMNConfig,
        state: FLMNState,
    ):
        batch, steps, _ = projected.shape
        units, slots, width = config.hidden, config.slots, config.width
        padded = whole_vectors(slots)
        new = projected.new_empty

        def columns(memory: Tensor) -> Tensor:
            return F.pad(memory.transpose(1, 2), (0, padded - slots)).contiguous()

        kept = {
            "outputs": new(batch, steps + 1, units + width),
            "gates": projected.clone(memory_format=torch.contiguous_format),
            "cell": new(batch, steps + 1, units),
            "squashed": new(batch, steps, units),
            "vectors": new(batch, steps, 3 * width),
            "gate": new(batch, steps, 1),
            "read_weights": new(batch, steps + 1, padded),
            "write_weights": new(batch, steps + 1, padded),
            "cosine": new(batch, steps, padded),
            "scale": new(batch, steps, padded),
            "erased": new(batch, steps, width),
            "least_used": torch.empty(batch, steps + 1, 1, dtype=torch.int64),
            "features": columns(state.feature_memory),
            "labels": columns(state.label_memory),
            "scratch": new(batch, 2, padded),
        }
        usage = F.pad(state.usage, (0, padded - slots)).clone(memory_format=torch.contiguous_format)
        kept["outputs"][:, 0] = torch.cat([state.hidden, state.read], dim=1)
        kept["cell"][:, 0] = state.cell
        for name in ("read_weights", "write_weights"):
            kept[name][:, 0] = F.pad(getattr(state, name).squeeze(1), (0, padded - slots))
        kept["least_used"][:, 0] = state.least_used.argmax(-1)

        weights = {"from_state": panels(from_state.T), "to_vectors": panels(to_vectors.T)}
        if to_gate is not None:
            weights["to_gate"] = panels(to_gate.T)
        biases = {"vectors_bias": vectors_bias.contiguous(), "gate_bias": gate_bias.contiguous()}
        KERNEL("unroll_forward", config, {**weights, **biases, "usage": usage, **kept}, **_flags(config))

        ctx.config, ctx.kept = config, kept
        ctx.save_for_backward(from_state, to_vectors, to_gate)
        outputs = kept["outputs"]
        labels_at = steps if config.label_write == "same-step" else steps - 1
        final = FLMNState(
            hidden=outputs[:, -1, :units].clone(),
            cell=kept["cell"][:, -1].clone(),
            feature_memory=kept["features"][..., :slots].transpose(1, 2).contiguous(),
            label_memory=kept["labels"][..., :slots].transpose(1, 2).contiguous(),
            usage=usage[:, :slots].contiguous(),
            read_weights=kept["read_weights"][:, -1:, :slots].clone(),
            write_weights=kept["write_weights"][:, -1:, :slots].clone(),
            label_weights=kept["write_weights"][:, labels_at : labels_at + 1, :slots].clone(),
            least_used=F.one_hot(kept["least_used"][:, -1], slots).to(projected.dtype),
            read=outputs[:, -1, units:].clone(),
        )
        ctx.mark_non_differentiable(*final)
        return outputs[:, 1:].clone(memory_format=torch.contiguous_format), *final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, *_: Any):
        config, kept = ctx.config, ctx.kept
        from_state, to_vectors, to_gate = ctx.saved_tensors
        outputs, cell, gate = kept["outputs"], kept["cell"], kept["gate"]
        d_gates, d_vectors = torch.empty_like(kept["gates"]), torch.empty_like(kept["vectors"])
        d_alpha = torch.empty_like(gate)
        changing = {
            "features": kept["features"].clone(),  # both go back to what they were before the first step
            "labels": kept["labels"].clone(),
            "d_outputs": d_outputs.clone(memory_format=torch.contiguous_format),
            "d_cell": torch.zeros_like(cell[:, 0]),
            "d_features": torch.zeros_like(kept["features"]),
            "d_labels": torch.zeros_like(kept["labels"]),
            "d_read_weights": torch.zeros_like(kept["read_weights"][:, 0]),
            "d_write_weights": torch.zeros_like(kept["write_weights"][:, 0]),
        }
        weights = {"from_state": panels(from_state), "to_vectors": panels(to_vectors)}
        if to_gate is not None:
            weights["to_gate"] = panels(to_gate)
        derivatives = {"d_gates": d_gates, "d_vectors": d_vectors, "d_alpha": d_alpha}
        KERNEL("unroll_backward", config, {**weights, **derivatives, **kept, **changing}, **_flags(config))

        d_from_state = by_weights(d_gates, outputs[:, :-1])
        d_to_vectors = by_weights(d_vectors, cell[:, 1:])
        d_to_gate = None if to_gate is None else by_weights(d_alpha, outputs[:, 1:, : config.hidden])
        d_biases = d_vectors.sum((0, 1)), d_alpha.sum((0, 1))
        return d_gates, d_from_state, d_to_vectors, d_biases[0], d_to_gate, d_biases[1], None, None


def _flags(config: FLMNConfig) -> dict[str, float]:
    same_step = config.label_write == "same-step"
    return {"dynamic": config.gate == "dynamic", "same_step": same_step, "decay": config.usage_decay}
