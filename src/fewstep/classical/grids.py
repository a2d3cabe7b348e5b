"""Time grids: where a solver's trajectory points lie. All run from 0 to 1 and are float64 tuples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from ..schedules import CondOT, Schedule

__all__ = ["cosine", "karras", "log_snr", "resolve", "uniform"]


def uniform(steps: int) -> tuple[float, ...]:
    """``t_i = i / n``."""
    _check_steps(steps)
    return tuple(i / steps for i in range(steps + 1))


def cosine(steps: int) -> tuple[float, ...]:
    """``t_i = (1 - cos(pi i / n)) / 2``: dense at both ends."""
    _check_steps(steps)
    return tuple((1 - math.cos(math.pi * i / steps)) / 2 for i in range(steps + 1))


def karras(
    steps: int,
    schedule: Schedule | None = None,
    *,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> tuple[float, ...]:
    """Karras et al. (2022), eq. 5: ``(sigma / alpha)^(1/rho)`` falls linearly, then to zero.

    The first point is moved to ``t = 0`` and the last step ends at ``t = 1``, so the levels
    ``sigma_max`` and ``sigma_min`` bound the points between.
    """
    _check_steps(steps)
    first, last, count = _levels(steps, schedule, sigma_min, sigma_max)
    top, bottom = first ** (1 / rho), last ** (1 / rho)
    levels = [(top + i / count * (bottom - top)) ** rho for i in range(steps)]
    return _from_log_snr([-math.log(level) for level in levels], schedule)


def log_snr(
    steps: int, schedule: Schedule | None = None, *, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> tuple[float, ...]:
    """``log(alpha / sigma)`` grows linearly, between the same levels as in :func:`karras`."""
    _check_steps(steps)
    top, bottom, count = _levels(steps, schedule, sigma_min, sigma_max)
    first, last = -math.log(top), -math.log(bottom)
    return _from_log_snr([first + i / count * (last - first) for i in range(steps)], schedule)


def resolve(steps: int | None, grid: Sequence[float] | None) -> Tensor:
    """The grid to use: the given one, checked, or ``steps`` uniform steps.

    Raises:
        ValueError: when neither is given, they disagree, or the grid does not increase strictly
            within [0, 1].
    """
    if grid is None:
        if steps is None:
            raise ValueError("steps: give a number of steps, or grid=..., the times to step through.")
        grid = uniform(steps)
    times = [float(t) for t in grid]
    increasing = all(s < t for s, t in pairwise(times))
    if len(times) < 2 or not increasing or times[0] < 0 or times[-1] > 1:
        raise ValueError(f"grid: must increase strictly within [0, 1], with two times or more, not {times}.")
    if steps is not None and steps != len(times) - 1:
        raise ValueError(f"grid: has {len(times) - 1} steps, but steps={steps}; give only one of them.")
    return torch.tensor(times, dtype=torch.float64)


def _levels(
    steps: int, schedule: Schedule | None, sigma_min: float, sigma_max: float
) -> tuple[float, float, int]:
    """The first and last noise level and the number of steps between, no wider than the schedule.

    A schedule that ends in noise above ``sigma_min`` ends there; another takes its last step to zero.
    """
    schedule = schedule or CondOT()
    start, end = (math.exp(-float(schedule.log_snr(t))) for t in (0.0, 1.0))
    if end >= sigma_min:
        return min(sigma_max, start), end, steps
    return min(sigma_max, start), sigma_min, max(steps - 1, 1)


def _from_log_snr(values: Sequence[float], schedule: Schedule | None) -> tuple[float, ...]:
    schedule = schedule or CondOT()
    inner = [float(schedule.inverse_log_snr(value)) for value in values[1:]]
    return (0.0, *inner, 1.0)


def _check_steps(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps: must be a whole number of at least 1, not {steps!r}.")
