"""The main result of a comparison, in one or two sentences per model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...metrics import figure
from .._names import is_fitted
from ._rows import best, better, budgets, short

if TYPE_CHECKING:
    from ...comparison import Comparison

__all__ = ["finding", "first_shown"]

_Row = Mapping[str, Any]


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


def _wins(worth: Mapping[int, tuple[_Row, int]]) -> str:
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


def _quality(table: Comparison, ours: _Row, nfe: int) -> str:
    """Return the quality of the samples next to the reference's, if it was measured."""
    for metric in table.metrics:
        own = table.protocol.get("reference", {}).get(metric)
        if own is not None:
            figures = f"{short(ours[metric])}; the reference's {short(own)}"
            return f" Its {figure(metric).label} with {nfe} calls is {figures}."
    return ""


def _beaten(ours: _Row, classical: Sequence[_Row], metric: str) -> int:
    """Return the largest number of calls up to which every classical solver is worse, or 0."""
    enough = [row["nfe"] for row in classical if not better(metric, ours[metric], row[metric])]
    return max((row["nfe"] for row in classical if not enough or row["nfe"] < min(enough)), default=0)
