"""Schedules in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._ranges import NOT_NEGATIVE, POSITIVE, check_fields
from ._schedule import Schedule, SchedulePoint, as_time, require

__all__ = ["VE", "VP", "CondOT", "Cosine", "LinearVP", "Polynomial"]


@dataclass(frozen=True)
class CondOT(Schedule):
    """``alpha = t, sigma = 1 - t``: rectified flow, flow matching with straight paths."""

    name: ClassVar[str] = "cond_ot"

    def _at(self, t: Tensor) -> SchedulePoint:
        one = torch.ones_like(t)
        return SchedulePoint(t, 1 - t, one, -one)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(as_time(log_snr))


@dataclass(frozen=True)
class Polynomial(Schedule):
    """``alpha = t^n, sigma = 1 - t^n``.

    Args:
        n: the exponent, positive.
    """

    name: ClassVar[str] = "polynomial"
    n: float = 1.0

    def __post_init__(self) -> None:
        check_fields("Polynomial", self, n=POSITIVE)

    def _at(self, t: Tensor) -> SchedulePoint:
        power, slope = t**self.n, self.n * t ** (self.n - 1)
        return SchedulePoint(power, 1 - power, slope, -slope)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(as_time(log_snr)) ** (1 / self.n)


@dataclass(frozen=True)
class VP(Schedule):
    """Variance preserving with a linear noise rate (Song et al. 2021, eq. 32-33).

    With ``w = 1 - t`` and ``T(w) = (beta_max - beta_min) w^2 / 2 + beta_min w``:
    ``alpha = exp(-T / 2), sigma = sqrt(1 - exp(-T))``. At ``t = 1`` the derivative of sigma is
    infinite; at ``t = 0`` a little signal remains (``alpha(0) = 0.0066`` by default).

    Args:
        beta_min: noise rate at the data end, positive.
        beta_max: noise rate at the noise end, above ``beta_min``.
    """

    name: ClassVar[str] = "vp"
    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_fields("VP", self, beta_min=POSITIVE, beta_max=POSITIVE)
        require(self.beta_max > self.beta_min, "VP", "beta_max", self.beta_max, "a number above beta_min")

    def _at(self, t: Tensor) -> SchedulePoint:
        w, slope = 1 - t, self.beta_max - self.beta_min
        T, dT = slope * w**2 / 2 + self.beta_min * w, -slope * w - self.beta_min
        alpha, sigma = (-T / 2).exp(), (-torch.expm1(-T)).sqrt()
        return SchedulePoint(alpha, sigma, -dT / 2 * alpha, dT / 2 * alpha**2 / sigma)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        T = torch.nn.functional.softplus(-2 * as_time(log_snr))
        slope = self.beta_max - self.beta_min
        return 1 - 2 * T / (self.beta_min + (self.beta_min**2 + 2 * slope * T).sqrt())


@dataclass(frozen=True)
class Cosine(Schedule):
    """``alpha = sin(pi t / 2), sigma = cos(pi t / 2)``: variance preserving, finite at both ends."""

    name: ClassVar[str] = "cosine"

    def _at(self, t: Tensor) -> SchedulePoint:
        quarter = math.pi / 2
        # sin(pi (1 - t) / 2), not cos(pi t / 2), is exactly zero at t = 1.
        alpha, sigma = torch.sin(quarter * t), torch.sin(quarter * (1 - t))
        return SchedulePoint(alpha, sigma, quarter * sigma, -quarter * alpha)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        return torch.atan(as_time(log_snr).exp()) * (2 / math.pi)


@dataclass(frozen=True)
class LinearVP(Schedule):
    """``alpha = t, sigma = sqrt(1 - t^2)``: variance preserving, with the ``alpha`` of CondOT.

    At ``t = 1`` the derivative of sigma is infinite, as in :class:`VP`.
    """

    name: ClassVar[str] = "linear_vp"

    def _at(self, t: Tensor) -> SchedulePoint:
        sigma = ((1 - t) * (1 + t)).sqrt()
        return SchedulePoint(t, sigma, torch.ones_like(t), -t / sigma)

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        return torch.sigmoid(2 * as_time(log_snr)).sqrt()


@dataclass(frozen=True)
class VE(Schedule):
    """Variance exploding, with the noise levels of EDM (Karras et al. 2022, eq. 5).

    ``alpha = 1, sigma = (sigma_max^(1/rho) + t (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho``.

    Args:
        sigma_max: noise level at ``t = 0``.
        sigma_min: noise level at ``t = 1``; 0 makes that end pure data.
        rho: 7 in EDM; 1 makes sigma linear in time.
    """

    name: ClassVar[str] = "ve"
    sigma_max: float = 80.0
    sigma_min: float = 0.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        check_fields("VE", self, sigma_min=NOT_NEGATIVE, sigma_max=POSITIVE, rho=POSITIVE)
        require(self.sigma_max > self.sigma_min, "VE", "sigma_max", self.sigma_max, "above sigma_min")

    def _at(self, t: Tensor) -> SchedulePoint:
        top, bottom = self._roots()
        root = top * (1 - t) + bottom * t
        return SchedulePoint(
            torch.ones_like(t),
            root**self.rho,
            torch.zeros_like(t),
            self.rho * root ** (self.rho - 1) * (bottom - top),
        )

    def inverse_log_snr(self, log_snr: Tensor | float) -> Tensor:
        top, bottom = self._roots()
        return (top - (-as_time(log_snr) / self.rho).exp()) / (top - bottom)

    def _roots(self) -> tuple[float, float]:
        return self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
