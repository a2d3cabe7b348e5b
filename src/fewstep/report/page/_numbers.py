"""Short formats of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["aligned", "evenly", "finite", "place", "short"]


def short(value: float) -> str:
    """Format with three significant digits, and whole numbers in full: 0.0123, 12.3, 1234, 1.2e-5."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    if 1e-4 <= abs(value) < 1e7:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def aligned(texts: Sequence[str]) -> list[str]:
    """Pad numbers after their decimal points to equal width, with blanks as wide as the missing digits."""
    most = max((len(text.partition(".")[2]) for text in texts), default=0)
    padded = []
    for text in texts:
        _, point, behind = text.partition(".")
        # A figure space is as wide as a digit, a punctuation space as wide as a point.
        blank = "\u2007" * (most - len(behind)) + ("\u2008" if most and not point else "")
        padded.append(text + blank)
    return padded


def place(value: float) -> str:
    """Format a coordinate of a drawing to a tenth of a pixel, in as few characters as possible."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def evenly(count: int, most: int) -> list[int]:
    """Return at most ``most`` evenly spaced numbers below ``count``, including the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(k * (count - 1) / (most - 1)) for k in range(most)]


def finite(value: float | None) -> float | None:
    """Return the number, or ``None`` if it is missing or not finite."""
    return None if value is None or not math.isfinite(value) else float(value)
