"""``fewstep inspect``: the properties of a solver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .. import inspection
from .._adaptive import Adaptive
from .._files import replacing
from ..report import describe, inspected, warnings
from ..schedules import CondOT, Schedule, from_dict
from ..solver import Solver
from ._common import is_solver_file, read_solvers, report

__all__ = ["command"]


def command(
    solver: str,
    *,
    schedule: str | None = None,
    plot: Path | None = None,
    as_json: bool = False,
) -> None:
    """Print a solver's times, coefficients, order, stability, needs and warnings; no model is needed.

    Args:
        solver: a solver file, or a classical solver such as midpoint:8 or dpmpp_2m/karras:8.
        schedule: the network's schedule: cond_ot (the default of classical solvers), vp, cosine or ve.
        plot: write a PNG of times, coefficients and stability.
    """
    known = None if schedule is None else from_dict({"name": schedule})
    chosen, refine = _find(solver, known)
    facts = inspection.inspect(chosen, schedule=known, refine=refine)
    if plot is not None:
        with replacing(plot) as temporary:
            inspected(facts).savefig(temporary, dpi=130)
    result = {**facts.to_dict(), "warnings": warnings(facts), "plot": None if plot is None else str(plot)}
    report(as_json, result, lambda: describe(chosen, facts) + (f"\nwrote {plot}" if plot else ""))


def _find(spec: str, schedule: Schedule | None) -> tuple[Solver, Callable[[int], Solver | None] | None]:
    """Return the solver and, if given by name, a function that refines it."""
    if spec == Adaptive.name:
        raise ValueError(
            "SOLVER: adaptive has no table to inspect, it finds its steps as it goes; name a solver file, or "
            "a classical solver such as midpoint:8."
        )
    schedule = schedule or CondOT()
    chosen = next(iter(read_solvers([spec], None, schedule).values()))[0]
    if is_solver_file(spec):
        return chosen, None
    return chosen, inspection.refinement(spec.partition(":")[0], chosen.nfe, schedule)
