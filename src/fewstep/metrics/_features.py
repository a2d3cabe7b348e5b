"""Validation of features, and their conversion to float64."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_alike", "check_features", "to_float64"]

#: Vectors checked at a time.
_ROWS = 4096


def check_features(caller: str, **named: Tensor) -> None:
    """Raise a ``ValueError`` naming an argument that is not floating-point ``(n, d)`` with ``d > 0``."""
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise ValueError(f"{caller}: {name} must be a tensor of shape (n, d), not a {type(x).__name__}.")
        if x.ndim != 2 or not x.is_floating_point() or x.shape[1] == 0:
            raise ValueError(
                f"{caller}: {name} must be floating-point feature vectors of shape (n, d), "
                f"not {x.dtype} of shape {tuple(x.shape)}; pass images through a feature network first."
            )


def check_alike(caller: str, **named: Tensor) -> None:
    """Raise a ``ValueError`` unless all sets are finite features of the same length on one device."""
    check_features(caller, **named)
    kinds = {name: (x.shape[1], str(x.device)) for name, x in named.items()}
    if len(set(kinds.values())) > 1:
        given = ", ".join(f"{name} has {d} on {device}" for name, (d, device) in kinds.items())
        raise ValueError(f"{caller}: features must have the same length and device, but {given}.")
    for name, x in named.items():
        if not all(torch.isfinite(part).all() for part in x.split(_ROWS)):
            raise ValueError(f"{caller}: {name} holds NaN or infinity; check these features.")


def to_float64(x: Tensor) -> Tensor:
    """Convert to float64, on the CPU if the device (Apple's GPUs) has no float64."""
    return (x.cpu() if x.is_mps else x).detach().double()
