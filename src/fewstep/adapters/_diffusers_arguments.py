"""What :class:`FewStepScheduler` accepts."""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from .. import _solver_file
from .._extras import require
from .._fitted_for import differences
from .._json import finite
from ..fitting import Fit
from ..lifted import Lifted
from ..networks import Corrector, load_network, save_network
from ..schedules import Schedule
from ..solver import Solver
from ._diffusers_dialect import SAME

__all__ = [
    "OURS",
    "before",
    "by_calls",
    "check_begin",
    "check_even",
    "members",
    "packed",
    "schedule_mismatch",
    "shares_memory",
]

#: The name of our part of the settings. diffusers' own schedulers pass over names with an underscore, and
#: keep them.
OURS = "_fewstep"
#: Corrections of a lifted solver in its settings.
_CORRECTOR = "corrector"


def before(settings: Mapping[str, Any]) -> Any:
    """Return the scheduler whose settings became those of a :class:`FewStepScheduler`.

    Raises:
        ValueError: when it is not one of diffusers.
    """
    name = str(settings[OURS]["before"])
    kind = getattr(require("diffusers", "diffusers"), name, None)
    if kind is None:
        raise ValueError(
            f"FewStepScheduler: {name}, the scheduler before, is not one of diffusers; make it by "
            f"{name}.from_config(scheduler.config)."
        )
    return kind.from_config({key: value for key, value in settings.items() if key != OURS})


def members(given: Solver | Fit) -> list[Solver]:
    """Return the solver, or those of a fit."""
    if isinstance(given, Solver):
        return [given]
    if not isinstance(given, Fit):
        raise ValueError(
            f"from_solver: solver must be a Solver or Fit, or several, not a {type(given).__name__}; load "
            "files with fewstep.load, and pass the pipeline's scheduler second."
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
    solvers = [one if isinstance(one, Solver) else _unpacked(one) for one in given]
    found = {solver.nfe: solver for solver in sorted(solvers, key=lambda solver: solver.nfe)}
    if not found or len(found) < len(solvers):
        raise ValueError(
            "FewStepScheduler: solvers must be one or more, of different numbers of network calls, not of "
            f"{[solver.nfe for solver in solvers]}; num_inference_steps chooses between them."
        )
    return found


def packed(solver: Solver) -> dict[str, Any]:
    """Return the object in the file of a solver; of a lifted one with the file of corrections, in base 64."""
    found: dict[str, Any] = finite(solver.to_dict())
    if isinstance(solver, Lifted):
        with TemporaryDirectory() as folder:
            save_network(Path(folder) / _CORRECTOR, solver.corrector)
            found[_CORRECTOR] = b64encode((Path(folder) / _CORRECTOR).read_bytes()).decode()
    return found


def _unpacked(given: Mapping[str, Any]) -> Solver:
    solver = Solver(**_solver_file.arguments({key: x for key, x in given.items() if key != _CORRECTOR}))
    if _CORRECTOR not in given:
        return solver
    with TemporaryDirectory() as folder:
        (Path(folder) / _CORRECTOR).write_bytes(b64decode(given[_CORRECTOR]))
        corrector = load_network(Path(folder) / _CORRECTOR)
    if not isinstance(corrector, Corrector):
        raise ValueError(f"FewStepScheduler: the corrections of solver {solver.name!r} are another network.")
    return Lifted.of(solver, corrector)


def schedule_mismatch(solver: Solver, schedule: Schedule) -> str | None:
    """Describe in a sentence how the schedule differs from those a solver was fitted for."""
    if not solver.fitted_for:
        return None
    fitted = json.loads(json.dumps(finite(solver.fitted_for)))  # as in a file, where tuples are lists
    first, *more = ({"schedule": one.get("schedule")} for one in (fitted, *(fitted.get("also") or ())))
    facts = json.loads(json.dumps({"schedule": schedule.to_dict()}))
    found = differences({**first, "also": more}, facts)
    return None if found is None else f"solver {solver.name!r} was fitted for {found}"


def check_begin(index: int, calls: int) -> None:
    """Raise a ``ValueError`` unless a call remains from an index on."""
    if index >= calls:
        raise ValueError(
            f"FewStepScheduler: the pipeline begins after all {calls} network calls; pass strength="
            f"{math.ceil(1000 / calls) / 1000:g} or more, or a solver with more calls."
        )


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
