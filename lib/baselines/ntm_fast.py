"""An NTM's training on the CPU, fast: the same steps as `lib/baselines/ntm.py`, with the derivative written by hand.

Built as MANN's fast form is (`lib/methods/mann_fast.py`): one C function for all steps of a batch of episodes
(`lib/kernels/ntm.c`), one for their derivative. What a write erases cannot be taken back, so the memory of every step
is kept.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.baselines.ntm import NTM, NTMConfig, NTMState
from lib.kernels.unrolled import Kernel, by_weights, fast_form, panels, whole_vectors

SIZES = ("threads", "batch", "steps", "units", "heads", "slots", "padded", "width")
WEIGHTS = ("from_state", "to_controls", "controls_bias")
OF_STEPS = ("outputs", "gates", "cell", "squashed", "controls", "memory", "scale", "weights")
OF_STEPS += ("cosine", "content", "shifted")
DERIVATIVES = ("d_outputs", "d_gates", "d_controls", "d_cell", "d_memory", "d_weights")
KERNEL = Kernel("ntm", SIZES, (), (*WEIGHTS, *OF_STEPS, "scratch", *DERIVATIVES))


def fast_unroll(learner: NTM) -> Callable[[Tensor, NTMState], tuple[Tensor, NTMState]] | None:
    """`learner.unroll` made fast; None where it cannot be: more than one write head, not on the CPU, no C compiler.

    No gradient passes to the state that it is given, nor from the state that it returns: episodes stand alone.
    """
    if learner.config.writes != 1:
        return None

    def run(projected: Tensor, state: NTMState) -> tuple[Tensor, NTMState]:
        heads = (learner.to_write_heads, learner.to_read_heads)
        to_controls = torch.cat([head.weight for head in heads])
        bias = torch.cat([head.bias for head in heads])
        outputs, *final = _Unroll.apply(projected, learner.from_state.weight, to_controls, bias, learner.config, state)
        return outputs, NTMState(*final)

    return fast_form(learner, KERNEL.name, run)


class _Unroll(torch.autograd.Function):
    """Forward and backward over all steps of a batch of episodes."""

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        from_state: Tensor,
        to_controls: Tensor,
        controls_bias: Tensor,
        config: NTMConfig,
        state: NTMState,
    ):
        batch, steps, _ = projected.shape
        units, heads, slots, width = config.hidden, 1 + config.reads, config.slots, config.width
        padded = whole_vectors(slots)
        new = projected.new_empty
        kept = {
            "outputs": new(batch, steps + 1, units + config.reads * width),
            "gates": projected.clone(memory_format=torch.contiguous_format),
            "cell": new(batch, steps + 1, units),
            "squashed": new(batch, steps, units),
            "controls": new(batch, steps, len(to_controls)),
            "memory": new(batch, steps + 1, width, padded),
            "scale": new(batch, steps + 1, padded),
            "weights": new(batch, steps + 1, heads, padded),
            "cosine": new(batch, steps, heads, padded),
            "content": new(batch, steps, heads, padded),
            "shifted": new(batch, steps, heads, padded),
            "scratch": new(batch, heads, padded),
        }
        kept["outputs"][:, 0] = torch.cat([state.hidden, state.read], dim=1)
        kept["cell"][:, 0] = state.cell
        kept["memory"][:, 0] = F.pad(state.memory.transpose(1, 2), (0, padded - slots))
        kept["weights"][:, 0] = F.pad(torch.cat([state.write_weights, state.read_weights], 1), (0, padded - slots))
        weights = {"from_state": panels(from_state.T), "to_controls": panels(to_controls.T)}
        KERNEL("unroll_forward", config, {"controls_bias": controls_bias.contiguous(), **weights, **kept})

        ctx.config, ctx.kept = config, kept
        ctx.save_for_backward(from_state, to_controls)
        outputs, final_weights = kept["outputs"], kept["weights"][:, -1, :, :slots]
        final = NTMState(
            hidden=outputs[:, -1, :units].clone(),
            cell=kept["cell"][:, -1].clone(),
            memory=kept["memory"][:, -1, :, :slots].transpose(1, 2).contiguous(),
            read_weights=final_weights[:, 1:].clone(),
            write_weights=final_weights[:, :1].clone(),
            read=outputs[:, -1, units:].clone(),
        )
        ctx.mark_non_differentiable(*final)
        return outputs[:, 1:].clone(memory_format=torch.contiguous_format), *final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, *_: Any):
        config, kept = ctx.config, ctx.kept
        from_state, to_controls = ctx.saved_tensors
        outputs = kept["outputs"]
        d_gates, d_controls = torch.empty_like(kept["gates"]), torch.empty_like(kept["controls"])
        changing = {
            "d_outputs": d_outputs.clone(memory_format=torch.contiguous_format),
            "d_cell": torch.zeros_like(kept["cell"][:, 0]),
            "d_memory": torch.zeros_like(kept["memory"][:, 0]),
            "d_weights": torch.zeros_like(kept["weights"][:, 0]),
        }
        weights = {"from_state": panels(from_state), "to_controls": panels(to_controls)}
        derivatives = {"d_gates": d_gates, "d_controls": d_controls}
        KERNEL("unroll_backward", config, {**derivatives, **weights, **kept, **changing})

        d_from_state = by_weights(d_gates, outputs[:, :-1])
        d_to_controls = by_weights(d_controls, outputs[:, 1:, : config.hidden])
        return d_gates, d_from_state, d_to_controls, d_controls.sum((0, 1)), None, None
