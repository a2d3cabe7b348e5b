"""Text and sort keys of table cells."""

from __future__ import annotations

import math

from ._numbers import aligned, finite, place, short
from .parts import Grid, Table

__all__ = ["cell", "heat_rows", "table_rows"]


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
