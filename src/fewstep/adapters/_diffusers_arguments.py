"""What :class:`FewStepScheduler` accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _solver_file
from .._fitted_for import differences
from .._json import finite
from ..fitting import Fit
from ..schedules import Schedule
from ..solver import Solver

__all__ = ["SAME", "by_calls", "check_even", "members", "schedule_mismatch", "shares_memory"]

#: Largest distance of two timesteps that are taken as one, a thousandth of a step of training.
SAME = 1e-3


def members(given: Solver | Fit) -> list[Solver]:
    """Return the solver, or those of a fit."""
    if isinstance(given, Solver):
        return [given]
    if not isinstance(given, Fit):
        raise ValueError(
            f"from_solver: needs a Solver or Fit, or several, not a {type(given).__name__}; load files with "
            "fewstep.load."
        )
    places = {(row["nfe"], row["guidance"]) for row in given.report.rows if row["trained"]}
    if len({scale for _, scale in places}) > 1:
        raise ValueError(
            "from_solver: this fit has solvers for several guidance scales, which a scheduler does not know; "
            "pass some of one scale, as fit.at(nfe=..., guidance=...)."
        )
    return [given.at(nfe, guidance) for nfe, guidance in sorted(places)]


def by_calls(given: Sequence[Solver | Mapping[str, Any]]) -> dict[int, Solver]:
    """Return solvers, or the objects in their files, by their numbers of network calls."""
    solvers = [
        one if isinstance(one, Solver) else Solver(**_solver_file.arguments(dict(one))) for one in given
    ]
    found = {solver.nfe: solver for solver in sorted(solvers, key=lambda solver: solver.nfe)}
    if not found or len(found) < len(solvers):
        raise ValueError(
            "FewStepScheduler: solvers must be one or more, of different numbers of network calls, not of "
            f"{[solver.nfe for solver in solvers]}; num_inference_steps chooses between them."
        )
    return found


def schedule_mismatch(solver: Solver, schedule: Schedule) -> str | None:
    """Describe in a sentence how the schedule differs from those a solver was fitted for."""
    if not solver.fitted_for:
        return None
    fitted = json.loads(json.dumps(finite(solver.fitted_for)))  # as in a file, where tuples are lists
    first, *more = ({"schedule": one.get("schedule")} for one in (fitted, *(fitted.get("also") or ())))
    facts = json.loads(json.dumps({"schedule": schedule.to_dict()}))
    found = differences({**first, "also": more}, facts)
    return None if found is None else f"solver {solver.name!r} was fitted for {found}"


def check_even(name: str, given: Any, own: Sequence[float]) -> None:
    """Raise a ``ValueError`` unless a list has even spaces or our own timesteps."""
    values = torch.as_tensor(given, dtype=torch.float64).cpu()
    scale = float(values.abs().max())
    if torch.allclose(values, torch.tensor(own, dtype=torch.float64), rtol=0, atol=SAME * max(scale, 1.0)):
        return
    # Some pipelines round their timesteps to whole numbers.
    rough = 2e-3 * scale
    even = torch.linspace(float(values[0]), float(values[-1]), len(values), dtype=torch.float64)
    if float((values - even).abs().max()) > rough:
        raise ValueError(
            f"FewStepScheduler: {name} must be left out, as its solvers have times of their own, not "
            f"{[round(v, 3) for v in values.tolist()]}; to use those, make a solver with that grid."
        )


def shares_memory(part: Tensor, whole: Tensor) -> bool:
    """Return whether a number is a view of a tensor."""
    return part.numel() == 1 and part.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr()
