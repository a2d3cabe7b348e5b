"""The denoising error of a network under a given wiring, at a few noise levels.

With fresh noise ``x0``, data ``x1`` and ``x_t = alpha x1 + sigma x0``, every correct field denoises to the
conditional expectation ``d = E[x1 | x_t]``, which has the least squared error ``E |x1 - d|^2`` of all
functions of ``x_t``. Two numbers follow for any other reading of the same network:

- *loss*: the logarithm of its error over that of the best linear filter, which knows mean and variance of
  each coordinate. It is at most zero for a correct field.
- *calibration*: the logarithm of its error over that of the best combination ``a x_t + b d + c``. It is zero
  for a correct field, as ``x1 - d`` is orthogonal to every function of ``x_t`` (``E<x1 - d, d> = 0``).

Both are means over the noise levels, and paired: all wirings are measured on the same noises.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .._noises import noise
from .._progress import ProgressBar
from ..classical import named
from ..field import Field
from ..schedules import Schedule
from ._wiring import Wiring, rewired

__all__ = ["LEVELS", "REFUSALS", "STEPS", "Law", "Probe", "Score", "Seen"]

#: log-SNRs to denoise at. Between them networks are at their best, and wrong ones at their worst.
LEVELS = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
#: log-SNRs where the samples that stand for data begin and end, and how many calls they take. Further out a
#: noise prediction (or a data prediction) of a small network is worth little.
SPAN, STEPS = (-3.0, 3.0), 16
#: Exceptions of networks at times that they do not accept.
REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, ArithmeticError)
#: Root mean square of samples that have left all bounds.
BOUND = 1e3


class Law(NamedTuple):
    """Mean and variance of the data, coordinate by coordinate."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, x1: Tensor) -> Law:
        return cls(x1.mean(dim=0), x1.var(dim=0))


class Seen(NamedTuple):
    """The output of a network on noised data, common to all wirings with the same clock and schedule."""

    t: float
    x1: Tensor  # the data
    x: Tensor  # the noised states
    output: Tensor
    linear: Tensor  # mean squared error of the best linear filter
    affine: Tensor  # mean squared error of the best combination of state and output


class Score(NamedTuple):
    """Loss and calibration, as defined in this module; infinite if the output is not finite."""

    loss: float
    calibration: float


