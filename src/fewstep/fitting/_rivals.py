"""Choice of the classical solver to start from, and errors of classical solvers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from .. import classical
from .._table import Reduced
from ..families._by_name import velocity_tables
from ..metrics import mean_psnr
from ..pairs import Pairs
from ._rollout import Rollout
from ._task import Task

__all__ = ["Choice", "best_classical", "mean_psnrs", "rival_errors"]

#: Most training pairs for the choice of a start.
PAIRS = 32


class Choice(NamedTuple):
    """The solver to start from (``None`` for the default), the network calls of the choice, and a note."""

    name: str | None
    calls: int
    note: str


def best_classical(rollout: Rollout, nfe: int, pairs: Pairs, *, steps: int = 1) -> Choice:
    """Return the classical solver with the best mean PSNR on the first pairs, of all on all named grids.

    Only solvers with at least so many steps are tried, and none beyond the rollout's limit of network calls.
    """
    field, pairs = rollout.field, pairs[:PAIRS]
    solvers = classical.baselines(nfe, field.schedule, list(classical.GRIDS))
    long = {name: solver for name, solver in solvers.items() if len(solver.points) > steps}
    candidates = velocity_tables(long, field)
    cost = nfe * len(pairs) * len(candidates)
    if cost > rollout.limit:
        return Choice(
            None,
            0,
            f"no start was searched for, which takes {cost:,} network calls of the {max(rollout.limit, 0):,} "
            "that max_calls leaves; the fit started from the default.",
        )
    psnr = mean_psnrs(rollout, candidates, pairs)
    best = max(psnr, key=lambda name: psnr[name], default=None)
    return Choice(
        best,
        rollout.calls,
        f"the start is {best}, the best of {len(psnr)} classical solvers on {len(pairs)} training pairs.",
    )


def mean_psnrs(rollout: Rollout, tables: Mapping[str, Reduced], pairs: Pairs) -> dict[str, float]:
    """Return the mean PSNR on some pairs, for tables whose errors are finite."""
    errors = {name: rollout.squared_error(table, pairs) for name, table in tables.items()}
    return {name: float(mean_psnr(error)) for name, error in errors.items() if error.isfinite().all()}


def rival_errors(task: Task, nfe: int) -> dict[str, float]:
    """Return the RMSE of every classical solver with ``nfe`` calls, infinite if undefined for the field."""
    solvers = classical.baselines(nfe, task.rollout.field.schedule)
    found = dict.fromkeys(solvers, math.inf)
    tables = velocity_tables(solvers, task.rollout.field)
    errors = [task.rollout.squared_error(table, task.pairs).sqrt().mean() for table in tables.values()]
    for name, error in zip(tables, map(float, errors), strict=True):  # read once all are on their way
        found[name] = error if math.isfinite(error) else math.inf
    return found
