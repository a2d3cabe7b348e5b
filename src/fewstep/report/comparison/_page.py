"""The page of a comparison, solvers x network calls x models on the same noises, and the files beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..._files import replacing, write_text
from ..._json import finite
from ..._rows import csv_of, markdown_of
from ...metrics import figure
from ..page import Code, Facts, Page, Part, Section, Table
from ..page.figures import chart_figure
from ._findings import finding, first_shown
from ._rows import by_model, several
from ._sections import chart, cost, errors, fits, lifts, numbers, samples

if TYPE_CHECKING:
    from ...comparison import Comparison

__all__ = ["comparison_page", "write_comparison"]


def comparison_page(tables: Sequence[Comparison], *, command: str | None = None) -> Page:
    """Return the page of comparisons, with images and numbers.

    Args:
        tables: one comparison per model, all with the same metrics; those made with ``keep`` have images (or
            trajectories) and coefficients.
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
        f"Few-step solvers on {models}",
        "\n".join(": ".join([*several(tables, table.model), finding(table)]) for table in tables),
        [
            *samples(tables, first),
            errors(tables),
            *numbers(tables, first),
            *fits(tables),
            *lifts(tables),
            *_models(tables),
            *cost(tables),
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
        *several(tables, "model"), "curvature per dimension", "relative curvature", "calls of the reference",
        *(f"its {figure(metric).label}" for metric in own),
    ]  # fmt: skip
    rows = []
    for table in tables:
        curvature, reference = table.protocol["curvature"], table.protocol["reference"]
        figures = [reference[metric] for metric in own]
        own_curvature = [curvature["per_dimension"], curvature["relative"]]
        rows.append([*several(tables, table.model), *own_curvature, reference["nfe"], *figures])
    return [
        Section(
            "Curvature of the models" if len(tables) > 1 else "Curvature of the model",
            [Table("Along reference paths", columns, rows)],
            "Curvature is the variance of the velocity along a path: zero for straight paths, for which one "
            "call is enough. Relative curvature is divided by the squared distance from noise to data.",
        )
    ]


def _all_rows(tables: Sequence[Comparison]) -> Table:
    rows = [row for table in tables for row in table.rows]
    hidden = {"failure", "model"} - set(several(tables, "model"))
    columns = list(dict.fromkeys(column for row in rows for column in row if column not in hidden))
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

    def facts(table: Comparison) -> Facts:
        # The reference's field is that of the comparison.
        reference = {key: value for key, value in table.protocol["reference"].items() if key != "field"}
        return Facts({**table.protocol, "reference": reference})

    return [*again, by_model(tables, facts), *cite]


def write_comparison(tables: Sequence[Comparison], folder: Path, *, command: str | None = None) -> list[str]:
    """Write comparisons of one or more models, and their page.

    ``results.json`` has all rows, the protocol of every model, the command, and the numbers of each row's
    solver if solvers were kept; ``results.csv`` and ``results.md`` have the rows; ``index.html`` is the page;
    and one image per model shows the first metric against the number of calls.

    Returns:
        The paths of the files.
    """
    rows = [row for table in tables for row in table.rows]
    page = comparison_page(tables, command=command)
    solvers = [solver.to_dict() for table in tables if table.kept for solver in table.kept.solvers]
    results = {
        "rows": rows,
        "protocols": {table.model: table.protocol for table in tables},
        "command": command,
        "solvers": solvers,
    }
    write_text(folder / "results.json", json.dumps(finite(results), indent=1, allow_nan=False) + "\n")
    write_text(folder / "results.csv", csv_of(rows))
    columns = (*several(tables, "model"), "solver", "nfe", *tables[0].metrics)
    write_text(folder / "results.md", markdown_of(rows, columns))
    page.write(folder / "index.html")
    files = ["results.json", "results.csv", "results.md", "index.html"]
    for table in tables:
        name = f"{'-'.join(['error-against-nfe', *map(_plain, several(tables, table.model))])}.png"
        with replacing(folder / name) as temporary:
            chart_figure(chart(table, table.metrics[0])).savefig(temporary, dpi=200)
        files.append(name)
    return [str(folder / name) for name in files]


def _plain(name: str) -> str:
    """Return a name in a form suitable for file names."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
