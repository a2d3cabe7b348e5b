"""What was found, in a sentence for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ...comparison import Comparison
from ._rows import best, better, budgets, is_fitted, is_linear, label, short

__all__ = ["finding", "first_shown"]


class _Gain(NamedTuple):
    """A number of calls at which a fitted solver is better than the classical ones."""

    size: float
    nfe: int
    ours: Mapping[str, Any]
    theirs: Mapping[str, Any]


def finding(table: Comparison) -> str:
    """Where fitting gains most, or the best row where nothing is gained; and how many solvers failed."""
    failures = len(table.failures)
    if failures == len(table.rows):
        return f"On {table.model} every solver failed: no samples are finite."
    return _best(table) + (f" {failures} of {len(table.rows)} solvers failed." if failures else "")


def _best(table: Comparison) -> str:
    metric = table.metrics[0]
    gain = _greatest_gain(table)
    if gain is None:
        row = best(table.rows, metric)
        return (
            f"On {table.model} the best {label(metric)} is {short(row[metric])}, of {row['solver']} with "
            f"{row['nfe']} calls."
        )
    classical = _classical(table)
    enough = [row["nfe"] for row in classical if not better(metric, gain.ours[metric], row[metric])]
    rest = (
        f"the first of them to be as good needs {min(enough)} calls"
        if enough
        else f"none of them is as good with up to {max(row['nfe'] for row in classical)} calls"
    )
    return (
        f"On {table.model}, with {gain.nfe} network calls, {gain.ours['solver']} has {label(metric)} "
        f"{short(gain.ours[metric])}; the best of the classical solvers here, {gain.theirs['solver']}, has "
        f"{short(gain.theirs[metric])}, and {rest}."
    )


def first_shown(tables: Sequence[Comparison]) -> int:
    """The number of calls that a reader sees first: where most is gained, or else one in the middle."""
    gains = [gain for gain in map(_greatest_gain, tables) if gain is not None]
    if gains:
        return max(gains, key=lambda gain: gain.size).nfe
    known = budgets(tables[0])
    return known[(len(known) - 1) // 2]


def _greatest_gain(table: Comparison) -> _Gain | None:
    metric = table.metrics[0]
    gains = []
    for nfe in budgets(table):
        here = [row for row in table.rows if row["nfe"] == nfe and "failure" not in row]
        fitted = [row for row in here if is_fitted(row["solver"])]
        others = [row for row in here if not is_fitted(row["solver"])]
        if fitted and others:
            ours, theirs = best(fitted, metric), best(others, metric)
            if better(metric, ours[metric], theirs[metric]):
                one, other = ours[metric], theirs[metric]
                size = one - other if is_linear(metric) else other / one
                gains.append(_Gain(size, nfe, ours, theirs))
    return max(gains, key=lambda gain: gain.size, default=None)


def _classical(table: Comparison) -> list[Mapping[str, Any]]:
    return [row for row in table.rows if not is_fitted(row["solver"])]
