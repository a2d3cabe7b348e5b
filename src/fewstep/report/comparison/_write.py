"""The files of a comparison."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..._files import replacing, write_text
from ..._json import finite
from ..._rows import csv_of, markdown_of
from ..plots import error_against_nfe
from ._page import comparison_page

if TYPE_CHECKING:
    from ...comparison import Comparison

__all__ = ["write_comparison"]


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
    several = ("model",) if len(tables) > 1 else ()
    columns = (*several, "solver", "nfe", *tables[0].metrics)
    write_text(folder / "results.md", markdown_of(rows, columns))
    page.write(folder / "index.html")
    files = ["results.json", "results.csv", "results.md", "index.html"]
    for table in tables:
        name = f"error-against-nfe-{_plain(table.model)}.png" if several else "error-against-nfe.png"
        with replacing(folder / name) as temporary:
            error_against_nfe(table, table.metrics[0]).savefig(temporary, dpi=130)
        files.append(name)
    return [str(folder / name) for name in files]


def _plain(name: str) -> str:
    """Return a name in a form suitable for file names."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
