"""Checks of common arguments."""

from __future__ import annotations

__all__ = ["check_order"]


def check_order(function: str, order: int, highest: int) -> None:
    """Raise a ``ValueError`` unless ``order`` is a whole number from 1 to ``highest``."""
    known = range(1, highest + 1)
    if isinstance(order, bool) or order not in known:
        words = f"{', '.join(map(str, known[:-1]))} or {highest}"
        raise ValueError(f"{function}: order must be {words}, not {order!r}.")
