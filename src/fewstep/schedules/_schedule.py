"""The base class of noise schedules, the pair ``alpha, sigma`` of ``x_t = alpha x1 + sigma x0``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

__all__ = ["Reversed", "Schedule", "SchedulePoint", "as_time", "require"]


class SchedulePoint(NamedTuple):
    """A schedule's values and derivatives at given times: four tensors of the times' shape."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


@dataclass(frozen=True)
class Schedule(ABC):
    """A pair ``alpha(t), sigma(t)`` with ``alpha / sigma`` increasing from noise to data.

    Schedules are immutable and compare by value. Call one with a time: a tensor of any shape, or a
    number, which is taken as float64.
    """

    name: ClassVar[str]

    def __call__(self, t: Tensor | float) -> SchedulePoint:
        """Return ``alpha, sigma, d alpha / dt, d sigma / dt`` at ``t`` in [0, 1]."""
        return self._at(as_time(t))

    @abstractmethod
    def _at(self, t: Tensor) -> SchedulePoint: ...

    def log_snr(self, t: Tensor | float) -> Tensor:
        """Return ``lambda(t) = log(alpha / sigma)``: -infinity in pure noise, infinity in pure data."""
        point = self(t)
        return point.alpha.log() - point.sigma.log()

    @abstractmethod
    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        """Return the time at which ``lambda(t)`` has the given value."""

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # without cached tensors

    def to_dict(self) -> dict[str, Any]:
        """Return a description ready for JSON; :func:`from_dict` reads it back."""
        return {"name": self.name, **asdict(self)}


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


def as_time(t: Tensor | float) -> Tensor:
    """Return a time as a tensor; a number becomes float64."""
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


def require(condition: bool, schedule: str, argument: str, given: object, allowed: str) -> None:
    """Raise a ``ValueError`` that names the argument unless the condition holds."""
    if not condition:
        raise ValueError(f"{schedule}: {argument} must be {allowed}, not {given!r}.")
