"""Charts as text: descriptions for screen readers, and tables of their numbers."""

from __future__ import annotations

from collections.abc import Sequence

from ._chart import Point, whole
from ._numbers import evenly, finite, short
from .parts import Chart, Series

__all__ = ["interval", "numbers", "spoken", "summary"]

#: Maximum of rows per table.
ROWS = 200


def interval(y: float | None, low: float | None, high: float | None) -> str:
    """Format a number and its interval: ``0.031 (0.029 to 0.033)``."""
    if finite(y) is None:
        return ""
    text = short(float(y or 0))
    if low is None or high is None or finite(low) is None or finite(high) is None:
        return text
    return f"{text} ({short(low)} to {short(high)})"


def spoken(chart: Chart, point: Point) -> list[str]:
    """Return the description of a point: its position and value."""
    at = short(point.x)
    counted = chart.x_label.endswith("s")  # 8 network calls, but step 8
    where = f"{at} {chart.x_label}" if counted else f"{chart.x_label} {at}"
    return [where, interval(point.y, point.low, point.high)]


def summary(chart: Chart, shown: Sequence[Sequence[Point]]) -> str:
    """Return one sentence per line with its start and end."""
    sentences = [f"{chart.y_label} against {chart.x_label}."]
    for series, line in zip(chart.series, shown, strict=True):
        known = [p for p in line if p.y is not None]
        if len(known) > 1:
            first, last = known[0], known[-1]
            sentences.append(
                f"{series.name}: from {short(first.y or 0)} at {short(first.x)} "
                f"to {short(last.y or 0)} at {short(last.x)}."
            )
        elif known:
            sentences.append(f"{series.name}: {short(known[0].y or 0)} at {short(known[0].x)}.")
    return " ".join(sentences)


def numbers(chart: Chart) -> tuple[list[tuple[str, list[str]]], int]:
    """Return the numbers as rows, one per ``x``, and the number of omitted rows."""
    cells: dict[float, dict[int, str]] = {}
    for k, series in enumerate(chart.series):
        for x, text in _texts(series):
            cells.setdefault(x, {})[k] = text
    every = sorted(cells)
    kept = [every[k] for k in evenly(len(every), ROWS)]
    rows = [(short(x), [cells[x].get(k, "") for k in range(len(chart.series))]) for x in kept]
    return rows, len(every) - len(kept)


def _texts(series: Series) -> list[tuple[float, str]]:
    return [(float(x), interval(y, low, high)) for x, y, low, high in whole(series)]
