"""Refinement of a classical method, on the part of a schedule where steps are finite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import classical
from ..schedules import Schedule, SchedulePoint
from ..solver import Solver

__all__ = ["refinement"]

#: Ends of the part in ``log(alpha / sigma)``.
LOG_SNR = (-2.0, 2.0)


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
        ``refine(k)``, which returns the solver with ``k * nfe`` calls, or ``None`` if there is none.
    """
    start, end = (float(schedule.inverse_log_snr(value)) for value in LOG_SNR)
    part = _Part(schedule, start, end)

    def refine(k: int) -> Solver | None:
        try:
            return classical.named(name, k * nfe, part)
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
