"""Schedules given at discrete timesteps, for networks trained as DDPMs.

Timestep ``k = T - 1``, the noisiest of ``T``, is ``t = 0``; pure data, one below timestep 0, is ``t = 1``:

    k(t) = T - 1 - T t.

Between the timesteps ``log(sigma / alpha)`` is a monotone cubic spline in ``k``, smooth enough for an
adaptive solver. Beyond the last finite value (towards pure data, and towards pure noise if the schedule
starts there) the vanishing ratio is a quadratic with the value and slope of the spline.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._schedule import Schedule, SchedulePoint, as_time, require

__all__ = ["DDPM", "Betas", "Discrete"]

#: Most timesteps: the spline solves a square of so many numbers.
_MOST = 10_000

Betas = Literal["linear", "scaled_linear", "squared_cosine"]


@dataclass(frozen=True)
class _Tabulated(Schedule):
    """A schedule interpolated between the cumulative products of ``1 - beta``."""

    @property
    @abstractmethod
    def table(self) -> tuple[float, ...]:
        """``alphas_cumprod`` at timesteps ``0 .. T - 1``: decreasing, in (0, 1); the last may be 0."""

    @property
    def count(self) -> int:
        """Number of timesteps, ``T``."""
        return len(self.table)

    def timestep(self, t: Tensor | float) -> Tensor:
        """Return the timestep passed to the network at ``t``: at least 0, the lowest in training."""
        return self._k(as_time(t)).clamp(min=0)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        """Return the time at which ``lambda(t)`` has the given value; 0 or 1 for values out of range."""
        level = -as_time(log_snr)
        values, slopes = self._on(level)
        first, last = values[0], values[-1]
        # Invert the spline by bisection: fifty halvings of a timestep.
        i = (torch.searchsorted(values, level.contiguous(), right=True) - 1).clamp(0, len(values) - 2)
        low, high = torch.zeros_like(level), torch.ones_like(level)
        for _ in range(50):
            middle = (low + high) / 2
            below = _hermite(values, slopes, i, middle)[0] < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        k = i + (low + high) / 2
        k = torch.where(level < first, _inverse_tail((level - first).exp(), slopes[0]) - 1, k)
        noisy = self.count - _inverse_tail((last - level).exp(), slopes[-1]) - 1
        k = torch.where(level > last, noisy.clamp(max=self.count - 1), k)
        return (self.count - 1 - k) / self.count

    def _at(self, t: Tensor) -> SchedulePoint:
        k = self._k(t)
        values, slopes = self._on(t)
        i = k.floor().long().clamp(0, len(values) - 2)
        level, slope = _hermite(values, slopes, i, k - i)
        alpha, sigma = torch.sigmoid(-2 * level).sqrt(), torch.sigmoid(2 * level).sqrt()
        middle = SchedulePoint(alpha, sigma, -alpha * sigma**2 * slope, sigma * alpha**2 * slope)

        # sigma / alpha vanishes below timestep 0, alpha / sigma beyond the last finite value.
        y, dy = _tail(k + 1, slopes[0])
        to_data = _from_ratio(values[0].exp() * y, values[0].exp() * dy)
        y, dy = _tail(self.count - 1 - k, slopes[-1])
        sigma, alpha, d_sigma, d_alpha = _from_ratio((-values[-1]).exp() * y, -(-values[-1]).exp() * dy)
        to_noise = SchedulePoint(alpha, sigma, d_alpha, d_sigma)

        point = (
            torch.where(k < 0, data, torch.where(k > len(values) - 1, noise, spline))
            for data, noise, spline in zip(to_data, to_noise, middle, strict=True)
        )
        alpha, sigma, d_alpha, d_sigma = point
        return SchedulePoint(alpha, sigma, -self.count * d_alpha, -self.count * d_sigma)

    def _k(self, t: Tensor) -> Tensor:
        return self.count - 1 - self.count * t

    @cached_property
    def _knots(self) -> tuple[Tensor, Tensor]:
        """``log(sigma / alpha)`` and its slope at timesteps 0, 1, ... where it is finite, in float64."""
        table = torch.tensor(self.table, dtype=torch.float64)
        finite = table[table > 0]
        values = ((1 - finite).log() - finite.log()) / 2
        slopes = _spline_slopes(values)
        # A steeper slope would make the quadratics non-monotone.
        ends = torch.full_like(slopes, math.inf)
        ends[0] = ends[-1] = 2
        return values, torch.minimum(slopes, ends)

    def _on(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the knots in the type and on the device of ``t``; they are copied there once."""
        key = (t.dtype, t.device)
        if key not in self._copies:
            values, slopes = self._knots
            self._copies[key] = values.to(t), slopes.to(t)
        return self._copies[key]

    @cached_property
    def _copies(self) -> dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor]]:
        return {}


