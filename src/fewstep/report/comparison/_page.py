"""The page of a comparison: solvers x network calls x models, on the same noises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...metrics import figure
from ..page import Code, Facts, Page, Part, Section, Table
from ._figures import cost, errors
from ._rows import by_model
from ._samples import pictures, trajectories
from ._solvers import numbers
from ._summary import finding, first_shown

if TYPE_CHECKING:
    from ...comparison import Comparison

__all__ = ["comparison_page"]


def comparison_page(
    tables: Sequence[Comparison], *, title: str | None = None, command: str | None = None
) -> Page:
    """Return the page of comparisons, with images and numbers.

    Args:
        tables: one comparison per model, all with the same metrics; those made with ``keep`` have images (or
            trajectories) and coefficients.
        title: heading of the page.
        command: the command that makes it.

    Raises:
        ValueError: when there is no table, or their metrics differ.
    """
    if len({table.metrics for table in tables}) != 1:
        raise ValueError(
            "comparison_page: tables must be one or more with the same metrics, not "
            f"{[list(table.metrics) for table in tables]}; compare all models alike."
        )
    first = first_shown(tables)
    models = " and ".join(table.model for table in tables)
    return Page(
        title or f"Few-step solvers on {models}",
        "\n".join(finding(table) for table in tables),
        [
            errors(tables),
            *pictures(tables, first),
            *trajectories(tables, first),
            *numbers(tables, first),
            *_models(tables),
            cost(tables),
            Section("All figures", [_all_rows(tables)]),
            Section("How it was measured, and how to do it again", _protocol(tables, command)),
        ],
    )


def _models(tables: Sequence[Comparison]) -> list[Section]:
    """Return the measured properties of the models themselves, if there are any."""
    if not all("curvature" in table.protocol for table in tables):
        return []
    own = [metric for metric in tables[0].metrics if metric in tables[0].protocol["reference"]]
    columns = [
        "model", "curvature per dimension", "relative curvature", "calls of the reference",
        *(f"its {figure(metric).label}" for metric in own),
    ]  # fmt: skip
    rows = []
    for table in tables:
        curvature, reference = table.protocol["curvature"], table.protocol["reference"]
        figures = [reference[metric] for metric in own]
        rows.append(
            [table.model, curvature["per_dimension"], curvature["relative"], reference["nfe"], *figures]
        )
    return [
        Section(
            "Curvature of the models",
            [Table("Along reference paths", columns, rows)],
            "Curvature is the variance of the velocity along a path: zero for straight paths, for which one "
            "call is enough. Relative curvature is divided by the squared distance from noise to data.",
        )
    ]


def _all_rows(tables: Sequence[Comparison]) -> Table:
    rows = [row for table in tables for row in table.rows]
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "failure"))
    return Table(
        "Means over noises, with the ends of their 95 % confidence intervals",
        [_heading(column) for column in columns],
        [[row.get(column) for column in columns] for row in rows],
    )


def _heading(column: str) -> str:
    """Return the heading of a column."""
    name, _, end = column.rpartition("_")
    if end in ("low", "high"):
        return f"{figure(name).label} {'from' if end == 'low' else 'to'}"
    known = {"nfe": "network calls", "forwards": "network forwards", "milliseconds": "ms a sample"}
    return known.get(column) or figure(column).label


def _protocol(tables: Sequence[Comparison], command: str | None) -> list[Part]:
    solvers = [solver for table in tables if table.kept for solver in table.kept.solvers]
    cited = list(dict.fromkeys(entry for solver in solvers for entry in solver.citation))
    again: list[Part] = [] if command is None else [Code(command)]
    cite: list[Part] = [Facts({"to cite": cited})] if cited else []
    return [*again, by_model(tables, lambda table: Facts(_without_repetition(table.protocol))), *cite]


def _without_repetition(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return the protocol without the repeated field of the reference."""
    reference = {key: value for key, value in protocol["reference"].items() if key != "field"}
    return {**protocol, "reference": reference}
