"""Rows of comparisons: which are best, and what their figures are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...comparison import Comparison
from ..page import Choice, Part, Slider

__all__ = [
    "axis_label",
    "best",
    "better",
    "budgets",
    "by_calls",
    "by_model",
    "failed",
    "is_fitted",
    "is_linear",
    "label",
    "ranked",
    "rows_of_solvers",
    "short",
]

#: What metrics are called, and on an axis.
_LABELS = {
    "rmse": ("RMSE", "RMSE to the reference"),
    "psnr": ("PSNR", "PSNR to the reference (dB)"),
    "pooled_rmse": ("pooled RMSE", "pooled RMSE to the reference"),
    "fid": ("FID", "FID"),
    "kid": ("KID", "KID"),
}

#: More is better; these have a linear axis, as they are logarithms already, or shares.
_GAINS = ("psnr", "precision", "recall", "density", "coverage")


def label(metric: str) -> str:
    """What a metric is called in a sentence."""
    return _names(metric)[0]


def axis_label(metric: str) -> str:
    """What a metric is called on an axis."""
    return _names(metric)[1]


def _names(metric: str) -> tuple[str, str]:
    kind, _, network = metric.partition("_")
    if metric not in _LABELS and network and kind in ("frechet", "kernel"):
        name = "Fréchet distance" if kind == "frechet" else "kernel distance"
        return name, f"{name}, {network} features"
    return _LABELS.get(metric, (metric, metric))


def is_linear(metric: str) -> bool:
    """Whether a metric is to be seen on a linear axis."""
    return metric in _GAINS


def better(metric: str, one: float | None, other: float | None) -> bool:
    """Whether the first of two figures is the better."""
    return _order(metric, one) < _order(metric, other)


def best(rows: Sequence[Mapping[str, Any]], metric: str) -> Mapping[str, Any]:
    """The row with the best figure."""
    return min(rows, key=lambda row: _order(metric, row[metric]))


def ranked(table: Comparison, nfe: int) -> list[tuple[int, Mapping[str, Any]]]:
    """Rows with so many calls and their numbers, the best in the first metric first, failures last."""
    metric = table.metrics[0]
    rows = [(k, row) for k, row in enumerate(table.rows) if row["nfe"] == nfe]
    return sorted(rows, key=lambda item: _order(metric, item[1][metric]))


def failed(table: Comparison, nfe: int) -> str:
    """Which solvers have nothing to show with so many calls, in a sentence; nothing if all have."""
    names = [str(row["solver"]) for row in table.rows if row["nfe"] == nfe and "failure" in row]
    return f"Failed, for the reasons named under the first chart: {', '.join(names)}." if names else ""


def rows_of_solvers(table: Comparison) -> dict[str, list[Mapping[str, Any]]]:
    """By solver its rows, from few calls to many."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(table.rows, key=lambda row: int(row["nfe"])):
        found.setdefault(row["solver"], []).append(row)
    names = dict.fromkeys(row["solver"] for row in table.rows)  # in their own order
    return {name: found[name] for name in names}


def budgets(table: Comparison) -> list[int]:
    """The numbers of calls that some solver has."""
    return sorted({row["nfe"] for row in table.rows})


def is_fitted(name: str) -> bool:
    """Whether a solver is what the page is about."""
    return name.startswith("fitted")


def by_model(tables: Sequence[Comparison], part: Callable[[Comparison], Part]) -> Part:
    """The part of the only model, or a choice of models."""
    parts = {table.model: part(table) for table in tables}
    return Choice("Model", parts) if len(parts) > 1 else next(iter(parts.values()))


def by_calls(table: Comparison, part: Callable[[int], Part], first: int) -> Slider:
    """A part a number of calls; all sliders of the page move together."""
    known = budgets(table)
    start = first if first in known else None
    return Slider("Network calls", {nfe: part(nfe) for nfe in known}, start)


def short(value: float | None) -> str:
    """A figure in a sentence."""
    return "unknown" if value is None else f"{value:.3g}"


def _order(metric: str, value: float | None) -> float:
    """Smaller is better; what is not finite comes last."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if metric in _GAINS else value