class Probe:
    """Calls a network without guidance, counts the calls, and computes statistics in float64 on the CPU."""

    def __init__(
        self,
        field: Field,  # with its conditions bound
        samples: int,  # per call
        shape: Sequence[int],
        seed: int,
        dtype: torch.dtype,  # of the states passed to the network
        device: torch.device,
        bar: ProgressBar,
    ) -> None:
        self.field, self.bar = copy.copy(field), bar
        self.field.guidance = None
        self.samples, self.shape, self.seed = samples, tuple(shape), seed
        self.dtype, self.device = dtype, device
        self.calls = 0
        self._noises: dict[int, Tensor] = {}

    def output(self, wiring: Wiring, x: Tensor, t: float) -> Tensor:
        """Return the network's output for the states, with the time given by the wiring's clock."""
        told = rewired(self.field, replace(wiring, sign=1))  # Wiring.denoised minds the sign
        self.calls += 1
        self.bar.update()
        with torch.no_grad():
            return told.predict(x.to(self.device, self.dtype), t).double().cpu()

    def denoise_away(self, wiring: Wiring, x1: Tensor, law: Law) -> list[Seen]:
        """Like :meth:`denoise`, by the prediction that guidance leads away from."""
        away = copy.copy(self)
        away.field = copy.copy(self.field)
        away.field.guidance, away.field.guidance_interval = 0.0, (0.0, 1.0)
        away.field.guidance_rescale = 0.0
        seen = away.denoise(wiring, x1, law)
        self.calls += 2 * len(seen)
        return seen

    def runs(self, wiring: Wiring) -> bool:
        """True if a solver can call the network at both ends of time and between them."""
        told = rewired(self.field, wiring)
        x = self.noise(0).to(self.device, self.dtype)
        for t in (0.0, 0.5, 1.0):
            self.calls += 1
            self.bar.update()
            try:
                with torch.no_grad():
                    if not bool(told(x, t).isfinite().all()):
                        return False
            except REFUSALS:
                return False
        return True

    def noise(self, number: int) -> Tensor:
        """Return the noises with this number, the same for all wirings."""
        if number not in self._noises:
            start = number * self.samples
            self._noises[number] = noise(self.samples, self.shape, seed=self.seed, start=start)
        return self._noises[number].double()

    def denoise(self, wiring: Wiring, x1: Tensor, law: Law, x0: Tensor | None = None) -> list[Seen]:
        """Call the network on data at every noise level, with fresh noise unless ``x0`` is given."""
        seen = []
        for number, t in enumerate(_times(wiring.schedule, LEVELS), start=1):
            alpha, sigma = (float(c) for c in wiring.schedule(t)[:2])
            x = alpha * x1 + sigma * (self.noise(number) if x0 is None else x0)
            output = self.output(wiring, x, t)
            linear = law.variance * sigma**2 / (alpha**2 * law.variance + sigma**2)
            affine = _residual(x1 - law.mean, x - alpha * law.mean, output - output.mean(dim=0))
            seen.append(Seen(t, x1, x, output, linear.mean(), affine))
        return seen

    def generate(self, wiring: Wiring) -> tuple[Tensor, Tensor]:
        """Return noises and their samples, by DPM-Solver++(2M) on even steps of log-SNR.

        A plain loop instead of a table, to stop early, with samples of NaN, when the states diverge.
        """
        schedule, times = wiring.schedule, _times(wiring.schedule, torch.linspace(*SPAN, STEPS).tolist())
        lambdas = [float(schedule.log_snr(t)) for t in times]
        x0 = self.noise(0)
        x = schedule(times[0]).sigma * x0
        if times[0] == 0:  # the noise may contain signal, whose moments may be known
            x = rewired(self.field, wiring).initial_state(x0.to(self.device)).cpu()
        data = before = wiring.denoised(x, self.output(wiring, x, times[0]), times[0])
        for i in range(1, len(times)):
            h = lambdas[i] - lambdas[i - 1]
            slope = 0.0 if i == 1 else (data - before) / (lambdas[i - 1] - lambdas[i - 2])
            alpha, sigma = schedule(times[i])[:2]
            x = sigma / schedule(times[i - 1]).sigma * x - alpha * math.expm1(-h) * (data + h / 2 * slope)
            if not x.square().mean().sqrt() < BOUND * max(1.0, float(sigma)):
                return x0, torch.full_like(x0, math.nan)
            before, data = data, wiring.denoised(x, self.output(wiring, x, times[i]), times[i])
        return x0, data

    def sample(self) -> Tensor:
        """Return samples of the field as it is declared, by DEIS from its own initial state.

        Raises:
            FloatingPointError: when the states become infinite.
        """
        solver = named("deis3/cosine", STEPS, self.field.schedule)
        self.calls += STEPS
        self.bar.update(STEPS)
        return solver.sample(self.field, self.noise(0).to(self.device, self.dtype)).double().cpu()

    @staticmethod
    def score(wiring: Wiring, seen: Sequence[Seen]) -> Score:
        """Return loss and calibration of a wiring from the network's outputs under its clock and schedule."""
        errors = [(s.x1 - wiring.denoised(s.x, s.output, s.t)).square().mean() for s in seen]
        if not all(bool(error.isfinite()) for error in errors):
            return Score(math.inf, math.inf)
        losses = [_log_ratio(error, s.linear) for error, s in zip(errors, seen, strict=True)]
        calibrations = [_log_ratio(error, s.affine) for error, s in zip(errors, seen, strict=True)]
        return Score(sum(losses) / len(losses), sum(calibrations) / len(calibrations))


def _residual(y: Tensor, *features: Tensor) -> Tensor:
    """Return the mean square of ``y`` minus its best linear combination of the features."""
    X = torch.stack([feature.flatten() for feature in features], dim=1)
    X = X / X.square().mean(dim=0).sqrt().clamp(min=1e-12)
    # Both may say the same (of Gaussian data, of pure noise): a trace of ridge keeps the system regular.
    gram = X.T @ X / len(X) + 1e-9 * torch.eye(len(features), dtype=X.dtype)
    coefficients: Tensor = torch.linalg.solve(gram, X.T @ y.flatten() / len(X))
    return (y.flatten() - X @ coefficients).square().mean()


def _log_ratio(error: Tensor, other: Tensor) -> float:
    """Return the log-ratio of errors, at least log(1/1000), so that no level outweighs all others."""
    return max(math.log(max(float(error), 1e-300) / max(float(other), 1e-300)), math.log(1e-3))


def _times(schedule: Schedule, levels: Sequence[float]) -> list[float]:
    """Return the times of log-SNRs, clamped to the schedule's range."""
    times = [float(schedule.inverse_log_snr(level)) for level in levels]
    return sorted({min(max(t, 0.0), 1.0) for t in times})
