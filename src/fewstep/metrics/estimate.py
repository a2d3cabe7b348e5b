"""Means over samples, and errors of solvers, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._names import check_name
from .figures import METRICS, Metric
from .moments import Moments

__all__ = ["ErrorMeter", "Estimate", "estimate_error", "paired_difference"]


@dataclass(frozen=True)
class Estimate:
    """A mean over samples with its 95 % confidence interval.

    The interval is Student's, ``value ± t s / sqrt(count)``. It assumes independent samples, as with noises
    of :func:`fewstep.noise`, and a normal mean: for few samples of a heavy-tailed distribution (a solver
    that fails on a few noises) it is too narrow, as the samples that matter most are missing.

    Args:
        value: the estimate.
        low: lower end of the interval; minus infinity for a single sample.
        high: upper end.
        count: number of samples.
    """

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Tensor | Moments) -> Estimate:
        """Estimate the mean of one value per sample.

        Args:
            values: ``(n,)``; or moments of ``(n, 1)``, for values in batches or over processes.

        Raises:
            ValueError: when there are no values, or more than one per sample.
        """
        if isinstance(values, Tensor):
            if values.ndim != 1:
                raise ValueError(
                    f"Estimate: values must be one number a sample, (n,), not of shape {tuple(values.shape)}."
                )
            values = Moments.of(values[:, None])
        if values.dimensions > 1:
            raise ValueError(
                f"Estimate: values must be one number a sample, not {values.dimensions}; "
                "take the moments of one column."
            )
        return cls.linearised(float(values.mean), (1.0,), values)

    @classmethod
    def linearised(cls, value: float, gradient: Sequence[float], moments: Moments) -> Estimate:
        """Estimate a smooth function of means by the delta method, with variance ``g^T S g / count``.

        Args:
            value: the function of the means.
            gradient: its derivatives ``g`` with respect to the ``d`` means.
            moments: moments of the averaged values, with covariance ``S``.

        Raises:
            ValueError: when the count of the moments is unknown or zero.
        """
        count = moments.count
        if not count:
            raise ValueError(f"Estimate: needs a known number of samples, 1 at least, not {count}.")
        if count == 1:
            return cls(value, -math.inf, math.inf, 1)
        g = moments.mean.new_tensor(gradient)
        # Rounding can make the variance of equal values negative.
        deviation = math.sqrt(max(0.0, float(g @ moments.covariance @ g)))
        margin = _student(count - 1) * deviation / math.sqrt(count)
        return cls(value, value - margin, value + margin, count)

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.value:.4g} ± {self.margin:.2g} ({self.count} samples)"


class ErrorMeter:
    """The metrics of :data:`fewstep.metrics.METRICS` with confidence intervals, for samples in batches.

    Only the ``moments`` of the per-sample errors are stored, empty ones by default. See :class:`Estimate` for
    the assumptions of the intervals.
    """

    def __init__(self, moments: Moments | None = None) -> None:
        self._moments = moments or Moments()

    def update(self, mse: Tensor) -> None:
        """Add the mean square errors of some samples, ``(n,)``; see :func:`fewstep.metrics.per_sample_mse`.

        Raises:
            ValueError: unless they have shape ``(n,)``.
        """
        _checked(mse)
        self._moments.update(torch.stack([metric.of_sample(mse) for metric in METRICS.values()], 1))

    def __add__(self, other: ErrorMeter) -> ErrorMeter:
        return ErrorMeter(self._moments + other._moments)

    def over_processes(self) -> ErrorMeter:
        """Return the meter of all samples over the processes of ``torch.distributed``, the same in each.

        Every process must call it.
        """
        return ErrorMeter(self._moments.over_processes())

    def estimate(self, metric: str = "rmse") -> Estimate:
        """Estimate a metric from all samples so far.

        PSNR is for data in [-1, 1]. The interval of the pooled RMSE, a root of a mean, comes from the delta
        method.

        Raises:
            ValueError: on an unknown metric, or when there are no samples.
        """
        average = _metric(metric)
        mean = float(self._moments.mean[list(METRICS).index(metric)])
        gradient = [average.slope(mean) if name == metric else 0.0 for name in METRICS]
        return Estimate.linearised(average.of_mean(mean), gradient, self._moments)


def estimate_error(metric: str, mse: Tensor) -> Estimate:
    """Estimate a metric over all noises from the mean square errors of some samples, ``(n,)``."""
    meter = ErrorMeter()
    meter.update(mse)
    return meter.estimate(metric)


def paired_difference(mse: Tensor, other: Tensor, metric: str = "rmse") -> Estimate:
    """Estimate the difference of two solvers' metrics from errors on the same noises.

    Noises that are hard for both solvers cancel, so that the interval is narrower than those of the two
    metrics suggest: solvers with overlapping intervals still differ significantly if this interval excludes
    zero.

    Args:
        mse: mean square errors of one solver, ``(n,)``, from :func:`fewstep.metrics.per_sample_mse`.
        other: those of the other solver, from the same noises in the same order.
        metric: a name in :data:`fewstep.metrics.METRICS`.

    Returns:
        The metric of ``mse`` minus that of ``other``: a negative RMSE, or a positive PSNR, favours the first.

    Raises:
        ValueError: on an unknown metric, or different numbers of errors.
    """
    average = _metric(metric)
    if _checked(mse).shape != _checked(other).shape:
        raise ValueError(
            f"paired_difference: both solvers need errors on the same noises, not on {len(mse)} and "
            f"{len(other)}."
        )
    moments = Moments.of(torch.stack([average.of_sample(mse), average.of_sample(other)], 1))
    mean, other_mean = moments.mean.tolist()
    value = average.of_mean(mean) - average.of_mean(other_mean)
    return Estimate.linearised(value, (average.slope(mean), -average.slope(other_mean)), moments)


def _metric(name: str) -> Metric:
    check_name("metric:", name, METRICS)
    return METRICS[name]


def _checked(mse: Tensor) -> Tensor:
    if mse.ndim != 1:
        raise ValueError(
            f"mse: must be one mean square error a sample, (n,), not of shape {tuple(mse.shape)}; "
            "use per_sample_mse."
        )
    return mse


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t distribution.

    Exact for one and two degrees of freedom; above, the expansion of Abramowitz and Stegun 26.7.5, with an
    error of 5e-3 at three and below 1e-5 from ten on.
    """
    if freedom == 1:
        return math.tan(0.475 * math.pi)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z = 1.959963984540054
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / freedom**power for power, term in enumerate(terms, start=1))
