"""The observed order of convergence of a solver on problems with a closed form, and the refinement of one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from .. import classical
from .._execute import execute, plan
from .._table import Table
from ..classical._baselines import ODD
from ..schedules import Schedule, SchedulePoint
from ..solver import Solver

__all__ = ["Convergence", "observed_order", "refined", "refinement", "repeated"]

#: Most calls of a refined solver, or twice its own, as its table has size quadratic in the calls.
REFINED_CALLS = 160
#: Most calls of a repeated table, or twice its own.
REPEATED_CALLS = 1500
#: Errors below this are rounding.
RESOLVED = 2e-12

#: Ends of the part of a schedule on which classical methods are refined, in ``log(alpha / sigma)``.
LOG_SNR = (-2.0, 2.0)

#: Initial values of the test problems; the last two belong to one problem, a rotation.
INITIAL = (0.3, 1.2, 1.0, 0.8, 0.6)


@dataclass(frozen=True)
class Convergence:
    """Errors against the number of calls, and the order given by their slope.

    Attributes:
        order: slope of ``-log error`` against ``log calls`` between the two finest resolutions whose error is
            above rounding.
        how: ``"refined"``, the same method with more steps, or ``"repeated"``, the whole table on each of
            many equal pieces of the path. They differ for a method that starts with a lower order, which a
            repeated table does in every piece.
        calls: the numbers of calls.
        errors: the error for each, the root mean square over the problems, whose lowest order dominates.
    """

    order: float
    how: Literal["refined", "repeated"]
    calls: tuple[int, ...]
    errors: tuple[float, ...]


def refined(nfe: int, refine: Callable[[int], Solver | None]) -> dict[int, float]:
    """Return errors by number of calls, of the same method with 1, 2, 4, ... times ``nfe`` calls."""
    errors = {}
    for k in _doubling(nfe, max(REFINED_CALLS, 2 * nfe)):
        solver = refine(k)
        if solver is not None:
            errors[solver.nfe] = _error(solver.to("velocity").table, solver.end, 1)
    return errors


def repeated(velocities: Table, end: float) -> dict[int, float]:
    """Return errors by number of calls, of a consistent table for velocities on 1, 2, 4, ... equal pieces."""
    N = len(velocities.times)
    return {k * N: _error(velocities, end, k) for k in _doubling(N, max(REPEATED_CALLS, 2 * N))}


def observed_order(errors: Mapping[int, float]) -> float | None:
    """Return the slope between the two finest errors above rounding, or ``None`` with fewer than two."""
    resolved = [(calls, error) for calls, error in errors.items() if error > RESOLVED]
    if len(resolved) < 2:
        return None
    (n, e), (m, f) = resolved[-2:]
    return math.log(e / f) / math.log(m / n)


def _doubling(nfe: int, most: int) -> list[int]:
    return [2**i for i in range((most // nfe).bit_length())]


def _error(table: Table, end: float, pieces: int) -> float:
    """Return the error of the table on equal pieces of [0, 1]; it must preserve constants."""
    length = end - float(table.times[0])
    times = ((table.times - table.times[0]) / length).tolist()
    rows = plan(table.C.tolist(), table.D.tolist())
    x = _solution(0.0)
    for i in range(pieces):
        at = [(i + t) / pieces for t in times]
        x = execute(lambda j, y, t: _velocity(y, t) / (pieces * length), at, rows, {0: x}, {})
    return float((x - _solution(1.0)).square().mean().sqrt())


def _velocity(x: Tensor, t: float) -> Tensor:
    """``x' = x (1 - x)``, ``-2 t x^2``, ``x cos 3t``, and in the plane a rotation at the speed ``|x|^2``."""
    a, b, c, p, q = x.tolist()
    speed = p**2 + q**2
    slopes = [a * (1 - a), -2 * t * b**2, c * math.cos(3 * t), -speed * q, speed * p]
    return torch.tensor(slopes, dtype=torch.float64)


def _solution(t: float) -> Tensor:
    a, b, c, p, q = INITIAL
    turn = (p**2 + q**2) * t
    values = [
        a * math.exp(t) / (1 + a * math.expm1(t)),
        b / (1 + b * t**2),
        c * math.exp(math.sin(3 * t) / 3),
        p * math.cos(turn) - q * math.sin(turn),
        p * math.sin(turn) + q * math.cos(turn),
    ]
    return torch.tensor(values, dtype=torch.float64)


def refinement(name: str, nfe: int, schedule: Schedule) -> Callable[[int], Solver | None]:
    """Return the argument ``refine`` of :func:`~fewstep.inspect` for a classical method.

    Steps of infinite length in ``log(alpha / sigma)``, from pure noise or to pure data, do not become shorter
    in a finer grid. The solvers are therefore for the part of the schedule with ``log(alpha / sigma)``
    between -2 and 2, with its times mapped to [0, 1].

    Args:
        name: as in :func:`~fewstep.classical.baselines`, with its grid: ``dpmpp_2m/karras``.
        nfe: its calls.
        schedule: its schedule.

    Returns:
        ``refine(k)``, which returns the solver with ``k`` times the steps, or ``None`` if there is none.
    """
    start, end = (float(schedule.inverse_log_snr(value)) for value in LOG_SNR)
    part = _Part(schedule, start, end)
    shorter = nfe % 2 if name.partition("/")[0] in ODD else 0  # calls that a last step saves

    def refine(k: int) -> Solver | None:
        try:
            return classical.named(name, k * (nfe + shorter) - shorter, part)
        except ValueError:  # no such number of calls
            return None

    return refine


@dataclass(frozen=True)
class _Part(Schedule):
    """The part of a schedule between two times, mapped to times 0 to 1."""

    name: ClassVar[str] = "part"
    whole: Schedule
    start: float
    end: float

    def _at(self, t: Tensor) -> SchedulePoint:
        length = self.end - self.start
        alpha, sigma, d_alpha, d_sigma = self.whole(self.start + length * t)
        return SchedulePoint(alpha, sigma, length * d_alpha, length * d_sigma)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        return (self.whole.inverse_log_snr(log_snr) - self.start) / (self.end - self.start)
