"""Charts of error and cost against the number of calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import quantiles
from typing import TYPE_CHECKING

from ...metrics import figure
from .._names import is_fitted
from ..page import Chart, Choice, Facts, Part, Section, Series, Table, Text
from ._rows import budgets, by_model, rows_of_solvers, short

if TYPE_CHECKING:
    from ...comparison import Comparison

__all__ = ["cost", "errors"]


def errors(tables: Sequence[Comparison]) -> Section:
    """Return charts of every metric against the number of network calls."""
    charts = {
        figure(metric).axis: by_model(tables, lambda table, metric=metric: _against_calls(table, metric))  # type: ignore[misc]
        for metric in tables[0].metrics
    }
    return Section(
        "Error and quality against network calls",
        [Choice("Figure", charts) if len(charts) > 1 else next(iter(charts.values())), *_failures(tables)],
        "Every solver starts from the same noises. Bars are 95 % confidence intervals of means over noises.",
    )


def _failures(tables: Sequence[Comparison]) -> list[Part]:
    """Return the reasons for missing points, if there are any."""
    of = {table.model: f" on {table.model}" if len(tables) > 1 else "" for table in tables}
    why = {
        f"{row['solver']} with {row['nfe']} calls{of[row['model']]}": row["failure"]
        for table in tables
        for row in table.rows
        if "failure" in row
    }
    return [Text("Some solvers failed, and have no point:"), Facts(why)] if why else []


def _against_calls(table: Comparison, metric: str) -> Chart:
    series = []
    for name, rows in rows_of_solvers(table).items():
        low, high = ([row.get(f"{metric}_{end}") for row in rows] for end in ("low", "high"))
        known = None not in (*low, *high)
        series.append(
            Series(
                name,
                [row["nfe"] for row in rows],
                [row[metric] for row in rows],
                low if known else None,
                high if known else None,
                strong=is_fitted(name),
            )
        )
    own = table.protocol["reference"].get(metric)
    said = [] if own is None else [f"The reference's own: {short(own)}.", *table.notes]
    return Chart(
        f"{figure(metric).axis}, {table.model}",
        "network calls",
        figure(metric).axis,
        series,
        log_y=not figure(metric).gain,
        note=" ".join(said),
    )


def cost(tables: Sequence[Comparison]) -> Section:
    """Return a table of the time of a network call and of a sample."""
    calls = budgets(tables[0])
    columns = [
        "model", "network forwards a call", "ms a call and sample", "lower quartile", "upper quartile",
        *(f"ms a sample, {nfe} calls" for nfe in calls),
    ]  # fmt: skip
    rows: list[list[str | float]] = []
    for table in tables:
        times = [row["milliseconds"] / row["nfe"] for row in table.rows if "failure" not in row]
        low, middle, high = quantiles(times, n=4) if len(times) > 1 else (times or [math.nan]) * 3
        forwards = table.rows[0]["forwards"] // table.rows[0]["nfe"]
        rows.append([table.model, forwards, middle, low, high, *(nfe * middle for nfe in calls)])
    return Section(
        "Network calls and seconds",
        [Table("The median over all solvers", columns, rows)],
        "A sample takes as long as its network calls; the solvers' own time is too short to measure. The "
        "time of a call is therefore taken from all solvers, measured one after the other, in batches; the "
        "spread between the quartiles comes from other work on the machine.",
    )
