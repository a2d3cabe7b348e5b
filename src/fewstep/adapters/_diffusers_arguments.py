"""What :class:`FewStepScheduler` accepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .. import _solver_file
from ..fitting import Fit
from ..solver import Solver

__all__ = ["SAME", "by_calls", "check_even", "members"]

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
