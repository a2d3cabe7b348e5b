"""A cached function of theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

__all__ = ["Remembered"]

#: Number of values in the cache.
_REMEMBERED = 256

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """The function ``make(theta)``, cached for theta without gradients.

    Most perturbations of a fit do not change the times, and making a classical table takes milliseconds.
    """

    def __init__(self, make: Callable[[Tensor], Value]) -> None:
        self._make = make
        self._made: dict[tuple[float, ...], Value] = {}

    def __call__(self, theta: Tensor) -> Value:
        if theta.requires_grad:
            return self._make(theta)
        key = tuple(theta.tolist())
        if key not in self._made:
            if len(self._made) >= _REMEMBERED:
                self._made.clear()
            self._made[key] = self._make(theta)
        return self._made[key]
