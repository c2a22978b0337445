"""MANN's training on the CPU, fast: the same steps as `lib/methods/mann.py`, with the derivative written by hand.

The plain code costs some hundred small tensor operations a step, forward and backward. Here the memory's part of a step
is one C function (`lib/kernels/lrua.c`), the controller's derivative is spelled out, and each weight matrix gets its
gradient from one product over all steps. Tests hold values and gradients equal to the plain code's.

Symbols: `d_x` is the derivative of the loss by x. A step's output (h_t, r_t) is also what the next step is fed.
"""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import kernels
from lib.kernels import pointer
from lib.methods.mann import MANN, MANNConfig, MANNState


def fast_unroll(learner: MANN) -> Callable[[Tensor, MANNState], tuple[Tensor, MANNState]] | None:
    """`learner.unroll` made fast; None where it cannot be: not on the CPU, no C compiler, another dtype.

    No gradient passes to the state that it is given, nor from the state that it returns: episodes stand alone.
    """
    device, dtype = learner.from_state.weight.device, learner.from_state.weight.dtype
    if device.type != "cpu" or dtype not in kernels.C_NAMES or not kernels.available("lrua", dtype):
        return None

    def unroll(projected: Tensor, state: MANNState) -> tuple[Tensor, MANNState]:
        from_state, to_keys = learner.from_state.weight, learner.to_keys
        if projected.device.type != "cpu" or not projected.dtype == from_state.dtype == dtype:
            return learner.unroll(projected, state)  # the learner was moved since, or autocast is on
        dynamic = learner.config.gate == "dynamic"
        gate = (learner.to_gate.weight, learner.to_gate.bias) if dynamic else (None, learner.alpha)
        keys = (to_keys.weight, to_keys.bias)
        outputs, *final = _Unroll.apply(projected, from_state, *keys, *gate, learner.config, state)
        return outputs, MANNState(*final)

    return unroll


