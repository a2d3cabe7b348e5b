"""Metrics of samples by name, in one list for Python, command line, tables and pages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .errors import decibels

__all__ = ["FIGURES", "METRICS", "Figure", "Metric", "figure"]


@dataclass(frozen=True)
class Figure:
    """A number that describes samples.

    Args:
        name: name of its column in tables, and on the command line.
        label: its name in a sentence.
        axis: its name on an axis; ``label`` if empty.
        gain: more is better. Such figures are logarithms or shares, and have a linear axis.
        format: its format in tables.
    """

    name: str
    label: str
    axis: str = ""
    gain: bool = False
    format: str = ".4g"

    def __post_init__(self) -> None:
        object.__setattr__(self, "axis", self.axis or self.label)


@dataclass(frozen=True, kw_only=True)
class Metric(Figure):
    """A distance to the reference from the same noises: a function of a mean over samples.

    :class:`ErrorMeter` estimates it with an interval.

    Args:
        of_sample: function of the mean square errors of samples, which is averaged.
        of_mean: function of the average, which is the metric.
        slope: the derivative of ``of_mean``.
    """

    of_sample: Callable[[Tensor], Tensor]
    of_mean: Callable[[float], float] = lambda mean: mean
    slope: Callable[[float], float] = lambda mean: 1.0


def _slope_of_root(mean: float) -> float:
    return 0.5 / math.sqrt(mean) if mean > 0 else 0.0  # exact samples have no spread


#: Metrics of :func:`fewstep.compare` by name.
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("rmse", "RMSE", "RMSE to the reference", of_sample=torch.sqrt),
        Metric("psnr", "PSNR", "PSNR to the reference (dB)", gain=True, of_sample=decibels),
        Metric(
            "pooled_rmse",
            "pooled RMSE",
            "pooled RMSE to the reference",
            of_sample=lambda mse: mse,
            of_mean=math.sqrt,
            slope=_slope_of_root,
        ),
    )
}

#: Figures of samples against data by name.
FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure("fid", "FID"),
        Figure("kid", "KID"),
        Figure("precision", "precision", gain=True),
        Figure("recall", "recall", gain=True),
        Figure("density", "density", gain=True),
        Figure("coverage", "coverage", gain=True),
    )
}

#: Distances in the features of any network, as in ``frechet_mnist``.
_DISTANCES = {"frechet": "Fréchet distance", "kernel": "kernel distance"}


def figure(name: str) -> Figure:
    """Return the figure of a column: a known one, a distance in the features of a network, or its name."""
    kind, _, network = name.partition("_")
    if network and kind in _DISTANCES:
        return Figure(name, _DISTANCES[kind], f"{_DISTANCES[kind]}, {network} features")
    return METRICS.get(name) or FIGURES.get(name) or Figure(name, name)
