"""Rows of results as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from .metrics import figure

__all__ = ["cell", "csv_of", "markdown_of"]

#: How cells begin that spreadsheets run.
_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as comma-separated values; empty where a row has no such column."""
    text = io.StringIO()
    columns = dict.fromkeys(column for row in rows for column in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _plain(value: object) -> object:
    """Return a value as a spreadsheet shows it: text that it would run begins with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def markdown_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Some columns of rows as a Markdown table."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    lines += [" | ".join(cell(row, column) for column in columns) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def cell(row: Mapping[str, Any], column: str) -> str:
    """A column of a row as a table shows it."""
    value = row[column]
    if not isinstance(value, float):
        return str(value)
    return "failed" if "failure" in row else format(value, figure(column).format)
