"""Times and coefficients of the solvers of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...solver import Solver
from .._names import is_fitted
from ..page import Choice, Grid, Part, Section, Timeline
from ._rows import of_kept, ranked

if TYPE_CHECKING:
    from ...comparison import Comparison, Kept

__all__ = ["numbers"]


def numbers(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Return times and reduced coefficients of every solver, if solvers were kept."""
    times, weights = (of_kept(tables, lambda kept: True, part, first) for part in (_times, _weights))
    intro = (
        "Every solver is one table: each state x1, x2 and so on is a weight times the noise x0 plus weights "
        "times the network's velocities u0, u1 and so on. The last row is the sample."
    )
    title = "Times and coefficients of the solvers"
    return [Section(title, [*times, *weights], intro)] if times else []


def _at(table: Comparison, kept: Kept, nfe: int) -> dict[str, Solver]:
    """Return the solvers with ``nfe`` calls, the best first."""
    return {row["solver"]: kept.solvers[k] for k, row in ranked(table, nfe)}


def _times(table: Comparison, kept: Kept, nfe: int) -> Part:
    return Timeline(
        f"Times of {nfe} calls",
        {name: solver.times for name, solver in _at(table, kept, nfe).items()},
        "Time 0 is noise and 1 is data.",
    )


def _weights(table: Comparison, kept: Kept, nfe: int) -> Part:
    learned = _learned(_at(table, kept, nfe))
    return Choice("Solver", {name: _grid(solver, name) for name, solver in learned.items()})


def _learned(solvers: dict[str, Solver]) -> dict[str, Solver]:
    """Return the fitted solvers and the best classical one for comparison, or all if none is fitted."""
    fitted = {name: solver for name, solver in solvers.items() if is_fitted(name)}
    best = next((name for name in solvers if name not in fitted), None)
    known = {} if best is None else {best: solvers[best]}
    return {**fitted, **known} if fitted else solvers


def _grid(solver: Solver, name: str) -> Grid:
    table, N = solver.unroll().table, solver.nfe
    values = [
        [float(table.C[i, 0]), *(float(table.D[i, j]) if j <= i else None for j in range(N))]
        for i in range(N)
    ]
    columns = ["x0", *(f"u{j}" for j in range(N))]
    return Grid(f"Weights of {name}, {N} calls", values, [f"x{i + 1}" for i in range(N)], columns)
