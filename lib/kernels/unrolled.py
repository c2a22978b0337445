"""What the fast forms of `unroll` share: how a kernel that does all steps of a batch of episodes is called.

Such a kernel has two functions, `unroll_forward` and `unroll_backward`, and both take one structure, `Unroll`: whole
numbers first, then other numbers, then pointers to contiguous tensors.
"""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lib import kernels

MULTIPLE = 16  # of it are the slots that a kernel works on: two vectors of floats, four of doubles
COLUMNS = 24  # of a weight matrix that the kernel reads together, as in controller.h


class Kernel:
    """`lib/kernels/<name>.c` and the fields of its `Unroll`, in order."""

    def __init__(self, name: str, integers: Sequence[str], numbers: Sequence[str], tensors: Sequence[str]):
        kinds = ((integers, ctypes.c_int64), (numbers, ctypes.c_double), (tensors, ctypes.c_void_p))
        fields = [(field, kind) for names, kind in kinds for field in names]
        self.name = name
        self.structure = type("Unroll", (ctypes.Structure,), {"_fields_": fields})

    def __call__(self, function: str, config: Any, tensors: dict[str, Tensor], **flags: float) -> None:
        """Run `function` with a learner's sizes and as many threads as PyTorch has; what is not given is zero."""
        gates = tensors["gates"]
        batch, steps = gates.shape[:2]
        arguments = self.structure(
            threads=torch.get_num_threads(),
            batch=batch,
            steps=steps,
            units=config.hidden,
            heads=config.reads,
            slots=config.slots,
            padded=whole_vectors(config.slots),
            width=config.width,
            **flags,
            **{name: tensor.data_ptr() for name, tensor in tensors.items()},
        )
        getattr(kernels.load(self.name, gates.dtype), function)(ctypes.byref(arguments))


def fast_form(learner: Any, name: str, run: Callable[[Tensor, Any], tuple[Tensor, Any]]) -> Callable | None:
    """`run`, which gives what `learner.unroll` gives; None where the kernel cannot be used: not on the CPU, no C
    compiler, another dtype. Inputs that the kernel cannot read are left to `learner.unroll`."""
    device, dtype = learner.from_state.weight.device, learner.from_state.weight.dtype
    if device.type != "cpu" or dtype not in kernels.C_NAMES or not kernels.available(name, dtype):
        return None

    def unroll(projected: Tensor, state: Any) -> tuple[Tensor, Any]:
        same = learner.from_state.weight.dtype == projected.dtype == dtype
        if not same or not all(_fits(part, projected) for part in state):
            return learner.unroll(projected, state)  # moved since, under autocast, or a foreign state
        return run(projected, state)

    return unroll


def _fits(part: Tensor, projected: Tensor) -> bool:
    """Whether C may read a part of the state as it reads `projected`."""
    alike = part.device == projected.device and part.dtype == projected.dtype
    return projected.device.type == "cpu" and alike and 0 < len(part) == len(projected)


def whole_vectors(slots: int) -> int:
    """The number of slots that a kernel works on: the rest is zero."""
    return -(-slots // MULTIPLE) * MULTIPLE


def panels(weights: Float[Tensor, "depth columns"]) -> Tensor:
    """(depth, columns) to (panels, depth, COLUMNS), the last panel filled up with zeros: how a kernel reads it."""
    depth, columns = weights.shape
    filled = F.pad(weights, (0, -columns % COLUMNS))
    return filled.reshape(depth, -1, COLUMNS).transpose(0, 1).contiguous()


def by_weights(d: Float[Tensor, "batch time out"], fed: Float[Tensor, "batch time in"]) -> Float[Tensor, "out in"]:
    """The derivative by a weight matrix, over all steps in one product."""
    return d.flatten(0, 1).T @ fed.flatten(0, 1)