class _Memory:
    """The C functions for one size of batch."""

    def __init__(self, config: MANNConfig, batch: int, dtype: torch.dtype):
        class Sizes(ctypes.Structure):
            _fields_ = [(name, ctypes.c_int64) for name in ("batch", "heads", "slots", "width", "together", "stride")]
            _fields_ += [("decay", ctypes.c_float if dtype == torch.float32 else ctypes.c_double)]

        self.stored = config.reads * config.width
        self.kinds = 2 if config.keys == "separate" else 1
        together = config.write_to == "all"
        sizes = (batch, config.reads, config.slots, config.width, together, self.kinds * self.stored)
        self._sizes = Sizes(*sizes, config.usage_decay)
        library = kernels.load("lrua", dtype)
        self._forward, self._backward = library.memory_forward, library.memory_backward
        self._scratch = torch.empty((config.reads + 1) * config.slots, dtype=dtype)

    def forward(self, *tensors: Tensor) -> None:
        self._forward(ctypes.byref(self._sizes), *map(pointer, (*tensors, self._scratch)))

    def backward(self, *tensors: Tensor) -> None:
        self._backward(ctypes.byref(self._sizes), *map(pointer, (*tensors, self._scratch)))

    def split(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """(..., kinds * n * M) to read keys and write keys, both with the stride of `keys`."""
        return keys[..., : self.stored], keys[..., -self.stored :]


def _time_first(x: Tensor) -> Tensor:
    """A copy with the first two dimensions swapped, or back."""
    return x.transpose(0, 1).clone(memory_format=torch.contiguous_format)


def _quarters(gates: Tensor) -> list[tuple[Tensor, ...]]:
    """Each step's forget gate, write gate, output gate and update of an LSTM, as views."""
    return list(zip(*(part.unbind() for part in gates.chunk(4, dim=-1)), strict=True))


def _through_sigmoid(d: Tensor, value: Tensor) -> Tensor:
    """In place: the derivative by a sigmoid's argument, from that by its value."""
    return torch.ops.aten.sigmoid_backward.grad_input(d, value, grad_input=d)


class _Unroll(torch.autograd.Function):
    """Forward and backward over all steps of a batch of episodes. Buffers hold all steps, time first."""

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
        units, heads, slots, lstm = config.hidden, config.reads, config.slots, config.controller == "lstm"
        memory_step = _Memory(config, batch, projected.dtype)
        stored = memory_step.stored
        new = projected.new_empty
        outputs = new(steps + 1, batch, units + stored)  # entry t + 1 is step t's; entry 0 comes from the state
        gates = _time_first(projected)  # becomes what the gates' squashing functions give
        cell, squashed = new(steps + 1, batch, units), new(steps, batch, units)
        keys, gate = new(steps, batch, len(to_keys)), new(steps, batch, heads)
        memory, usage = new(steps + 1, batch, config.width, slots), new(steps + 1, batch, slots)
        read_weights, write_weights = new(steps + 1, batch, heads, slots), new(steps, batch, heads, slots)
        cosine, scale, read = new(steps, batch, heads, slots), new(steps, batch, slots), new(batch, stored)
        least_used = torch.empty(steps + 1, batch, heads, dtype=torch.int64)

        outputs[0, :, :units], outputs[0, :, units:] = state.hidden, state.read
        cell[0], usage[0], read_weights[0] = state.cell, state.usage, state.read_weights
        memory[0] = state.memory.transpose(1, 2)
        least_used[0] = state.least_used.argmax(-1)

        # Views of each step, made once.
        fed, hidden, reads = outputs.unbind(), outputs[..., :units].unbind(), outputs[..., units:].unbind()
        before, squash, parts = gates.unbind(), gates[..., : 3 * units].unbind(), _quarters(gates)
        read_key, write_key = (part.unbind() for part in memory_step.split(keys))
        m, u, wr, ww = memory.unbind(), usage.unbind(), read_weights.unbind(), write_weights.unbind()
        lu, k, g, cos, lengths, c = (x.unbind() for x in (least_used, keys, gate, cosine, scale, cell))
        from_state_t, to_keys_t = from_state.T, to_keys.T

        for t in range(steps):
            if lstm:
                before[t].addmm_(fed[t], from_state_t)
                forget, write, output, update = parts[t]
                squash[t].sigmoid_()
                update.tanh_()
                torch.mul(forget, c[t], out=c[t + 1]).addcmul_(write, update)
                torch.mul(output, torch.tanh(c[t + 1], out=squashed[t]), out=hidden[t + 1])
            else:
                before[t].addmm_(reads[t], from_state_t).tanh_()
                hidden[t + 1].copy_(before[t])
                c[t + 1].copy_(before[t])
            torch.addmm(keys_bias, c[t + 1], to_keys_t, out=k[t])
            if to_gate is None:
                g[t].copy_(gate_bias)
            else:
                torch.addmm(gate_bias, hidden[t + 1], to_gate.T, out=g[t])
            g[t].sigmoid_()
            memory_step.forward(
                *(m[t], u[t], wr[t], lu[t], read_key[t], write_key[t], g[t]),
                *(m[t + 1], u[t + 1], wr[t + 1], ww[t], lu[t + 1], cos[t], lengths[t], read),
            )
            reads[t + 1].copy_(read)

        ctx.config, ctx.memory_step = config, memory_step
        ctx.save_for_backward(from_state, to_keys, to_gate, outputs, gates, cell, squashed, keys, gate)
        ctx.memories = memory, read_weights, write_weights, cosine, scale, least_used
        final = MANNState(
            hidden=outputs[-1, :, :units].clone(),
            cell=cell[-1].clone(),
            memory=memory[-1].transpose(1, 2).contiguous(),
            usage=usage[-1].clone(),
            read_weights=read_weights[-1].clone(),
            write_weights=write_weights[-1].clone(),
            least_used=F.one_hot(least_used[-1], slots).to(projected.dtype),
            read=read.clone(),
        )
        ctx.mark_non_differentiable(*final)
        return _time_first(outputs[1:]), *final

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, d_outputs: Tensor, *_: Any):
        config, memory_step = ctx.config, ctx.memory_step
        from_state, to_keys, to_gate, outputs, gates, cell, squashed, keys, gate = ctx.saved_tensors
        memory, read_weights, write_weights, cosine, scale, least_used = ctx.memories
        steps, batch, units, lstm = len(gates), gates.shape[1], config.hidden, config.controller == "lstm"
        stored, new = memory_step.stored, gates.new_empty
        d_outputs = _time_first(d_outputs)  # later steps add to it what they were fed
        d_gates, d_alpha = torch.empty_like(gates), torch.empty_like(gate)
        d_keys, d_both = torch.empty_like(keys), new(batch, 2 * stored)
        d_memory, d_read_weights = torch.zeros_like(memory[0]), torch.zeros_like(read_weights[0])
        d_read, d_cell = new(batch, stored), torch.zeros_like(cell[0])

        d_fed, d_hiddens, d_reads = d_outputs.unbind(), d_outputs[..., :units].unbind(), d_outputs[..., units:].unbind()
        d_before, d_parts, parts = d_gates.unbind(), _quarters(d_gates), _quarters(gates)
        d_squash, squash = d_gates[..., : 3 * units].unbind(), gates[..., : 3 * units].unbind()
        read_key, write_key = (part.unbind() for part in memory_step.split(keys))
        m, wr, ww, lu = memory.unbind(), read_weights.unbind(), write_weights.unbind(), least_used.unbind()
        k, g, cos, lengths, c, tanh_c = (x.unbind() for x in (d_keys, gate, cosine, scale, cell, squashed))
        separate = memory_step.kinds == 2

        for t in reversed(range(steps)):
            d_hidden = d_hiddens[t]
            halves = (k[t] if separate else d_both).split(stored, dim=1)
            memory_step.backward(
                *(m[t + 1], wr[t + 1], ww[t], cos[t], lengths[t], wr[t], lu[t], read_key[t], write_key[t], g[t]),
                *(d_read.copy_(d_reads[t]), d_memory, d_read_weights, *halves, d_alpha[t]),
            )
            if not separate:
                torch.add(*halves, out=k[t])
            _through_sigmoid(d_alpha[t], g[t])
            if to_gate is not None:
                d_hidden.addmm_(d_alpha[t], to_gate)
            if lstm:
                forget, write, output, update = parts[t]
                d_forget, d_write, d_output, d_update = d_parts[t]
                d_cell.addmm_(k[t], to_keys).add_(torch.ops.aten.tanh_backward(d_hidden * output, tanh_c[t]))
                torch.mul(d_cell, c[t], out=d_forget)
                torch.mul(d_cell, update, out=d_write)
                torch.mul(d_hidden, tanh_c[t], out=d_output)
                _through_sigmoid(d_squash[t], squash[t])
                torch.mul(d_cell, write, out=d_update)
                torch.ops.aten.tanh_backward.grad_input(d_update, update, grad_input=d_update)
                d_cell.mul_(forget)
                if t:
                    d_fed[t - 1].addmm_(d_before[t], from_state)
            else:
                d_hidden.addmm_(k[t], to_keys)
                torch.ops.aten.tanh_backward.grad_input(d_hidden, gates[t], grad_input=d_before[t])
                if t:
                    d_reads[t - 1].addmm_(d_before[t], from_state)

        def by_weights(d: Tensor, fed: Tensor) -> Tensor:
            return d.flatten(0, 1).T @ fed.flatten(0, 1)

        d_from_state = by_weights(d_gates, outputs[:-1] if lstm else outputs[:-1, :, units:])
        d_to_gate = None if to_gate is None else by_weights(d_alpha, outputs[1:, :, :units])
        return (
            d_gates.transpose(0, 1),
            d_from_state,
            by_weights(d_keys, cell[1:]),
            d_keys.sum((0, 1)),
            d_to_gate,
            d_alpha.sum((0, 1)),
            None,
            None,
        )
