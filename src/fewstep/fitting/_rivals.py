"""Classical solvers on the pairs of a fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from .. import classical
from .._table import Reduced
from ..families._by_name import velocity_tables
from ..field import Field
from ..metrics import mean_psnr
from ..pairs import Pairs
from ..solver import Solver
from ._rollout import Rollout
from ._task import Task

__all__ = ["candidates", "mean_psnrs", "ranked", "ranking_cost", "rival_errors"]

#: Training pairs on which all classical solvers are scored, and then the best quarter of them.
FEW, PAIRS = 4, 16


def candidates(nfe: int, field: Field, steps: int = 1) -> dict[str, Solver]:
    """Return the classical solvers on all named grids that make at least so many steps."""
    solvers = classical.baselines(nfe, field.schedule, list(classical.GRIDS))
    return {name: solver for name, solver in solvers.items() if len(solver.points) > steps}


def ranking_cost(nfe: int, field: Field) -> int:
    """Return the most network calls of :func:`ranked`."""
    count = len(candidates(nfe, field))
    return nfe * (FEW * count + PAIRS * -(-count // 4))


def ranked(rollout: Rollout, nfe: int, pairs: Pairs, *, steps: int = 1) -> list[str]:
    """Return classical solvers with at least so many steps by their mean PSNR, the best first.

    All are scored on a few training pairs, and the best quarter on up to 16.
    """
    tables = velocity_tables(candidates(nfe, rollout.field, steps), rollout.field)
    for count in (FEW, PAIRS):
        score = mean_psnrs(rollout, tables, pairs[:count])
        order = sorted(score, key=lambda name: -score[name])
        tables = {name: tables[name] for name in order[: -(-len(tables) // 4)]}
    return order


def mean_psnrs(rollout: Rollout, tables: Mapping[str, Reduced], pairs: Pairs) -> dict[str, float]:
    """Return the mean PSNR on some pairs, for tables whose errors are finite."""
    errors = {name: rollout.squared_error(table, pairs) for name, table in tables.items()}
    return {name: float(mean_psnr(error)) for name, error in errors.items() if error.isfinite().all()}


def rival_errors(task: Task, nfe: int, more: Iterable[str] = ()) -> dict[str, Tensor]:
    """Return mean squares of the errors of every classical solver with ``nfe`` calls, ``(B,)``.

    They are infinite if undefined for the field. The solvers are on the uniform grid; ``more`` names further
    ones, on other grids.
    """
    schedule = task.rollout.field.schedule
    solvers = classical.baselines(nfe, schedule)
    solvers |= {name: classical.named(name, nfe, schedule) for name in more}
    undefined = task.pairs.x0.new_full((len(task.pairs),), math.inf, dtype=torch.float64)
    tables = velocity_tables(solvers, task.rollout.field)
    found = {name: task.rollout.squared_error(table, task.pairs) for name, table in tables.items()}
    return {name: found.get(name, undefined) for name in solvers}
