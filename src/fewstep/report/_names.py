"""How the names of solvers in a comparison make them look."""

from __future__ import annotations

__all__ = ["is_fitted"]


def is_fitted(name: str) -> bool:
    """Whether a solver is what a comparison is about; see :func:`fewstep.comparison.shown_name`."""
    return name.startswith("fitted")
