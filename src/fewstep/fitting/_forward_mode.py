"""Forward-mode derivatives, without torch's internal deprecation warning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

__all__ = ["REFUSALS", "derivative", "quiet"]

#: Exceptions of functions without a forward-mode derivative.
REFUSALS = (RuntimeError, TypeError, ValueError)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress the warning of torch's first forward-mode call about its own use of ``torch.jit``."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
        yield


def derivative(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
    """Return the derivative of a function at ``at`` in direction ``along``, tensors of the same shape."""
    with quiet():
        found: Tensor = torch.func.jvp(function, (at,), (along,))[1]
    return found
