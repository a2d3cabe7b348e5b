"""Numbers as a reader likes them: short."""

from __future__ import annotations

import math

__all__ = ["finite", "place", "short"]


def short(value: float) -> str:
    """Three significant digits, whole numbers whole: 0.0123, 12.3, 1234, 1.2e-5."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value):,}"
    if 1e-4 <= abs(value) < 1e7:
        digits = max(0, 2 - math.floor(math.log10(abs(value))))
        return f"{value:,.{digits}f}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def place(value: float) -> str:
    """A coordinate of a drawing, to a tenth of a pixel, as few characters as can be."""
    text = f"{value:.1f}"
    return text.removesuffix(".0") if text != "-0.0" else "0"


def finite(value: float | None) -> float | None:
    """The number, or ``None`` where there is none to draw."""
    return None if value is None or not math.isfinite(value) else float(value)
