"""Confidence intervals for a solver's errors."""

from __future__ import annotations

import torch
from torch import Tensor

from .estimate import Estimate
from .figures import METRICS, Metric
from .moments import Moments

__all__ = ["ErrorMeter", "estimate_error", "paired_difference"]


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
    if name not in METRICS:
        raise ValueError(f"metric: must be one of {', '.join(METRICS)}, not {name!r}.")
    return METRICS[name]


def _checked(mse: Tensor) -> Tensor:
    if mse.ndim != 1:
        raise ValueError(
            f"mse: must be one mean square error a sample, (n,), not of shape {tuple(mse.shape)}; "
            "use per_sample_mse."
        )
    return mse
