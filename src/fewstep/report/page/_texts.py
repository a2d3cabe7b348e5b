"""Charts, tables and grids as text: descriptions for screen readers, and cells of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ._chart import Point, whole
from ._numbers import aligned, evenly, finite, place, short
from .parts import Chart, Grid, Table

__all__ = ["cell", "heat_rows", "interval", "numbers", "spoken", "summary", "table_rows"]

#: Maximum of rows in the table of a chart.
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
        for x, y, low, high in whole(series):
            cells.setdefault(float(x), {})[k] = interval(y, low, high)
    every = sorted(cells)
    kept = [every[k] for k in evenly(len(every), ROWS)]
    rows = [(short(x), [cells[x].get(k, "") for k in range(len(chart.series))]) for x in kept]
    return rows, len(every) - len(kept)


def cell(value: object) -> str:
    """Format a value in few characters."""
    if value is None:
        return "\u2013"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return short(value) if isinstance(value, float) else str(value)


def table_rows(table: Table) -> tuple[list[list[tuple[str, str]]], list[bool]]:
    """Return a table's cells, each with text and sort key, and which columns hold numbers.

    Raises:
        ValueError: if the number of values in a row is not that of the columns.
    """
    for row in table.rows:
        if len(row) != len(table.columns):
            raise ValueError(
                f"page: every row of the table {table.caption!r} must have {len(table.columns)} values, one "
                f"per column, not {len(row)}."
            )
    columns = [[row[k] for row in table.rows] for k in range(len(table.columns))]
    numeric = [
        any(map(_is_number, column)) and all(value is None or _is_number(value) for value in column)
        for column in columns
    ]
    texts = [[cell(value) for value in column] for column in columns]
    texts = [aligned(column) if number else column for column, number in zip(texts, numeric, strict=True)]
    rows = [
        [(texts[k][i], _sort_key(value)) for k, value in enumerate(row)] for i, row in enumerate(table.rows)
    ]
    return rows, numeric


def heat_rows(grid: Grid) -> list[tuple[str, list[tuple[str, str, str] | None]]]:
    """Return a grid's rows: a name, and for each number its digits, its sign and its colour intensity."""
    values = [[finite(value) for value in row] for row in grid.values]
    largest = max((abs(v) for row in values for v in row if v is not None), default=0) or 1.0
    return [
        (name, [None if value is None else _heat(value, largest) for value in row])
        for name, row in zip(grid.rows, values, strict=True)
    ]


def _heat(value: float, largest: float) -> tuple[str, str, str]:
    if value == 0 or not 1e-4 <= largest < 1e5:
        text = short(value)
    else:
        digits = max(0, 2 - math.floor(math.log10(largest)))
        text = f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 makes -0 plain 0
    return text, "n" if value < 0 else "p", place(100 * abs(value) / largest)


def _sort_key(value: object) -> str:
    """Return the key for the page's sorting script; empty for values that cannot be sorted."""
    if isinstance(value, float) and not math.isfinite(value):
        return "" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return "" if value is None else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
