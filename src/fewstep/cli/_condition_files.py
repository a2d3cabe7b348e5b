"""Conditions in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file

__all__ = ["conditioned"]


def conditioned(conditions: Path | None, per_sample: Path | None, device: str) -> dict[str, Any]:
    """Return the conditions in the files of ``--conditions`` and ``--per-sample``, as keyword arguments."""
    files = {"conditions": conditions, "per_sample": per_sample}
    return {
        name: _conditions(path, f"--{name.replace('_', '-')}", torch.device(device))
        for name, path in files.items()
        if path is not None
    }


def _conditions(path: Path, option: str, device: torch.device) -> dict[str, Any]:
    """Read conditions from a file: arrays and lists of numbers as tensors, ``added.text`` as nested."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".npz": lambda file: dict(np.load(file, allow_pickle=False)),
        ".safetensors": load_file,
        ".yaml": lambda file: yaml.safe_load(file.read_text(encoding="utf-8")),
    }
    if path.suffix not in readers:
        raise ValueError(f"{option}: must be a file .npz, .safetensors or .yaml, not {path}.")
    try:
        entries = readers[path.suffix](path)
    except (OSError, ValueError, BadZipFile, SafetensorError, yaml.YAMLError) as error:
        raise ValueError(f"{option}: {path} cannot be read: {' '.join(str(error).split())}.") from None
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise ValueError(f"{option}: {path} must hold conditions by name, not {entries!r:.80}.")
    found: dict[str, Any] = {}
    for name, value in entries.items():
        *outer, inner = name.split(".")
        place = found
        for part in outer:
            place = place.setdefault(part, {})
        place[inner] = _condition(value, f"{option}: {name} of {path}", device)
    return found


def _condition(value: Any, where: str, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _condition(part, where, device) for name, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        return value.tolist()
    if isinstance(value, list) and any(isinstance(part, str | dict) for part in value):
        return value
    if not isinstance(value, list | np.ndarray | torch.Tensor):
        return value
    try:
        if isinstance(value, np.ndarray):
            value = value.astype(value.dtype.newbyteorder("="))
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is no array of numbers: {error}.") from None
