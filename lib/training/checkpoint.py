"""Checkpoints: tensors and JSON in one safetensors file, written atomically; never a pickle."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from lib.atomic import write_atomically

FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read, written or used; the message names the file and says what to do."""


def save_checkpoint(
    path: Path,
    model: nn.Module,
    details: dict[str, Any],
    optimizer: torch.optim.Optimizer | None = None,
    extra: dict[str, torch.Tensor] | None = None,
) -> str:
    """Write the weights, the JSON-able `details` and, if given, the optimizer's state and `extra` tensors.

    Returns the file's sha256.

    Raises CheckpointError if the file cannot be written; an older file of that name is then still whole.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if optimizer is not None:
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    tensors |= {f"extra.{name}": tensor for name, tensor in (extra or {}).items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(tensors, metadata={"format": str(FORMAT), "details": json.dumps(details)})
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be written: {error.strerror or error}; make room"
        ) from error
    return hashlib.sha256(content).hexdigest()


def read_details(path: Path) -> dict[str, Any]:
    """The JSON part of a checkpoint. Raises CheckpointError if the file is missing or damaged."""
    with _open(path) as file:
        return _details(path, file)


def load_checkpoint(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Any]:
    """Put the weights (and the optimizer's state) back in place and return the details.

    Raises CheckpointError if the file is missing, damaged or of another model.
    """
    with _open(path) as file:
        details = _details(path, file)
        tensors = {name: file.get_tensor(name) for name in list(file.keys())}
    weights = {name.removeprefix("model."): t for name, t in tensors.items() if name.startswith("model.")}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} holds another model than {type(model).__name__} as configured: {error}"
        ) from error
    if optimizer is not None:
        state: dict[int, dict[str, Any]] = {}
        try:
            for name, tensor in tensors.items():
                if name.startswith("optimizer."):
                    _, index, key = name.split(".")
                    state.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        except (KeyError, ValueError) as error:
            raise CheckpointError(
                f"{path} holds a damaged optimizer state ({error!r}); delete it and train again"
            ) from error
    return details


def load_extra(path: Path) -> dict[str, torch.Tensor]:
    """The `extra` tensors of a checkpoint. Raises CheckpointError if the file is missing or damaged."""
    with _open(path) as file:
        names = [name for name in list(file.keys()) if name.startswith("extra.")]
        # Copied: as they lie in the file they may not be aligned, and products of matrices then round otherwise.
        return {name.removeprefix("extra."): file.get_tensor(name).clone() for name in names}


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _open(path: Path):
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; train first, or name another")
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}); delete it and train again") from error


def _details(path: Path, file) -> dict[str, Any]:
    metadata = file.metadata() or {}
    if metadata.get("format") != str(FORMAT):
        raise CheckpointError(f"{path} is not a checkpoint of format {FORMAT}; delete it and train again")
    try:
        return json.loads(metadata["details"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}); delete it and train again") from error
