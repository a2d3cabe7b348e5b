"""Ranges of numbers among arguments."""

from __future__ import annotations

import sys
from math import prod
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

__all__ = [
    "COUNT",
    "FINITE",
    "NATURAL",
    "NOT_NEGATIVE",
    "POSITIVE",
    "STEPS",
    "UNIT",
    "Range",
    "check_fields",
    "check_range",
]

#: Beyond these a number fits into no float64, and no counter of 64 bits.
_LARGEST, _MOST = sys.float_info.max, 2**64 - 1


class Range(NamedTuple):
    """Finite numbers from ``least`` to ``most``, up to ``rounding``, or the whole ones among them."""

    words: str
    least: float
    most: float = _LARGEST
    whole: bool = False
    rounding: float = 0

    def number(self, value: Any) -> Any:
        """Return a value in the range as a number of Python, rounded into it, and ``None`` for others.

        A tensor or an array with one number is that number; truth values and text are none.
        """
        if isinstance(value, np.generic | np.ndarray | Tensor) and prod(value.shape) == 1:
            value = value.item()
        real = isinstance(value, Real) and not isinstance(value, bool)
        if not (real and self.least - self.rounding <= value <= self.most + self.rounding):
            return None
        value = int(value) if isinstance(value, Integral) else float(value)  # a fraction is none for PyTorch
        if self.whole:
            return int(value) if value == int(value) else None
        return min(max(value, self.least), self.most) if self.rounding else value

    def holds(self, value: Any) -> bool:
        """Return whether a value is in the range."""
        return self.number(value) is not None


COUNT = Range("a whole number of at least 1", 1, _MOST, whole=True)
NATURAL = Range("a whole number of at least 0", 0, _MOST, whole=True)
POSITIVE = Range("a positive number", 5e-324)  # the least above 0
NOT_NEGATIVE = Range("a number of at least 0", 0)
FINITE = Range("a finite number", -_LARGEST)
UNIT = Range("a number in [0, 1]", 0, 1, rounding=1e-6)
#: Steps and calls of solvers, whose tables grow by their square.
STEPS = Range("a whole number from 1 to 10,000", 1, 10_000, whole=True)


def check_range(where: str, allowed: Range, **numbers: Any) -> tuple[Any, ...]:
    """Return numbers as those of Python; raise a ``ValueError`` for one outside its range.

    Args:
        where: name of the function or class; none for arguments known to everyone by their names.
        allowed: the range of all the numbers.
        **numbers: the numbers by their names.
    """
    for name, value in numbers.items():
        if not allowed.holds(value):
            label = f"{where}: {name}" if where else f"{name}:"
            raise ValueError(f"{label} must be {allowed.words}, not {value!r:.60}.")
    return tuple(map(allowed.number, numbers.values()))


def check_fields(where: str, settings: Any, **ranges: Range) -> None:
    """Raise a ``ValueError`` for a number among the fields of a dataclass that is outside its range.

    A field whose default is ``None`` may be ``None``. The numbers become Python's, ready for JSON.
    """
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is not None or getattr(type(settings), name, 0) is not None:
            object.__setattr__(settings, name, *check_range(where, allowed, **{name: value}))
