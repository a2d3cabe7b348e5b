"""Rows of comparisons: ranking, and parts by model and number of calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from ...metrics import figure
from ..page import Choice, Part, Slider

if TYPE_CHECKING:
    from ...comparison import Comparison, Kept

__all__ = [
    "Row",
    "best",
    "better",
    "budgets",
    "by_model",
    "failed",
    "of_kept",
    "ranked",
    "rows_of_solvers",
    "several",
    "short",
]

Row: TypeAlias = Mapping[str, Any]


def better(metric: str, one: float | None, other: float | None) -> bool:
    """True if the first of two values is better."""
    return _order(metric, one) < _order(metric, other)


def best(rows: Sequence[Row], metric: str) -> Row:
    """Return the row with the best value."""
    return min(rows, key=lambda row: _order(metric, row[metric]))


def ranked(table: Comparison, nfe: int) -> list[tuple[int, Row]]:
    """Return rows with ``nfe`` calls and their indices.

    The best classical and the best fitted solver come first, then the others, ranked by the first metric,
    with failures last.
    """
    metric = table.metrics[0]
    rows = [(k, row) for k, row in enumerate(table.rows) if row["nfe"] == nfe]
    rows.sort(key=lambda item: _order(metric, item[1][metric]))
    kinds = {table.is_fitted(row["solver"]): k for k, row in reversed(rows) if "failure" not in row}
    lead = [kinds[fitted] for fitted in (False, True) if fitted in kinds]
    return sorted(rows, key=lambda item: lead.index(item[0]) if item[0] in lead else len(lead))


def failed(table: Comparison, nfe: int) -> str:
    """Return a sentence that names the solvers that failed with ``nfe`` calls; empty if none did."""
    names = [str(row["solver"]) for row in table.rows if row["nfe"] == nfe and "failure" in row]
    return f"Failed, for the reasons named under the chart: {', '.join(names)}." if names else ""


def rows_of_solvers(table: Comparison) -> dict[str, list[Row]]:
    """Return the rows of each solver, from few calls to many."""
    found: dict[str, list[Row]] = {row["solver"]: [] for row in table.rows}
    for row in sorted(table.rows, key=lambda row: int(row["nfe"])):
        found[row["solver"]].append(row)
    return found


def budgets(table: Comparison) -> list[int]:
    """Return all numbers of calls."""
    return sorted({row["nfe"] for row in table.rows})


def by_model(tables: Sequence[Comparison], part: Callable[[Comparison], Part]) -> Part:
    """Return the part of the only model, or a choice between models."""
    parts = {table.model: part(table) for table in tables}
    return Choice("Model", parts) if len(parts) > 1 else next(iter(parts.values()))


def several(tables: Sequence[Comparison], value: str) -> list[str]:
    """Return a cell or heading for the model, which only tables of several models have."""
    return [value] if len(tables) > 1 else []


def of_kept(
    tables: Sequence[Comparison],
    fits: Callable[[Kept], bool],
    part: Callable[[Comparison, Kept, int], Part],
    first: int,
) -> list[Part]:
    """Return a part by model and number of calls, for the comparisons with suitable kept results, if any."""
    kept = {table.model: table.kept for table in tables if table.kept and fits(table.kept)}
    shown = [table for table in tables if table.model in kept]

    def of_model(table: Comparison) -> Slider:
        frames = {nfe: part(table, kept[table.model], nfe) for nfe in budgets(table)}
        return Slider("Network calls", frames, first if first in frames else None)

    return [by_model(shown, of_model)] if shown else []


def short(value: float | None) -> str:
    """Format a value in a sentence."""
    return "unknown" if value is None else f"{value:.3g}"


def _order(metric: str, value: float | None) -> float:
    """Return a sort key: smaller is better, and values that are not finite come last."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if figure(metric).gain else value
