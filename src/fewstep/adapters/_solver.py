"""Checks of the solvers that adapters run in the loops of other frameworks."""

from __future__ import annotations

from ..schedules import Schedule, from_dict
from ..solver import Solver

__all__ = ["checked_solver", "own_schedule"]


def checked_solver(solver: object, function: str) -> Solver:
    """Return a solver; raise a ``ValueError`` for anything else, such as a fit of several."""
    if not isinstance(solver, Solver):
        raise ValueError(
            f"{function}: solver is a {type(solver).__name__}, but must be a fewstep.Solver, such as "
            "fit.solver, fit.at(nfe=8) or fewstep.classical.midpoint(4)."
        )
    return solver


def own_schedule(solver: Solver) -> Schedule | None:
    """Return the schedule that a solver was built or fitted for; ``None`` if it names none, or several."""
    if solver.schedule is not None:
        return solver.schedule
    fitted = solver.fitted_for or {}
    named = [one["schedule"] for one in (fitted, *(fitted.get("also") or ())) if "schedule" in one]
    return from_dict(named[0]) if named and all(one == named[0] for one in named) else None
