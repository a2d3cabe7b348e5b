"""Comparison of values that a pipeline passed, and the error of what cannot be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

__all__ = ["plain", "refuse", "same", "tolerance"]


def refuse(what: str) -> NoReturn:
    raise ValueError(f"from_pipeline: {what}.")


def same(first: Any, second: Any) -> bool:
    """True for equal values, and for containers of them."""
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        both = isinstance(first, Tensor) and isinstance(second, Tensor)
        return both and first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def tolerance(value: Tensor) -> float:
    """Relative deviation of a tensor that its type explains."""
    return max(1e-5, 2 * torch.finfo(value.dtype).eps)


def plain(value: Tensor) -> Tensor:
    return value.detach().cpu().double()
