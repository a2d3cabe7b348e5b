"""Rows of comparisons: ranking, and parts by model and number of calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...metrics import figure
from ..page import Choice, Part, Slider

if TYPE_CHECKING:
    from ...comparison import Comparison, Kept

__all__ = [
    "best",
    "better",
    "budgets",
    "by_calls",
    "by_model",
    "failed",
    "of_kept",
    "ranked",
    "rows_of_solvers",
    "short",
]


def better(metric: str, one: float | None, other: float | None) -> bool:
    """True if the first of two values is better."""
    return _order(metric, one) < _order(metric, other)


def best(rows: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any]:
    """Return the row with the best value."""
    return min(rows, key=lambda row: _order(metric, row[metric]))


def ranked(table: Comparison, nfe: int) -> list[tuple[int, Mapping[str, Any]]]:
    """Return rows with ``nfe`` calls and their indices, ranked by the first metric, with failures last."""
    metric = table.metrics[0]
    rows = [(k, row) for k, row in enumerate(table.rows) if row["nfe"] == nfe]
    return sorted(rows, key=lambda item: _order(metric, item[1][metric]))


def failed(table: Comparison, nfe: int) -> str:
    """Return a sentence that names the solvers that failed with ``nfe`` calls; empty if none did."""
    names = [str(row["solver"]) for row in table.rows if row["nfe"] == nfe and "failure" in row]
    return f"Failed, for the reasons named under the first chart: {', '.join(names)}." if names else ""


def rows_of_solvers(table: Comparison) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each solver, from few calls to many."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(table.rows, key=lambda row: int(row["nfe"])):
        found.setdefault(row["solver"], []).append(row)
    names = dict.fromkeys(row["solver"] for row in table.rows)  # in the order of the table
    return {name: found[name] for name in names}


def budgets(table: Comparison) -> list[int]:
    """Return all numbers of calls."""
    return sorted({row["nfe"] for row in table.rows})


def by_model(tables: Sequence[Comparison], part: Callable[[Comparison], Part]) -> Part:
    """Return the part of the only model, or a choice between models."""
    parts = {table.model: part(table) for table in tables}
    return Choice("Model", parts) if len(parts) > 1 else next(iter(parts.values()))


def by_calls(table: Comparison, part: Callable[[int], Part], first: int) -> Slider:
    """Return a slider with one part per number of calls; all sliders of the page move together."""
    known = budgets(table)
    start = first if first in known else None
    return Slider("Network calls", {nfe: part(nfe) for nfe in known}, start)


def of_kept(
    tables: Sequence[Comparison],
    fits: Callable[[Kept], bool],
    part: Callable[[Comparison, Kept, int], Part],
    first: int,
) -> list[Part]:
    """Return a part by model and number of calls, for the comparisons with suitable kept results, if any."""
    kept = {table.model: table.kept for table in tables if table.kept and fits(table.kept)}
    shown = [table for table in tables if table.model in kept]

    def of_model(table: Comparison) -> Part:
        return by_calls(table, lambda nfe: part(table, kept[table.model], nfe), first)

    return [by_model(shown, of_model)] if shown else []


def short(value: float | None) -> str:
    """Format a value in a sentence."""
    return "unknown" if value is None else f"{value:.3g}"


def _order(metric: str, value: float | None) -> float:
    """Return a sort key: smaller is better, and values that are not finite come last."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if figure(metric).gain else value
