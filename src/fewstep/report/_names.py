"""Plot styles of solvers by name."""

from __future__ import annotations

__all__ = ["is_fitted"]


def is_fitted(name: str) -> bool:
    """True for the shown names of fitted solvers; see :func:`fewstep.comparison.shown_name`."""
    return name.startswith("fitted")
