"""Confidence intervals for a solver's errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import decibels
from .estimate import Estimate
from .moments import Moments

__all__ = ["ESTIMATES", "ErrorMeter", "paired_difference"]


class _Average(NamedTuple):
    """A metric as a function of a mean over samples: the averaged quantity, the function, its derivative."""

    of_sample: Callable[[Tensor], Tensor]
    of_mean: Callable[[float], float]
    slope: Callable[[float], float]


def _slope_of_root(mean: float) -> float:
    return 0.5 / math.sqrt(mean) if mean > 0 else 0.0  # exact samples have no spread


#: The metrics of :data:`METRICS` as functions of per-sample mean square errors.
_AVERAGES = {
    "rmse": _Average(torch.sqrt, lambda mean: mean, lambda mean: 1.0),
    "psnr": _Average(decibels, lambda mean: mean, lambda mean: 1.0),
    "pooled_rmse": _Average(lambda mse: mse, math.sqrt, _slope_of_root),
}


class ErrorMeter:
    """The metrics of :data:`fewstep.metrics.METRICS` with confidence intervals, for samples in batches.

    Only the moments of the per-sample errors are stored. See :class:`Estimate` for the assumptions of the
    intervals.
    """

    def __init__(self) -> None:
        self._moments = Moments()

    def update(self, mse: Tensor) -> None:
        """Add the mean square errors of some samples, ``(n,)``; see :func:`fewstep.metrics.per_sample_mse`.

        Raises:
            ValueError: unless they have shape ``(n,)``.
        """
        self._moments.update(
            torch.stack([average.of_sample(_checked(mse)) for average in _AVERAGES.values()], 1)
        )

    def __add__(self, other: ErrorMeter) -> ErrorMeter:
        return self._with(self._moments + other._moments)

    def over_processes(self) -> ErrorMeter:
        """Return the meter of all samples over the processes of ``torch.distributed``, the same in each.

        Every process must call it.
        """
        return self._with(self._moments.over_processes())

    def estimate(self, metric: str = "rmse") -> Estimate:
        """Estimate a metric from all samples so far.

        PSNR is for data in [-1, 1]. The interval of the pooled RMSE, a root of a mean, comes from the delta
        method.

        Raises:
            ValueError: on an unknown metric, or when there are no samples.
        """
        average, column = _average(metric), list(_AVERAGES).index(metric)
        mean = float(self._moments.mean[column])
        gradient = [0.0] * len(_AVERAGES)
        gradient[column] = average.slope(mean)
        return Estimate.linearised(average.of_mean(mean), gradient, self._moments)

    @staticmethod
    def _with(moments: Moments) -> ErrorMeter:
        meter = ErrorMeter()
        meter._moments = moments
        return meter


def _estimate(metric: str, mse: Tensor) -> Estimate:
    meter = ErrorMeter()
    meter.update(mse)
    return meter.estimate(metric)


#: Estimates by the names of :data:`METRICS`, each a function of per-sample mean square errors ``(n,)``.
ESTIMATES: dict[str, Callable[[Tensor], Estimate]] = {name: partial(_estimate, name) for name in _AVERAGES}


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
    average = _average(metric)
    if _checked(mse).shape != _checked(other).shape:
        raise ValueError(
            f"paired_difference: both solvers need errors on the same noises, not on {len(mse)} and "
            f"{len(other)}."
        )
    moments = Moments.of(torch.stack([average.of_sample(mse), average.of_sample(other)], 1))
    mean, other_mean = moments.mean.tolist()
    value = average.of_mean(mean) - average.of_mean(other_mean)
    return Estimate.linearised(value, (average.slope(mean), -average.slope(other_mean)), moments)


def _average(metric: str) -> _Average:
    if metric not in _AVERAGES:
        raise ValueError(f"metric: must be one of {', '.join(_AVERAGES)}, not {metric!r}.")
    return _AVERAGES[metric]


def _checked(mse: Tensor) -> Tensor:
    if mse.ndim != 1:
        raise ValueError(
            f"mse: must be one mean square error a sample, (n,), not of shape {tuple(mse.shape)}; "
            "use per_sample_mse."
        )
    return mse
