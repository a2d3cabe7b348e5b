"""Ranges of numbers among arguments."""

from __future__ import annotations

import sys
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

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
    """Finite numbers of a type, from ``least`` to ``most``; truth values are none."""

    words: str
    least: float
    most: float = _LARGEST
    kind: type = Real

    def holds(self, value: Any) -> bool:
        """Return whether a value is in the range."""
        value = value.item() if isinstance(value, np.generic) else value  # float32 overflows in comparisons
        number = isinstance(value, self.kind) and not isinstance(value, bool)
        return number and bool(self.least <= value <= self.most)


COUNT = Range("a whole number of at least 1", 1, _MOST, Integral)
NATURAL = Range("a whole number of at least 0", 0, _MOST, Integral)
POSITIVE = Range("a positive number", 5e-324)  # the least above 0
NOT_NEGATIVE = Range("a number of at least 0", 0)
FINITE = Range("a finite number", -_LARGEST)
UNIT = Range("a number in [0, 1]", 0, 1)
#: Steps and calls of solvers, whose tables grow by their square.
STEPS = Range("a whole number from 1 to 10,000", 1, 10_000, Integral)


def check_range(where: str, allowed: Range, **numbers: Any) -> None:
    """Raise a ``ValueError`` for a number outside its range.

    Args:
        where: name of the function or class; none for arguments known to everyone by their names.
        allowed: the range of all the numbers.
        **numbers: the numbers by their names.
    """
    for name, value in numbers.items():
        if not allowed.holds(value):
            label = f"{where}: {name}" if where else f"{name}:"
            raise ValueError(f"{label} must be {allowed.words}, not {value!r:.60}.")


def check_fields(where: str, settings: Any, **ranges: Range) -> None:
    """Raise a ``ValueError`` for a number among the fields of a dataclass that is outside its range.

    A field whose default is ``None`` may be ``None``. NumPy's numbers become Python's, ready for JSON.
    """
    for name, allowed in ranges.items():
        value = getattr(settings, name)
        if value is not None or getattr(type(settings), name, 0) is not None:
            check_range(where, allowed, **{name: value})
        if isinstance(value, np.generic):
            object.__setattr__(settings, name, value.item())
