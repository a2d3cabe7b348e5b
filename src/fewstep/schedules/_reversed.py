"""The schedule of a path run from data to noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from ._schedule import Schedule, SchedulePoint, as_time

__all__ = ["Reversed"]


@dataclass(frozen=True)
class Reversed(Schedule):
    """``alpha(t) = sigma_S(1 - t), sigma(t) = alpha_S(1 - t)``: data and noise of ``S`` swapped.

    A solver for this schedule maps data to noise when it samples :meth:`fewstep.Field.reversed`.

    Args:
        schedule: ``S``.
    """

    name: ClassVar[str] = "reversed"
    schedule: Schedule

    def _at(self, t: Tensor) -> SchedulePoint:
        alpha, sigma, d_alpha, d_sigma = self.schedule(1 - t)
        return SchedulePoint(sigma, alpha, -d_sigma, -d_alpha)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        return 1 - self.schedule.inverse_log_snr(-as_time(log_snr))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "schedule": self.schedule.to_dict()}
