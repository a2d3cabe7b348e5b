"""What was found, in a sentence for each model."""

from __future__ import annotations

from ...comparison import Comparison
from ._rows import best, better, budgets, is_fitted, is_linear, short

__all__ = ["finding"]


def finding(table: Comparison) -> str:
    """The number of calls where fitting gains most, or the best row where nothing is gained."""
    metric = table.metrics[0]
    classical = [row for row in table.rows if not is_fitted(row["solver"])]
    gains = []
    for nfe in budgets(table):
        fitted = [row for row in table.rows if row["nfe"] == nfe and is_fitted(row["solver"])]
        others = [row for row in classical if row["nfe"] == nfe]
        if fitted and others:
            ours, theirs = best(fitted, metric), best(others, metric)
            if better(metric, ours[metric], theirs[metric]):
                gains.append((_gain(metric, ours[metric], theirs[metric]), nfe, ours, theirs))
    if not gains:
        first = best(table.rows, metric)
        return (
            f"On {table.model} the best {metric} of all is {short(first[metric])}, of {first['solver']} with "
            f"{first['nfe']} calls."
        )
    _, nfe, ours, theirs = max(gains, key=lambda gain: gain[0])
    enough = [row["nfe"] for row in classical if not better(metric, ours[metric], row[metric])]
    needs = f"{min(enough)} calls" if enough else f"more than {max(row['nfe'] for row in classical)} calls"
    return (
        f"On {table.model}, with {nfe} network calls, {ours['solver']} has {metric} "
        f"{short(ours[metric])}; the best of the classical solvers here, {theirs['solver']}, has "
        f"{short(theirs[metric])}, and any of them needs {needs} for as good a figure."
    )


def _gain(metric: str, one: float, other: float) -> float:
    return one - other if is_linear(metric) else other / one
