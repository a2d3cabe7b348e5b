"""Time grids from lists of noise levels or discrete timesteps in other frameworks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from .._names import check_name
from ..schedules import CondOT, Schedule
from ._grids import check_steps

__all__ = ["ays", "sigmas", "spaced", "timesteps"]

#: Sabour, Fidler and Kreis, *Align Your Steps* (ICML 2024): ``sigma / alpha`` for 10 steps, from their
#: quick-start guide. The last of each is for interpolation only; sampling replaces it by zero.
_AYS = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002),
}


def sigmas(values: Sequence[float], schedule: Schedule | None = None) -> tuple[float, ...]:
    """Return the times at which a schedule has given noise levels.

    The first level becomes ``t = 0``, whatever the schedule's level there, as in :func:`karras`. A last level
    at or below the schedule's last, such as 0, becomes ``t = 1``; a higher one gives a grid that ends before
    1.

    Args:
        values: ``sigma / alpha``, two or more, decreasing; these are the ``sigmas`` of k-diffusion and of
            diffusers' schedulers for diffusion models. In flow-matching schedulers, sigma is ``1 - t``.
        schedule: the schedule of the network, ``CondOT()`` by default.

    Raises:
        ValueError: when the levels do not decrease, are negative, or leave the schedule's range in between.
    """
    schedule = schedule or CondOT()
    levels = [float(value) for value in values]
    if len(levels) < 2 or not levels[-1] >= 0 or not all(s > t for s, t in pairwise(levels)):
        raise ValueError(
            f"sigmas: must be two or more levels that fall strictly to 0 or above, not {levels}."
        )
    start, end = (math.exp(-float(schedule.log_snr(t))) for t in (0.0, 1.0))
    beyond = [level for level in levels[1:-1] if not end < level < start]
    if beyond or levels[-1] >= start:
        raise ValueError(
            f"sigmas: the level {(beyond or levels[-1:])[0]:g} lies outside {schedule!r}, whose levels fall "
            f"from {start:.4g} to {end:.4g}; leave out what lies beyond, or give the schedule of the list."
        )
    inner = [float(schedule.inverse_log_snr(-math.log(level))) for level in levels[1:] if level > end]
    return (0.0, *inner, *([1.0] if levels[-1] <= end else []))


def timesteps(values: Sequence[float], count: int = 1000) -> tuple[float, ...]:
    """Return the times of discrete timesteps, with a final 1.

    Timestep ``k`` of ``count``, where 0 is the least noisy, is at ``t = (count - 1 - k) / count``: pure data,
    at ``t = 1``, is one step beyond timestep 0. A list that starts below ``count - 1``, as with leading
    spacing, gives a grid that starts after 0; the noise then serves as the state at that time, as in
    diffusers.

    Args:
        values: timesteps, not necessarily whole, decreasing from at most ``count - 1`` to at least 0, one
            per step.
        count: number of timesteps in training.

    Raises:
        ValueError: when they do not decrease strictly or leave that range.
    """
    steps = [float(value) for value in values]
    if (
        not steps
        or not (count - 1 >= steps[0] and steps[-1] >= 0)
        or not all(j > k for j, k in pairwise(steps))
    ):
        raise ValueError(
            f"timesteps: must fall strictly from at most {count - 1} to at least 0, not {steps}; leave out "
            "the final step to pure data, and pass the number of timesteps in training as count=..."
        )
    return (*((count - 1 - k) / count for k in steps), 1.0)


def spaced(
    steps: int, spacing: Literal["leading", "trailing", "linspace"], count: int = 1000, *, offset: int = 0
) -> tuple[float, ...]:
    """Return the times of evenly spaced whole timesteps, with the spacings of Lin et al. (2024), table 2.

    ``"leading"`` steps by ``count // steps`` and starts below the noisiest timestep, ``"trailing"`` starts at
    the noisiest and ends above the least noisy, and ``"linspace"`` includes both. Timesteps are rounded to
    the nearest.

    Args:
        steps: number of steps, at most ``count``.
        spacing: one of the three.
        count: number of timesteps in training.
        offset: added to the timesteps of ``"leading"``; 1 for Stable Diffusion (``steps_offset``).

    Raises:
        ValueError: on an unknown spacing, or when the timesteps leave their range.
    """
    steps = check_steps(steps)
    if steps > count:
        raise ValueError(f"spaced: steps must be at most count={count}, not {steps}.")
    spacings = {
        "leading": np.arange(steps)[::-1] * (count // steps) + offset,
        "trailing": np.rint(count - np.arange(steps) * (count / steps)) - 1,
        "linspace": np.rint(np.linspace(0, count - 1, steps))[::-1],
    }
    check_name("spaced: spacing", spacing, spacings)
    return timesteps(spacings[spacing].tolist(), count)


def ays(
    name: Literal["sd15", "sdxl", "svd"], steps: int = 10, schedule: Schedule | None = None
) -> tuple[float, ...]:
    """Return the grid of Align Your Steps (Sabour et al. 2024), for Stable Diffusion 1.5, XL or Video.

    The authors minimised a bound on the divergence between the discretised and the exact process for 10 steps
    of a stochastic solver. For other numbers of steps the logarithm of the level is interpolated linearly
    over the list, as they recommend. The last step goes to pure data, or to the end of the schedule.

    Args:
        name: the model for which the levels were optimised.
        steps: number of steps.
        schedule: the schedule of the network, ``CondOT()`` by default, which maps levels to times.

    Raises:
        ValueError: on an unknown name, or a schedule without these levels.
    """
    steps = check_steps(steps)
    check_name("ays: name", name, _AYS)
    listed = np.log(_AYS[name])
    at = np.linspace(0, len(listed) - 1, steps + 1)
    levels = np.exp(np.interp(at, np.arange(len(listed)), listed))
    return sigmas([*levels[:-1].tolist(), 0.0], schedule)
