"""Devices: lookup by name, and their properties."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_device", "device_name", "placed", "wait", "widest"]


def check_device(device: str | torch.device) -> torch.device:
    """Return the device with this name.

    Raises:
        ValueError: when there is no such device on this machine.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        kinds = ["cpu"]
        kinds += [f"cuda:{i}" for i in range(torch.cuda.device_count())]
        kinds += ["mps"] if torch.backends.mps.is_available() else []
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"device: {str(device)!r} cannot be used ({reason}); this machine has {', '.join(kinds)}."
        ) from None
    return found


def device_name(device: torch.device) -> str:
    """Return the model of a CUDA device or the type of any other, for the record of a measurement."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def placed(index: slice | Tensor, x: Tensor) -> slice | Tensor:
    """Return an index on the device of the tensor that it is for."""
    return index if isinstance(index, slice) else index.to(x.device)


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device: float64, but float32 on Apple's GPUs."""
    return torch.float32 if device.type == "mps" else torch.float64


def wait(device: torch.device) -> None:
    """Wait for a device to finish, so that timings are right."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
