"""Numbers, and numbers of samples, in the shapes of states."""

from __future__ import annotations

import torch
from torch import Tensor

from ._network import state_type

__all__ = ["affine", "as_float64", "factor", "like"]


def as_float64(t: Tensor | float) -> Tensor:
    """Return a time in float64, or as it is on Apple's GPUs, which have none."""
    if not isinstance(t, Tensor):
        return torch.tensor(t, dtype=torch.float64)
    return t if t.device.type == "mps" else t.double()


def factor(c: Tensor, t: Tensor | float, x: Tensor) -> Tensor | float:
    """Return what ``c``, computed at ``t``, multiplies states ``x`` by: a number, if ``t`` is one."""
    return like(c, x) if isinstance(t, Tensor) else float(c)


def like(c: Tensor, x: Tensor) -> Tensor:
    """Return a number, or one per sample, in a shape to multiply states ``x`` by."""
    c = c.to(x.device, state_type(x.dtype))
    return c.reshape(-1, *[1] * (x.ndim - 1)) if c.ndim else c


def affine(x: Tensor, shift: Tensor | float, scale: Tensor | float | None) -> Tensor:
    """Return ``shift + scale x``, and ``x`` itself where there is no scale."""
    return x if scale is None else shift + scale * x
