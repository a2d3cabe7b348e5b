"""Words and numbers for what a fit gained, from a row of its report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["GAINS", "best_rival", "gains", "ratio_to_rival", "times"]

#: Keys of a row of a report.
GAINS = ("typical", "left", "by_chance")


def best_rival(errors: Mapping[str, float]) -> str:
    """Return the solver with the least error besides the fitted one."""
    rivals = {name: error for name, error in errors.items() if name != "fitted"}
    return min(rivals, key=lambda name: rivals[name])


def ratio_to_rival(errors: Mapping[str, float]) -> float:
    """Return the error of the fitted solver divided by that of its best rival."""
    rival = errors[best_rival(errors)]
    return errors["fitted"] / rival if rival else math.inf


def gains(row: Mapping[str, Any]) -> Iterator[str]:
    """Describe what is known of the gains of a row."""
    typical, share, chance = map(row.get, GAINS)
    if typical is not None:
        yield f"{times(typical)} for the typical noise"
    if share is not None:
        yield f"at most {share:.0%} left to the last row" + (
            "" if chance is None else f" ({chance:.0%} by chance)"
        )


def times(ratio: float) -> str:
    """Format a ratio: ``0.37x``."""
    return f"{ratio:.2f}x" if ratio >= 0.1 else f"{ratio:.2g}x"
