"""Markers and dashes, which distinguish series without colour."""

from __future__ import annotations

from ._numbers import place

__all__ = ["dashes", "marker"]

#: Lengths of strokes and gaps, one pattern per style.
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2", "12 4", "2 2", "9 3 2 3 2 3", "", "7 3", "2 3", "9 3 2 3")

# Corners on a circle of radius 1, y down, and the factor that makes it look as large as a disc.
_CORNERS: tuple[tuple[float, tuple[tuple[float, float], ...]], ...] = (
    (1.2, ((-0.71, -0.71), (0.71, -0.71), (0.71, 0.71), (-0.71, 0.71))),
    (1.35, ((0, -1), (0.87, 0.5), (-0.87, 0.5))),
    (1.3, ((0, -1), (1, 0), (0, 1), (-1, 0))),
    (1.35, ((0, 1), (0.87, -0.5), (-0.87, -0.5))),
    (1.25, ((0, -1), (0.95, -0.31), (0.59, 0.81), (-0.59, 0.81), (-0.95, -0.31))),
)


def dashes(style: int, strong: bool) -> str:
    """Return the strokes and gaps of a style; strong lines have no gaps."""
    return "" if strong else _DASHES[style % len(_DASHES)]


def marker(style: int, x: float, y: float, r: float) -> str:
    """Return the path of a style's marker around ``(x, y)``; the first is a disc."""
    kind = style % (len(_CORNERS) + 1)
    if kind == 0:
        return f"M{place(x - r)} {place(y)}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
    larger, corners = _CORNERS[kind - 1]
    at = [f"{place(x + r * larger * dx)} {place(y + r * larger * dy)}" for dx, dy in corners]
    return "M" + "L".join(at) + "Z"
