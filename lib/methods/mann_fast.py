"""MANN's training on the CPU, fast: the same steps as `lib/methods/mann.py`, with the derivative written by hand.

The plain code costs some hundred small tensor operations a step, forward and backward. Here all steps of a batch of
episodes are one C function (`lib/kernels/mann.c`), and so is their derivative; threads share the batch. Each weight
matrix gets its gradient from one product over all steps. Tests hold values and gradients equal to the plain code's.

Symbols: `d_x` is the derivative of the loss by x. A step's output (h_t, r_t) is also what the next step is fed.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.kernels.unrolled import Kernel, by_weights, fast_form, panels, whole_vectors
from lib.methods.mann import MANN, MANNConfig, MANNState

FLAGS = ("lstm", "separate", "dynamic", "together")
SIZES = ("threads", "batch", "steps", "units", "heads", "slots", "padded", "width", *FLAGS)
WEIGHTS = ("from_state", "to_keys", "to_gate", "keys_bias", "gate_bias")
OF_STEPS = ("outputs", "gates", "cell", "squashed", "keys", "gate", "read_weights", "write_weights")
OF_STEPS += ("cosine", "scale", "erased", "least_used")
OF_EPISODES = ("memory", "usage", "scratch")
DERIVATIVES = ("d_outputs", "d_gates", "d_keys", "d_alpha", "d_cell", "d_memory", "d_read_weights", "d_both")
KERNEL = Kernel("mann", SIZES, ("decay",), WEIGHTS + OF_STEPS + OF_EPISODES + DERIVATIVES)


def fast_unroll(learner: MANN) -> Callable[[Tensor, MANNState], tuple[Tensor, MANNState]] | None:
    """`learner.unroll` made fast; None where it cannot be: not on the CPU, no C compiler, another dtype.

    No gradient passes to the state that it is given, nor from the state that it returns: episodes stand alone.
    """

    def run(projected: Tensor, state: MANNState) -> tuple[Tensor, MANNState]:
        dynamic = learner.config.gate == "dynamic"
        gate = (learner.to_gate.weight, learner.to_gate.bias) if dynamic else (None, learner.alpha)
        keys = (learner.to_keys.weight, learner.to_keys.bias)
        outputs, *final = _Unroll.apply(projected, learner.from_state.weight, *keys, *gate, learner.config, state)
        return outputs, MANNState(*final)

    return fast_form(learner, KERNEL.name, run)


class _Unroll(torch.autograd.Function):
    """Forward and backward over all steps of a batch of episodes."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        from_state: Tensor,
        to_keys: Tensor,
        keys_bias: Tensor,
        to_gate: Tensor | None,
        gate_bias: Tensor,
        config: MANNConfig,
        state: MANNState,
    ):
        batch, steps, _ = projected.shape
        units, heads, slots, width = config.hidden, config.reads, config.slots, config.width
        padded = whole_vectors(slots)
        new = projected.new_empty
        kept = {
            "outputs": new(batch, steps + 1, units + heads * width),
            "gates": projected.clone(memory_format=torch.contiguous_format),
            "cell": new(batch, steps + 1, units),
            "squashed": new(batch, steps, units),
            "keys": new(batch, steps, len(to_keys)),
            "gate": new(batch, steps, heads),
            "read_weights": new(batch, steps + 1, heads, padded),
            "write_weights": new(batch, steps, heads, padded),
            "cosine": new(batch, steps, heads, padded),
            "scale": new(batch, steps, padded),
            "erased": new(batch, steps, heads, width),
            "least_used": torch.empty(batch, steps + 1, heads, dtype=torch.int64),
            "memory": F.pad(state.memory.transpose(1, 2), (0, padded - slots)).contiguous(),
            "scratch": new(batch, heads + 1, padded),
        }
        usage = F.pad(state.usage, (0, padded - slots)).clone(memory_format=torch.contiguous_format)
        kept["outputs"][:, 0] = torch.cat([state.hidden, state.read], dim=1)
        kept["cell"][:, 0] = state.cell
        kept["read_weights"][:, 0] = F.pad(state.read_weights, (0, padded - slots))
        kept["least_used"][:, 0] = state.least_used.argmax(-1)

        weights = {"from_state": panels(from_state.T), "to_keys": panels(to_keys.T)}
        if to_gate is not None:
            weights["to_gate"] = panels(to_gate.T)
        biases = {"keys_bias": keys_bias.contiguous(), "gate_bias": gate_bias.contiguous()}
        _run("unroll_forward", config, **weights, **biases, usage=usage, **kept)

        ctx.config, ctx.kept = config, kept
        ctx.save_for_backward(from_state, to_keys, to_gate)
        outputs, write_weights = kept["outputs"], kept["write_weights"]
        final = MANNState(
            hidden=outputs[:, -1, :units].clone(),
            cell=kept["cell"][:, -1].clone(),
            memory=kept["memory"][..., :slots].transpose(1, 2).contiguous(),
            usage=usage[:, :slots].contiguous(),
            read_weights=kept["read_weights"][:, -1, :, :slots].clone(),
            write_weights=write_weights[:, -1, :, :slots].clone(),
            least_used=F.one_hot(kept["least_used"][:, -1], slots).to(projected.dtype),
            read=outputs[:, -1, units:].clone(),
        )
        ctx.mark_non_differentiable(*final)
        return outputs[:, 1:].clone(memory_format=torch.contiguous_format), *final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, *_: Any):
        config, kept = ctx.config, ctx.kept
        from_state, to_keys, to_gate = ctx.saved_tensors
        outputs, keys, gate, cell = (kept[name] for name in ("outputs", "keys", "gate", "cell"))
        units, stored, lstm = config.hidden, config.reads * config.width, config.controller == "lstm"
        d_gates, d_keys, d_alpha = torch.empty_like(kept["gates"]), torch.empty_like(keys), torch.empty_like(gate)
        changing = {
            "memory": kept["memory"].clone(),  # goes back to what it was before the first step
            "d_outputs": d_outputs.clone(memory_format=torch.contiguous_format),
            "d_cell": torch.zeros_like(cell[:, 0]),
            "d_memory": torch.zeros_like(kept["memory"]),
            "d_read_weights": torch.zeros_like(kept["read_weights"][:, 0]),
            "d_both": gate.new_empty(len(gate), 2 * stored),
        }
        weights = {"from_state": panels(from_state), "to_keys": panels(to_keys)}
        if to_gate is not None:
            weights["to_gate"] = panels(to_gate)
        derivatives = {"d_gates": d_gates, "d_keys": d_keys, "d_alpha": d_alpha}
        _run("unroll_backward", config, **weights, **derivatives, **{**kept, **changing})

        d_from_state = by_weights(d_gates, outputs[:, :-1] if lstm else outputs[:, :-1, units:])
        d_to_gate = None if to_gate is None else by_weights(d_alpha, outputs[:, 1:, :units])
        d_to_keys = by_weights(d_keys, cell[:, 1:])
        return d_gates, d_from_state, d_to_keys, d_keys.sum((0, 1)), d_to_gate, d_alpha.sum((0, 1)), None, None


def _run(function: str, config: MANNConfig, **tensors: Tensor) -> None:
    """Call the kernel's function with the readings of the config."""
    KERNEL(
        function,
        config,
        tensors,
        lstm=config.controller == "lstm",
        separate=config.keys == "separate",
        dynamic=config.gate == "dynamic",
        together=config.write_to == "all",
        decay=config.usage_decay,
    )
