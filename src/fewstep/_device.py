"""Choosing a device, with a clear word when it is not there."""

from __future__ import annotations

import torch

__all__ = ["check_device", "device_name", "widest"]


def check_device(device: str | torch.device) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: when it is no device, or this machine has none of the kind.
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
    """What kind of device it is, for the record of a measurement."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def widest(device: torch.device) -> torch.dtype:
    """The most exact floating-point type of a device: float64, which Apple's GPUs do not have."""
    return torch.float32 if device.type == "mps" else torch.float64
