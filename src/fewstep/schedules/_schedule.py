"""What every noise schedule is: how much data and noise there is in ``x_t = alpha x1 + sigma x0``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

__all__ = ["Schedule", "SchedulePoint", "as_time", "require"]


class SchedulePoint(NamedTuple):
    """The schedule at some times: four tensors of the times' shape."""

    alpha: Tensor
    sigma: Tensor
    d_alpha: Tensor
    d_sigma: Tensor


@dataclass(frozen=True)
class Schedule(ABC):
    """A pair ``alpha(t), sigma(t)`` with ``alpha / sigma`` increasing from noise to data.

    Schedules are immutable, compare by value and are called on a time: a tensor of any shape, or a
    number, which counts as float64.
    """

    name: ClassVar[str]

    def __call__(self, t: Tensor | float) -> SchedulePoint:
        """``alpha, sigma, d alpha / dt, d sigma / dt`` at ``t`` in [0, 1]."""
        return self._at(as_time(t))

    @abstractmethod
    def _at(self, t: Tensor) -> SchedulePoint: ...

    def log_snr(self, t: Tensor | float) -> Tensor:
        """``lambda(t) = log(alpha / sigma)``: minus infinity in pure noise, infinity in pure data."""
        point = self(t)
        return point.alpha.log() - point.sigma.log()

    @abstractmethod
    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        """The time at which ``lambda(t)`` takes the given value."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready description; :func:`from_dict` reads it back."""
        return {"name": self.name, **asdict(self)}


def as_time(t: Tensor | float) -> Tensor:
    """A time as a tensor; a number counts as float64."""
    return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64)


def require(condition: bool, schedule: str, argument: str, given: object, allowed: str) -> None:
    """Raise a ``ValueError`` that names the argument, unless the condition holds."""
    if not condition:
        raise ValueError(f"{schedule}: {argument} must be {allowed}, not {given!r}.")
