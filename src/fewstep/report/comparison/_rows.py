"""Rows of comparisons: ranking, the main result in words, and parts by model and number of calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...metrics import figure
from ..page import Choice, Part, Slider
from ..plots import is_fitted

if TYPE_CHECKING:
    from ...comparison import Comparison, Kept

__all__ = [
    "better",
    "budgets",
    "by_model",
    "failed",
    "finding",
    "first_shown",
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
    found: dict[str, list[Mapping[str, Any]]] = {row["solver"]: [] for row in table.rows}
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


def finding(table: Comparison) -> str:
    """Return how many classical calls the fitted solvers are worth, or the best row if they gain nothing."""
    failures = len(table.failures)
    if failures == len(table.rows):
        return f"On {table.model} every solver failed: no samples are finite."
    return _best(table) + (f" {failures} of {len(table.rows)} solvers failed." if failures else "")


def _best(table: Comparison) -> str:
    metric = table.metrics[0]
    classical = [row for row in table.rows if not is_fitted(row["solver"]) and "failure" not in row]
    worth = {}
    for nfe in budgets(table):
        fitted = [row for row in table.rows if row["nfe"] == nfe and is_fitted(row["solver"])]
        if fitted and classical:
            ours = best(fitted, metric)
            beaten = _beaten(ours, classical, metric)
            if beaten >= nfe:
                worth[nfe] = (ours, beaten)
    if not worth:
        row = best(table.rows, metric)
        return (
            f"On {table.model} the best {figure(metric).label} is {short(row[metric])}, of {row['solver']} "
            f"with {row['nfe']} calls."
        )
    nfe, (ours, _) = min(worth.items(), key=lambda item: abs(item[0] - first_shown([table])))
    names = {ours["solver"] for ours, _ in worth.values()}
    name = names.pop() if len(names) == 1 else "the best fitted solver"
    won = f"On {table.model}, {name} has a better {figure(metric).label} {_wins(worth)}."
    return won + _quality(table, ours, nfe)


def _wins(worth: Mapping[int, tuple[Mapping[str, Any], int]]) -> str:
    """Return which numbers of calls beat which, preferring those that beat solvers with more calls."""
    more = [(nfe, beaten) for nfe, (_, beaten) in worth.items() if beaten > nfe]
    if not more:
        *first, last = map(str, worth)
        calls = f"{', '.join(first)} and {last}" if first else last
        return f"than any classical solver here with as many calls ({calls})"
    (nfe, beaten), *others = more
    first_win = f"with {nfe} calls than any classical solver here with {beaten}"
    return ", ".join([first_win, *(f"with {nfe} than with {beaten}" for nfe, beaten in others)])


def first_shown(tables: Sequence[Comparison]) -> int:
    """Return the number of calls to show first, one in the middle."""
    known = budgets(tables[0])
    return known[(len(known) - 1) // 2]


def _quality(table: Comparison, ours: Mapping[str, Any], nfe: int) -> str:
    """Return the quality of the samples next to the reference's, if it was measured."""
    for metric in table.metrics:
        own = table.protocol.get("reference", {}).get(metric)
        if own is not None:
            figures = f"{short(ours[metric])}; the reference's {short(own)}"
            return f" Its {figure(metric).label} with {nfe} calls is {figures}."
    return ""


def _beaten(ours: Mapping[str, Any], classical: Sequence[Mapping[str, Any]], metric: str) -> int:
    """Return the largest number of calls up to which every classical solver is worse, or 0."""
    enough = [row["nfe"] for row in classical if not better(metric, ours[metric], row[metric])]
    return max((row["nfe"] for row in classical if not enough or row["nfe"] < min(enough)), default=0)
