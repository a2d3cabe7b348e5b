"""The time argument passed to the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from .schedules import DDPM, Discrete, Schedule

__all__ = ["Clock", "check_clock", "default_clock", "describe_clock", "network_time"]

#: A pair ``(at t = 0, at t = 1)`` to interpolate linearly, a name, or a function of ``t``.
Clock = tuple[float, float] | Literal["sigma", "timestep"] | Callable[[Tensor], Tensor]


def default_clock(schedule: Schedule) -> Clock:
    """Return the timesteps of a schedule that has them, else ``t`` itself."""
    return "timestep" if isinstance(schedule, DDPM | Discrete) else (0, 1)


def check_clock(clock: Clock, schedule: Schedule) -> None:
    """Raise a ``ValueError`` unless ``clock`` is a clock of this schedule."""
    pair = isinstance(clock, tuple) and len(clock) == 2 and all(isinstance(c, int | float) for c in clock)
    if not (pair or callable(clock) or clock in ("sigma", "timestep")):
        raise ValueError(
            "Field: clock must be a pair (at noise, at data) such as (0, 1), 'sigma', 'timestep' or a "
            f"function of t, not {clock!r}."
        )
    if clock == "timestep" and not isinstance(schedule, DDPM | Discrete):
        raise ValueError(
            f"Field: clock='timestep' needs a schedule with timesteps, DDPM or Discrete, not {schedule!r}; "
            "give the times at both ends, for example clock=(999, 0)."
        )


def network_time(clock: Clock, schedule: Schedule, t: Tensor | float) -> Tensor | float:
    """Return the network's time argument at ``t``, shaped like ``t``."""
    if isinstance(clock, tuple):
        start, end = clock
        return t if clock == (0, 1) else start + (end - start) * t
    if not isinstance(t, Tensor):
        return float(network_time(clock, schedule, torch.tensor(t, dtype=torch.float64)))
    if clock == "sigma":
        alpha, sigma = schedule(t)[:2]
        return sigma / alpha
    if isinstance(schedule, DDPM | Discrete) and clock == "timestep":
        return schedule.timestep(t)
    return torch.as_tensor(clock(t)) if callable(clock) else t


def describe_clock(clock: Clock) -> Any:
    """Return the clock in a form ready for JSON."""
    if callable(clock):
        return repr(clock) if is_dataclass(clock) else getattr(clock, "__qualname__", type(clock).__name__)
    return list(clock) if isinstance(clock, tuple) else clock
