"""Forward-mode derivatives, without a warning of torch about itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["REFUSALS", "derivative", "quiet"]

#: What a function raises that has no forward-mode derivative.
REFUSALS = (RuntimeError, TypeError, ValueError)


@contextmanager
def quiet() -> Iterator[None]:
    """On first use torch prepares forward mode with a function that it deprecates itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        yield


def derivative(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
    """The derivative of a function at a place along a direction, both tensors of one shape."""
    with quiet():
        found: Tensor = torch.func.jvp(function, (at,), (along,))[1]
    return found
