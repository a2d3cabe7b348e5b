"""Refinement of a solver to more calls, as the start of a fit."""

from __future__ import annotations

import torch
from torch import Tensor

from .._table import Reduced, Table
from ..schedules import Schedule
from ..solver import Solver

__all__ = ["refined"]


def refined(solver: Solver, nfe: int, schedule: Schedule | None = None) -> Solver:
    """Return a solver with the same samples and further calls, which nothing reads yet.

    Each call is in the middle of the longest gap between two calls (or the last and the end), at the mean of
    their states. All coefficients of its prediction are zero: a fit that starts here is never worse than the
    solver with fewer calls.

    Args:
        solver: the solver, with at most ``nfe`` calls.
        nfe: network calls of the new solver.
        schedule: the network's schedule, needed only if ``solver`` is a table of other predictions than
            velocities without a schedule.

    Raises:
        ValueError: when the solver makes more calls.
    """
    if nfe < solver.nfe:
        raise ValueError(
            f"refined: nfe must be at least {solver.nfe}, the calls of {solver.name!r}, not {nfe}."
        )
    table, points = solver.to("velocity", schedule).table.unroll(), solver.points
    for _ in range(nfe - solver.nfe):
        table, k = _with_one_more(table, solver.end)
        points = tuple(p if p <= k else p + 1 for p in points)
    if nfe == solver.nfe:
        return solver
    return Solver.from_table(
        Table.from_reduced(table), points, end=solver.end, name=f"{solver.name}, {nfe} calls"
    )


def _with_one_more(table: Reduced, end: float) -> tuple[Reduced, int]:
    """Return the table with one more call after call ``k``, and ``k``."""
    times, a, b = table
    at = torch.cat([times, times.new_tensor([end])])
    k = int(at.diff().argmax())

    def halfway(rows: Tensor, first: Tensor) -> Tensor:
        """Return rows ``1 .. N`` with one more before row ``k + 1``, the mean of the rows around it."""
        before = rows[k - 1] if k else first
        return torch.cat([rows[:k], ((before + rows[k]) / 2)[None], rows[k:]])

    b = halfway(b, torch.zeros_like(b[0]))
    return Reduced(
        times=torch.cat([at[: k + 1], at[k : k + 2].mean(0, keepdim=True), times[k + 1 :]]),
        a=halfway(a, torch.ones_like(a[0])),
        b=torch.cat([b[:, : k + 1], torch.zeros_like(b[:, :1]), b[:, k + 1 :]], dim=1),
    ), k
