"""Requirements of a solver: compatible networks, times of calls, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

from .._execute import plan
from .._predictions import Prediction
from ..schedules import VE, VP, CondOT, Cosine, Schedule, from_dict
from ..solver import Solver

__all__ = ["Needs", "needs"]


@dataclass(frozen=True)
class Needs:
    """The requirements of a solver.

    Attributes:
        prediction: the prediction that its table uses.
        schedule: the only schedule for which it is valid; ``None`` if it is valid for all.
        readable: by schedule, the network predictions for which its table is finite.
        fitted_for: the field it was fitted to: ``model``, ``guidance``, ``shape`` and so on; ``None`` for a
            classical solver.
        states: largest number of states and predictions in memory, including the new one.
        calls_at_end: calls at exactly ``t = 1``.
        uninformative_calls: noise predictions in pure noise and data predictions in pure data, which add no
            information.
        calls_back_in_time: calls at an earlier time than the call before.
        shortest_step: shortest step between two trajectory points.
    """

    prediction: str
    schedule: dict[str, Any] | None
    readable: dict[str, tuple[str, ...]]
    fitted_for: dict[str, Any] | None
    states: int
    calls_at_end: tuple[int, ...]
    uninformative_calls: tuple[int, ...]
    calls_back_in_time: tuple[int, ...]
    shortest_step: float


def needs(solver: Solver, schedule: Schedule | None) -> Needs:
    """Return what ``solver`` needs, for networks on its own schedule, or ``schedule``, or the usual ones."""
    fitted_to = (solver.fitted_for or {}).get("schedule")
    own = solver.schedule or schedule or (from_dict(fitted_to) if fitted_to else None)
    schedules: Sequence[Schedule] = (CondOT(), VP(), Cosine(), VE()) if own is None else (own,)
    return Needs(
        prediction=solver.prediction,
        schedule=None if solver.schedule is None else solver.schedule.to_dict(),
        readable={
            known.name: tuple(kind for kind in get_args(Prediction) if _reads(solver, kind, known))
            for known in schedules
        },
        fitted_for=None if solver.fitted_for is None else dict(solver.fitted_for),
        states=_most_kept(solver),
        calls_at_end=tuple(j for j, t in enumerate(solver.times) if t == 1),
        uninformative_calls=_uninformative(solver),
        calls_back_in_time=tuple(j for j, (s, t) in enumerate(pairwise(solver.times), start=1) if t < s),
        shortest_step=min(t - s for s, t in pairwise(solver.point_times)),
    )


def _uninformative(solver: Solver) -> tuple[int, ...]:
    if solver.schedule is None or solver.prediction not in ("noise", "data"):
        return ()
    alpha, sigma = solver.schedule(solver.table.times)[:2]
    other = alpha if solver.prediction == "noise" else sigma
    return tuple((other == 0).nonzero().flatten().tolist())


def _reads(solver: Solver, prediction: Prediction, schedule: Schedule) -> bool:
    try:
        solver.to(prediction, schedule)
    except ValueError:
        return False
    return True


def _most_kept(solver: Solver) -> int:
    kept = most = 1
    for row in plan(solver.C, solver.D):
        kept += 2  # the prediction, then the new state
        most = max(most, kept)
        kept -= len(row.unread_states) + len(row.unread_predictions)
    return most
