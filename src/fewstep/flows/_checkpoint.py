"""Training checkpoints: one complete safetensors file each, written atomically."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from .._files import write_safetensors

__all__ = ["SCHEMA", "read_facts", "restore", "save"]

#: Version of the layout; newer ones are refused.
SCHEMA = 1

_FACTS = "fewstep.checkpoint"


def save(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write modules, optimiser and facts.

    Raises:
        OSError: when the file cannot be written; an existing file is kept.
    """
    tensors = {f"{name}.{k}": v for name, module in modules.items() for k, v in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    # Copies, as the format cannot hold tensors that share memory.
    tensors = {key: value.detach().to("cpu", copy=True) for key, value in tensors.items()}
    write_safetensors(path, tensors, {_FACTS: json.dumps({"schema": SCHEMA, **facts})})


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a checkpoint.

    Raises:
        ValueError: when the file is not a checkpoint, damaged, or of a newer version.
    """
    try:
        with safe_open(path, "pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})[_FACTS])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: not a complete checkpoint of a training ({error}); remove it to resume from an "
            "earlier one."
        ) from error
    if facts["schema"] > SCHEMA:
        raise ValueError(
            f"{path}: has schema {facts['schema']}, but this version of fewstep reads up to {SCHEMA}; "
            "update fewstep."
        )
    return facts


def restore(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Load the saved state into modules and optimiser.

    Raises:
        ValueError: when the checkpoint is of another architecture.
    """
    tensors = load_file(path)
    for name, module in modules.items():
        own = {k.removeprefix(f"{name}."): tensors.pop(k) for k in list(tensors) if k.startswith(f"{name}.")}
        expected = module.state_dict()
        odd = sorted(own.keys() ^ expected.keys())
        odd += [key for key in own.keys() & expected.keys() if own[key].shape != expected[key].shape]
        if odd:
            raise ValueError(
                f"{path}: is of another architecture; {name} differs in {len(odd)} tensors, such as "
                f"{odd[0]!r}; resume with the network it was made with, or train into another folder."
            )
        module.load_state_dict(own)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        _, index, name = key.split(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
