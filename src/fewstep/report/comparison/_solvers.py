"""What the solvers of a comparison are: their times and coefficients."""

from __future__ import annotations

from collections.abc import Sequence

from ...comparison import Comparison
from ...solver import Solver
from ..page import Choice, Grid, Part, Section, Timeline
from ._rows import by_calls, by_model, is_fitted, ranked

__all__ = ["numbers"]


def numbers(tables: Sequence[Comparison], first: int) -> list[Section]:
    """Times and reduced coefficients of every solver, where solvers are kept."""
    kept = {table.model: table.kept.solvers for table in tables if table.kept}
    if not kept:
        return []
    shown = [table for table in tables if table.model in kept]

    def at(table: Comparison, nfe: int) -> dict[str, Solver]:
        return {row["solver"]: kept[table.model][k] for k, row in ranked(table, nfe)}

    def times(table: Comparison) -> Part:
        return by_calls(table, lambda nfe: _times(at(table, nfe), nfe), first)

    def coefficients(table: Comparison) -> Part:
        def of(nfe: int) -> Part:
            return Choice("Solver", {name: _grid(s, name) for name, s in _learned(at(table, nfe)).items()})

        return by_calls(table, of, first)

    return [
        Section(
            "When the solvers call the network, and what they make of it",
            [by_model(shown, times), by_model(shown, coefficients)],
            "Every solver is one table: each state x1, x2 and so on is a weight times the noise x0, plus "
            "weights times the network's answers u0, u1 and so on, as velocities. The last row is the "
            "sample.",
        )
    ]


def _learned(solvers: dict[str, Solver]) -> dict[str, Solver]:
    """The fitted solvers and, to compare, the best of the classical ones; where nothing is fitted, all."""
    fitted = {name: solver for name, solver in solvers.items() if is_fitted(name)}
    best = next((name for name in solvers if name not in fitted), None)
    known = {} if best is None else {best: solvers[best]}
    return {**fitted, **known} if fitted else solvers


def _times(solvers: dict[str, Solver], nfe: int) -> Timeline:
    return Timeline(
        f"Times of {nfe} calls",
        {name: solver.times for name, solver in solvers.items()},
        "Time 0 is noise and 1 is data.",
    )


def _grid(solver: Solver, name: str) -> Grid:
    one = solver if solver.channels is None else solver.channel(0)
    table, N = one.unroll().table, solver.nfe
    values = [
        [float(table.C[i, 0]), *(float(table.D[i, j]) if j <= i else None for j in range(N))]
        for i in range(N)
    ]
    note = "" if solver.channels is None else f"Those of the first of {solver.channels} channels."
    columns = ["x0", *(f"u{j}" for j in range(N))]
    return Grid(f"Weights of {name}, {N} calls", values, [f"x{i + 1}" for i in range(N)], columns, note)
