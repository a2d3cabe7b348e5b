"""Conditions in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._archives import read_arrays
from .._reading import excerpt, read_tensors, reading
from .._yaml import read_yaml

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
    where = f"{option}: {path}"
    readers: dict[str, Callable[[Path], Any]] = {
        ".npz": read_arrays,
        ".safetensors": lambda file: read_tensors(file, None).tensors,
        ".yaml": lambda file: read_yaml(file, where),
    }
    if path.suffix not in readers:
        raise ValueError(f"{option}: must be a file .npz, .safetensors or .yaml, not {path}.")
    with reading(where, "file of conditions", "numpy.savez, safetensors or an editor"):
        entries = readers[path.suffix](path)
    if not isinstance(entries, dict) or not all(isinstance(name, str) for name in entries):
        raise ValueError(f"{option}: {path} must hold conditions by name, not {entries!r:.80}.")
    found: dict[str, Any] = {}
    for name, value in entries.items():
        *outer, inner = name.split(".")
        place = found
        for part in outer:
            place = place.setdefault(part, {}) if isinstance(place, dict) else place
        if not isinstance(place, dict) or inner in place:
            raise ValueError(f"{option}: {path} has {excerpt(name)!r} beside a condition of that name.")
        place[inner] = _condition(value, f"{option}: {name} of {path}", device)
    return found


def _condition(value: Any, where: str, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: _condition(part, where, device) for name, part in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        try:
            return (np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value).tolist()
        except UnicodeDecodeError:
            raise ValueError(f"{where} holds bytes that are no text in UTF-8.") from None
    if isinstance(value, list) and any(isinstance(part, str | dict) for part in value):
        return value
    if not isinstance(value, list | np.ndarray | torch.Tensor):
        return value
    try:
        return torch.as_tensor(value, device=device)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where} is no array of numbers: {error}.") from None