@dataclass(frozen=True)
class Discrete(_Tabulated):
    """The schedule of a network trained at discrete timesteps, from its ``alphas_cumprod``.

    Args:
        alphas_cumprod: ``alpha^2`` at timesteps ``0 .. T - 1``: at least two strictly decreasing numbers in
            (0, 1); the last may be 0 (zero terminal SNR) if there are three or more.

    Raises:
        ValueError: when the numbers are too few, not decreasing or out of range.
    """

    name: ClassVar[str] = "discrete"
    alphas_cumprod: Sequence[float]

    def __post_init__(self) -> None:
        table = tuple(float(value) for value in self.alphas_cumprod)
        size = len(table)
        require(size <= _MOST, "Discrete", "alphas_cumprod", f"{size} numbers", f"at most {_MOST} numbers")
        object.__setattr__(self, "alphas_cumprod", table)
        decreasing = len(table) > 1 and all(a > b for a, b in pairwise(table))
        require(
            decreasing and table[0] < 1 and table[-1] >= 0 and (len(table) > 2 or table[-1] > 0),
            "Discrete",
            "alphas_cumprod",
            table if len(table) < 8 else (*table[:3], "...", *table[-3:]),
            "two numbers or more that fall strictly from below 1 to 0 or more",
        )

    @property
    def table(self) -> tuple[float, ...]:
        return tuple(self.alphas_cumprod)

    def __repr__(self) -> str:
        table = self.table
        if len(table) < 8:
            return f"Discrete(alphas_cumprod={table})"
        return f"Discrete(<{len(table)} alphas_cumprod from {table[0]:.4g} to {table[-1]:.4g}>)"


@dataclass(frozen=True)
class DDPM(_Tabulated):
    """Discrete schedules with a name in the literature.

    Args:
        betas: ``"linear"`` (Ho et al. 2020); ``"scaled_linear"``, linear in the square roots (Stable
            Diffusion); ``"squared_cosine"`` (Nichol and Dhariwal 2021, eq. 17), which ignores
            ``beta_start`` and ``beta_end``.
        beta_start: beta at timestep 0, in (0, 1).
        beta_end: beta at the last timestep, in (0, 1).
        steps: number of timesteps, at least 2 (3 with ``zero_terminal_snr``).
        zero_terminal_snr: rescale so that no signal is left at the noise end (Lin et al. 2024, alg. 1).

    Raises:
        ValueError: on an unknown name, or numbers out of range.
    """

    name: ClassVar[str] = "ddpm"
    betas: Betas = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    steps: int = 1000
    zero_terminal_snr: bool = False

    def __post_init__(self) -> None:
        require(self.betas in get_args(Betas), "DDPM", "betas", self.betas, f"one of {get_args(Betas)}")
        require(0 < self.beta_start < 1, "DDPM", "beta_start", self.beta_start, "between 0 and 1")
        require(0 < self.beta_end < 1, "DDPM", "beta_end", self.beta_end, "between 0 and 1")
        least = 3 if self.zero_terminal_snr else 2
        require(least <= self.steps <= _MOST, "DDPM", "steps", self.steps, f"{least} to {_MOST}")

    @cached_property
    def table(self) -> tuple[float, ...]:
        """``alphas_cumprod`` at timesteps ``0 .. T - 1``."""
        # In numpy: under torch.func.jvp tensors may have no values to list (PyTorch 2.5).
        product = np.cumprod(1 - self._betas())
        if self.zero_terminal_snr:
            root = np.sqrt(product)
            product = np.square((root - root[-1]) * root[0] / (root[0] - root[-1]))
        return tuple(product.tolist())

    def _betas(self) -> NDArray[np.float64]:
        if self.betas == "squared_cosine":
            at = np.arange(self.steps + 1) / self.steps
            product = np.square(np.cos((at + 0.008) / 1.008 * (math.pi / 2)))
            return np.minimum(1 - product[1:] / product[:-1], 0.999)
        power = 2 if self.betas == "scaled_linear" else 1
        start, end = self.beta_start ** (1 / power), self.beta_end ** (1 / power)
        return np.linspace(start, end, self.steps) ** power


