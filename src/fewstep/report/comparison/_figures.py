"""Charts of a comparison: what solvers reach, against calls and against time."""

from __future__ import annotations

from collections.abc import Sequence

from ...comparison import Comparison
from ..page import Chart, Choice, Facts, Part, Section, Series, Text
from ._rows import axis_label, by_model, is_fitted, is_linear, rows_of_solvers, short

__all__ = ["cost", "errors"]


def errors(tables: Sequence[Comparison]) -> Section:
    """Every metric against the number of network calls."""
    charts = {
        axis_label(metric): by_model(tables, lambda table, metric=metric: _against_calls(table, metric))  # type: ignore[misc]
        for metric in tables[0].metrics
    }
    return Section(
        "Error and quality against network calls",
        [Choice("Figure", charts) if len(charts) > 1 else next(iter(charts.values())), *_failures(tables)],
        "Every solver starts from the same noises. Bars are 95 % confidence intervals of means over noises.",
    )


def _failures(tables: Sequence[Comparison]) -> list[Part]:
    """Why some points are missing, if some are."""
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
        f"{axis_label(metric)}, {table.model}",
        "network calls",
        axis_label(metric),
        series,
        log_y=not is_linear(metric),
        note=" ".join(said),
    )


def cost(tables: Sequence[Comparison]) -> Section:
    """The first metric against time."""
    return Section(
        "Error against time",
        [by_model(tables, _against_time)],
        "Time of sampling alone, in batches, on the machine named below. Solvers that were measured at "
        "another moment may have met a busier machine.",
    )


def _against_time(table: Comparison) -> Chart:
    metric = table.metrics[0]
    series = []
    for name, rows in rows_of_solvers(table).items():
        rows = sorted(
            (row for row in rows if "failure" not in row), key=lambda row: float(row["milliseconds"])
        )
        seconds, figures = [row["milliseconds"] for row in rows], [row[metric] for row in rows]
        series.append(Series(name, seconds, figures, strong=is_fitted(name)))
    return Chart(
        f"{axis_label(metric)} against time, {table.model}",
        "milliseconds a sample",
        axis_label(metric),
        series,
        log_x=True,
        log_y=not is_linear(metric),
    )
