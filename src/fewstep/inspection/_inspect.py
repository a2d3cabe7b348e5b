"""The complete analysis of a solver, :func:`inspect`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .._json import finite
from .._table import Table
from ..schedules import Schedule
from ..solver import Solver
from .convergence import Convergence, observed_order, refined, repeated
from .exactness import Exactness, exactness
from .needs import Needs, needs
from .stability import ErrorGrowth, Stability, error_growth, stability

__all__ = ["Inspection", "inspect"]

#: Facts of the solver itself in :meth:`Inspection.to_dict`.
_NUMBERS = (
    "name", "nfe", "times", "end", "points", "C", "D", "prediction", "family", "fitted_for", "scores",
)  # fmt: skip

#: Why no order could be measured.
NotMeasured = Literal["inconsistent", "one schedule", "not refinable", "rounding"]


@dataclass(frozen=True)
class Inspection:
    """The result of :func:`inspect`.

    Attributes:
        solver: the solver.
        exactness: residuals on problems that a consistent solver solves exactly.
        convergence: its measured order; ``None`` if it could not be measured.
        not_measured: why not: ``"inconsistent"``, ``"one schedule"`` (a table for one schedule cannot be
            repeated), ``"not refinable"`` (``refine`` gave fewer than two solvers) or ``"rounding"`` (fewer
            than two errors are above it).
        stability: on the linear test equation; ``None`` for a table without a form for velocities.
        errors: propagation of network and rounding errors to the sample.
        needs: the networks that it can be used with, and its memory.
    """

    solver: Solver
    exactness: Exactness
    convergence: Convergence | None
    not_measured: NotMeasured | None
    stability: Stability | None
    errors: ErrorGrowth
    needs: Needs

    def to_dict(self) -> dict[str, Any]:
        """Return the facts ready for JSON, with ``None`` for numbers that are not finite."""
        facts = {name: getattr(self.solver, name) for name in _NUMBERS}
        for name, part in vars(self).items():
            if name != "solver":
                facts[name] = part if part is None or isinstance(part, str) else asdict(part)
        return dict(finite(facts))


def inspect(
    solver: Solver,
    *,
    schedule: Schedule | None = None,
    refine: Callable[[int], Solver | None] | None = None,
) -> Inspection:
    """Analyse a solver from its numbers alone; no network is called.

    The order is measured on four smooth problems with a closed form, in float64, and stability on
    ``dx/dt = mu x``, both with the table in its form for velocities.

    Args:
        solver: any solver.
        schedule: schedule of the networks in :attr:`Needs.readable`; by default that of the table, or the one
            it was fitted on, or the four usual ones.
        refine: ``refine(k)`` returns the same method with ``k`` times the calls; see :func:`refinement`.
            Without it, the order is that of the table repeated on pieces of the path.

    Returns:
        The facts; :func:`fewstep.report.describe` puts them into words.

    Raises:
        ValueError: when ``schedule`` is another than the one that the table holds for, or the solver adds
            noise.
    """
    solver.check_ode("inspect")
    if schedule is not None and solver.schedule is not None and schedule != solver.schedule:
        raise ValueError(
            f"schedule: {solver.name!r} is a table of {solver.prediction} predictions for "
            f"{solver.schedule!r} alone, not for {schedule!r}; leave schedule out."
        )
    velocities = _velocities(solver)
    exact = exactness(solver, velocities)
    measured, reason = _measure(solver, velocities, exact, refine)
    return Inspection(
        solver=solver,
        exactness=exact,
        convergence=measured,
        not_measured=reason,
        stability=None if velocities is None else stability(velocities, solver.points, solver.end),
        errors=error_growth(solver),
        needs=needs(solver, schedule),
    )


def _velocities(solver: Solver) -> Table | None:
    try:
        return solver.to("velocity").table
    except ValueError:
        return None


def _measure(
    solver: Solver,
    velocities: Table | None,
    exact: Exactness,
    refine: Callable[[int], Solver | None] | None,
) -> tuple[Convergence | None, NotMeasured | None]:
    if not exact.consistent:
        return None, "inconsistent"
    if refine is not None:
        errors = refined(solver.nfe, refine)
    elif solver.schedule is None and velocities is not None:
        errors = repeated(velocities, solver.end)
    else:
        return None, "one schedule"
    order = observed_order(errors)
    if order is None:
        return None, "rounding" if len(errors) > 1 else "not refinable"
    how: Literal["refined", "repeated"] = "repeated" if refine is None else "refined"
    return Convergence(order, how, tuple(errors), tuple(errors.values())), None