def _spline_slopes(values: Tensor) -> Tensor:
    """Slopes of the not-a-knot cubic spline at equally spaced knots, limited to keep it monotone."""
    delta = values.diff()
    if len(values) < 4:
        slopes = torch.cat([delta[:1], (delta[1:] + delta[:-1]) / 2, delta[-1:]])
    else:
        # Rows m_{k-1} + 4 m_k + m_{k+1}; the third derivative is continuous at the outermost inner knots.
        ones = torch.ones(len(values) - 1, dtype=torch.float64)
        A = torch.diag(4 * torch.ones_like(values)) + torch.diag(ones, 1) + torch.diag(ones, -1)
        A[0, 0] = A[-1, -1] = 1
        A[0, 1] = A[-1, -2] = 2
        first, last = 5 * delta[:1] + delta[1:2], 5 * delta[-1:] + delta[-2:-1]
        right = torch.cat([first / 2, 3 * (delta[1:] + delta[:-1]), last / 2])
        slopes = torch.linalg.solve(A, right)
    # Fritsch and Carlson (1980): a slope of at most three times either secant keeps a cubic monotone.
    least = torch.minimum(torch.cat([delta[:1], delta]), torch.cat([delta, delta[-1:]]))
    return torch.minimum(slopes.clamp(min=0), 3 * least)


def _hermite(values: Tensor, slopes: Tensor, i: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """The spline and its derivative at ``i + z``."""
    k = i.reshape(-1)  # a device would be waited for to read an index without dimensions
    x, y, u, v = (part.reshape(i.shape) for part in (values[k], values[k + 1], slopes[k], slopes[k + 1]))
    rise = y - x
    bend, twist = 3 * rise - 2 * u - v, u + v - 2 * rise
    return x + z * (u + z * (bend + z * twist)), u + z * (2 * bend + 3 * z * twist)


def _tail(y: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """A quadratic through (0, 0) and (1, 1) with the given slope at ``y = 1``, and its derivative."""
    c = slope - 1
    return y * (1 + c * (y - 1)), 1 + c * (2 * y - 1)


def _inverse_tail(q: Tensor, slope: Tensor) -> Tensor:
    """The ``y`` at which :func:`_tail` has the value ``q``."""
    c = slope - 1
    return 2 * q / (1 - c + ((1 - c).square() + 4 * c * q).clamp(min=0).sqrt())


def _from_ratio(ratio: Tensor, d_ratio: Tensor) -> SchedulePoint:
    """``alpha, sigma`` and their derivatives from ``sigma / alpha`` and its derivative."""
    alpha = (1 + ratio.square()).rsqrt()
    sigma = ratio * alpha
    return SchedulePoint(alpha, sigma, -(alpha**2) * sigma * d_ratio, alpha**3 * d_ratio)
