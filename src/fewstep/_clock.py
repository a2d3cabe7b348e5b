"""The time argument passed to the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ._broadcast import as_float64
from ._ranges import FINITE
from .schedules import DDPM, Discrete, Schedule

__all__ = [
    "Clock",
    "checked_clock",
    "clock_jumps",
    "default_clock",
    "describe_clock",
    "network_time",
    "time_maker",
]

#: A pair ``(at t = 0, at t = 1)`` to interpolate linearly, a name, or a function of ``t``.
Clock = tuple[float, float] | Literal["sigma", "timestep", "integer"] | Callable[[Tensor], Tensor]

#: Intervals of [0, 1] in which jumps of a clock of whole numbers are looked for, and halvings of each.
_INTERVALS, _HALVINGS = 2**14, 40


def default_clock(schedule: Schedule) -> Clock:
    """Return the timesteps of a schedule that has them, else ``t`` itself."""
    return "timestep" if isinstance(schedule, DDPM | Discrete) else (0, 1)


def checked_clock(clock: Clock, schedule: Schedule) -> Clock:
    """Return a clock, a pair as numbers of Python; raise a ``ValueError`` for none of this schedule."""
    pair = isinstance(clock, tuple) and len(clock) == 2 and all(map(FINITE.holds, clock))
    if not (pair or callable(clock) or clock in ("sigma", "timestep", "integer")):
        raise ValueError(
            "Field: clock must be a pair (at noise, at data) such as (0, 1), 'sigma', 'timestep', 'integer' "
            f"or a function of t, not {clock!r}."
        )
    if clock in ("timestep", "integer") and not isinstance(schedule, DDPM | Discrete):
        instead = "(999, 0)" if clock == "timestep" else "lambda t: (999 * (1 - t)).round().long()"
        raise ValueError(
            f"Field: clock={clock!r} needs a schedule with timesteps, DDPM or Discrete, not {schedule!r}; "
            f"give the times yourself, for example clock={instead}."
        )
    return (FINITE.number(clock[0]), FINITE.number(clock[1])) if isinstance(clock, tuple) else clock


def network_time(clock: Clock, schedule: Schedule, t: Tensor | float) -> Tensor | float:
    """Return the network's time argument at ``t``, shaped like ``t``: whole numbers stay an int or int64."""
    if isinstance(clock, tuple):
        start, end = clock
        return t if clock == (0, 1) else start + (end - start) * t
    if not isinstance(t, Tensor):
        time = network_time(clock, schedule, torch.tensor(t, dtype=torch.float64))
        return time.item() if isinstance(time, Tensor) else time
    if clock == "sigma":
        alpha, sigma = schedule(t)[:2]
        return sigma / alpha
    if isinstance(schedule, DDPM | Discrete) and clock in ("timestep", "integer"):
        # In float64, that all states of a batch and all devices round alike.
        return (
            schedule.timestep(t) if clock == "timestep" else schedule.timestep(as_float64(t)).round().long()
        )
    time = clock(t) if callable(clock) else t
    return time if isinstance(time, Tensor) else torch.as_tensor(time, dtype=t.dtype)


def time_maker(
    clock: Clock, schedule: Schedule, t: Tensor | float, *, batch: bool
) -> Callable[[Tensor, torch.dtype], Tensor]:
    """Return a function that makes the network's time for some states anew, in a given type.

    The whole numbers of a clock are int64, as embedding tables need them.

    Args:
        clock: the clock.
        schedule: the schedule.
        t: time, a number or of shape ``()`` or ``(B,)``.
        batch: make times of shape ``(B,)``.
    """
    time = network_time(clock, schedule, t)
    if not isinstance(time, Tensor):
        whole = isinstance(time, int) and not isinstance(clock, tuple)
        return lambda x, dtype: x.new_full(
            (len(x),) if batch else (), time, dtype=torch.int64 if whole else dtype
        )

    def made(x: Tensor, dtype: torch.dtype) -> Tensor:
        kept = time.to(x.device, dtype if time.is_floating_point() else torch.int64)
        return kept.expand((len(x),) if batch else time.shape).clone()

    return made


def clock_jumps(clock: Clock, schedule: Schedule) -> tuple[float, ...]:
    """Return the times within (0, 1) at which a clock of whole numbers changes; none for other clocks."""
    if isinstance(clock, tuple) or not isinstance(network_time(clock, schedule, 0.5), int):
        return ()
    t = torch.linspace(0, 1, _INTERVALS + 1, dtype=torch.float64)
    found = torch.as_tensor(network_time(clock, schedule, t))
    at = (found.diff() != 0).nonzero().flatten()
    low, high, before = t[at], t[at + 1], found[at]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        same = torch.as_tensor(network_time(clock, schedule, middle)) == before
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return tuple(high.tolist())


def describe_clock(clock: Clock) -> Any:
    """Return the clock in a form ready for JSON."""
    if callable(clock):
        return repr(clock) if is_dataclass(clock) else getattr(clock, "__qualname__", type(clock).__name__)
    return list(clock) if isinstance(clock, tuple) else clock
