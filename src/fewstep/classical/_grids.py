"""Time grids in closed form, and the validation of grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .._ranges import POSITIVE, STEPS, check_range
from ..schedules import CondOT, Schedule

__all__ = [
    "check_steps",
    "cosine",
    "flow_shift",
    "flux_mu",
    "karras",
    "log_snr",
    "noise_levels",
    "quadratic",
    "resolve",
    "uniform",
]


def uniform(steps: int) -> tuple[float, ...]:
    """``t_i = i / n``."""
    steps = check_steps(steps)
    return tuple(i / steps for i in range(steps + 1))


def cosine(steps: int) -> tuple[float, ...]:
    """``t_i = (1 - cos(pi i / n)) / 2``: dense at both ends."""
    steps = check_steps(steps)
    return tuple((1 - math.cos(math.pi * i / steps)) / 2 for i in range(steps + 1))


def quadratic(steps: int) -> tuple[float, ...]:
    """``1 - t_i = (1 - i / n)^2``: dense at the data end.

    These are the quadratic timesteps of DDIM (Song et al. 2021, section D.2) and DPM-Solver: the square root
    of their time, from data to noise, decreases linearly.
    """
    steps = check_steps(steps)
    return tuple(1 - (1 - i / steps) ** 2 for i in range(steps + 1))


def flow_shift(steps: int, shift: float = 3.0) -> tuple[float, ...]:
    """Uniform noise levels ``s = 1 - t`` shifted towards noise: ``s' = shift s / (1 + (shift - 1) s)``.

    The timesteps of SD3 (Esser et al. 2024, eq. 23, where ``shift`` is the square root of the ratio of
    resolutions, 3 for SD3 at 1024 x 1024) and of Flux, whose shift ``exp(mu)`` depends on the resolution
    through :func:`flux_mu`. On ``CondOT`` it lowers every log-SNR by ``log(shift)``.

    Args:
        steps: number of steps.
        shift: positive; 1 gives the uniform grid, and less than 1 a grid dense at the data end.
    """
    steps = check_steps(steps)
    (shift,) = check_range("flow_shift", POSITIVE, shift=shift)
    return tuple(t / (t + shift * (1 - t)) for t in uniform(steps))


def flux_mu(
    image_seq_len: int,
    *,
    base_seq_len: int = 256,
    max_seq_len: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """Return the logarithm of Flux's shift, linear in the number of image tokens.

    ``flow_shift(steps, math.exp(flux_mu(4096)))`` is the grid of Flux at 1024 x 1024, where a token is a
    patch of 16 x 16 pixels. The defaults are those of Flux.

    Args:
        image_seq_len: number of image tokens, at least 1.
        base_seq_len: number of tokens at which the result is ``base_shift``.
        max_seq_len: number of tokens at which it is ``max_shift``; beyond, it continues to grow.
        base_shift: see ``base_seq_len``.
        max_shift: see ``max_seq_len``.
    """
    if image_seq_len < 1 or base_seq_len == max_seq_len:
        raise ValueError(
            "flux_mu: needs at least 1 token and two different reference lengths, not "
            f"image_seq_len={image_seq_len}, base_seq_len={base_seq_len}, max_seq_len={max_seq_len}."
        )
    share = (image_seq_len - base_seq_len) / (max_seq_len - base_seq_len)
    return base_shift + share * (max_shift - base_shift)


def karras(
    steps: int,
    schedule: Schedule | None = None,
    *,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> tuple[float, ...]:
    """Karras et al. (2022), eq. 5: ``(sigma / alpha)^(1/rho)`` decreases linearly, with a last step to zero.

    The first point is moved to ``t = 0`` and the last step ends at ``t = 1``, so that ``sigma_max`` and
    ``sigma_min`` bound the inner points.
    """
    steps = check_steps(steps)
    first, last, count = noise_levels(steps, schedule, sigma_min, sigma_max)
    top, bottom = first ** (1 / rho), last ** (1 / rho)
    levels = [(top + i / count * (bottom - top)) ** rho for i in range(steps)]
    return _from_log_snr([-math.log(level) for level in levels], schedule)


def log_snr(
    steps: int,
    schedule: Schedule | None = None,
    *,
    rho: float = 1.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> tuple[float, ...]:
    """Linear in ``log(alpha / sigma)``, between the same levels as :func:`karras`.

    k-diffusion calls this grid exponential, or polyexponential with another ``rho``: in the logarithm, the
    remaining distance to the last level is ``(1 - i / n)^rho``, so that ``rho > 1`` is dense at the data end.
    """
    steps = check_steps(steps)
    top, bottom, count = noise_levels(steps, schedule, sigma_min, sigma_max)
    first, last = -math.log(top), -math.log(bottom)
    left = [max(1 - i / count, 0.0) ** rho for i in range(steps)]
    return _from_log_snr([last - part * (last - first) for part in left], schedule)


def resolve(steps: int | None, grid: Sequence[float] | Tensor | None) -> Tensor:
    """Return the given grid, validated, or ``steps`` uniform steps.

    The inner times of a tensor keep their gradient.

    Raises:
        ValueError: when neither is given, they disagree, or the grid does not increase strictly
            within [0, 1].
    """
    if grid is None:
        if steps is None:
            raise ValueError("steps: give a number of steps, or grid=..., the times to step through.")
        grid = uniform(steps)
    times = grid.tolist() if isinstance(grid, Tensor) else [float(t) for t in grid]
    increasing = all(s < t for s, t in pairwise(times))
    if len(times) < 2 or not increasing or times[0] < 0 or times[-1] > 1:
        raise ValueError(f"grid: must increase strictly within [0, 1], with two times or more, not {times}.")
    if steps is not None and steps != len(times) - 1:
        raise ValueError(f"grid: has {len(times) - 1} steps, but steps={steps}; give only one of them.")
    if not isinstance(grid, Tensor):
        return torch.tensor(times, dtype=torch.float64)
    t = grid.cpu().double()
    # The ends have no gradient, which would be infinite where lambda is.
    return torch.cat([t[:1].detach(), t[1:-1], t[-1:].detach()])


def noise_levels(
    steps: int, schedule: Schedule | None, sigma_min: float, sigma_max: float
) -> tuple[float, float, int]:
    """Return the first and last noise level, within the schedule's, and the number of steps between them.

    A schedule whose last level is at least ``sigma_min`` ends there; otherwise the last step goes to zero.
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


def check_steps(steps: int) -> int:
    """Return ``steps``; raise a ``ValueError`` unless it is a whole number from 1 to 10,000."""
    return int(*check_range("", STEPS, steps=steps))
