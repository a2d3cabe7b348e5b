"""How curved sampled paths are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .._device import widest
from ..solver import Path

__all__ = ["CurvatureMeter", "curvature", "relative_curvature", "straightness"]


class CurvatureMeter:
    """Curvature of paths seen point by point, in memory that does not grow with their length.

    With ``D`` the mean velocity ``(x(T) - x(0)) / T`` and ``v_i`` the mean velocity of step ``i``, of length
    ``h_i``, the curvature is the variance of the velocity over time, and so

        ``sum_i h_i / T mean_d (D - v_i)^2  =  sum_i h_i / T mean_d v_i^2  -  mean_d D^2``.

    For uniform steps this is the discretised ``C(Z)`` of Lee, Kim and Ye, *Minimizing Trajectory
    Curvature of ODE-based Generative Models* (ICML 2023), a dimension. A straight path at constant speed has
    none, and neither has a path of a single step, which says nothing about the flow.

    Args:
        x: where the paths start, ``(B, ...)``.
        t: when they start.
    """

    def __init__(self, x: Tensor, t: float = 0.0) -> None:
        self._dtype = widest(x.device)
        self._start, self._last = x, x.clone()
        self._begin, self._t = t, torch.full((len(x),), t, dtype=torch.float64)
        self._square_speed = torch.zeros(len(x), dtype=self._dtype, device=x.device)

    @classmethod
    def along(cls, states: Tensor, times: Iterable[float]) -> CurvatureMeter:
        """A meter that has seen whole paths: ``states`` of shape ``(P, B, ...)``, at ``P`` times."""
        start, *later = map(float, times)
        meter = cls(states[0], start)
        for x, t in zip(states[1:], later, strict=True):
            meter.add(x, t)
        return meter

    def add(self, x: Tensor, t: Tensor | float, index: Tensor | slice = slice(None)) -> None:
        """The next points ``x`` of some of the paths, and when they are reached.

        Shape:
            ``x``: ``(n, ...)``; ``t``: ``(n,)`` or a number; ``index``: the ``n`` paths, by default all.
        """
        h = (t - self._t[index]).to(x.device, self._dtype)
        self._square_speed[index] += self._mean_square(x, self._last[index]) / h
        self._last[index] = x
        self._t[index] = torch.as_tensor(t, dtype=torch.float64)

    def displacement(self) -> Tensor:
        """Mean square over dimensions of ``D``, the scale of the curvature; ``(B,)``."""
        return self._mean_square(self._last, self._start) / self._duration().square()

    def curvature(self) -> Tensor:
        """Curvature of each path, per dimension; ``(B,)``."""
        # Rounding leaves a straight path on either side of zero.
        return (self._square_speed / self._duration() - self.displacement()).clamp(min=0)

    def _duration(self) -> Tensor:
        return (self._t - self._begin).to(self._square_speed)

    def _mean_square(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.to(self._dtype) - y.to(self._dtype)).flatten(1).square().mean(dim=1)


def curvature(path: Path) -> Tensor:
    """How far recorded trajectories are from straight lines at constant speed.

    ``C = E_t mean_d ((x(1) - x(0)) - dx/dt)^2``, with the velocities of the steps between the trajectory
    points; see :class:`CurvatureMeter`.

    Args:
        path: of :meth:`fewstep.Solver.sample` with ``trajectory=True``.

    Returns:
        Curvature of each sample, per dimension: float64 of shape ``(B,)``, for the caller to average.
    """
    return CurvatureMeter.along(path.states, path.times).curvature()


def relative_curvature(path: Path) -> Tensor:
    """The curvature over the mean square displacement, ``C / mean_d (x(1) - x(0))^2``.

    It depends neither on the scale of the data nor on their dimension: 0 for straight paths at constant
    speed, and 1 for those whose velocity differs from its mean as much as that is long. It is NaN or infinite
    for a path that ends where it began.

    Args:
        path: of :meth:`fewstep.Solver.sample` with ``trajectory=True``.

    Returns:
        Of each sample, float64 of shape ``(B,)``. Their mean is not what :func:`fewstep.generate` and
        :func:`fewstep.compare` call ``relative``: the mean curvature over the mean displacement.
    """
    meter = CurvatureMeter.along(path.states, path.times)
    return meter.curvature() / meter.displacement()


def straightness(path: Path) -> Tensor:
    """The straightness ``S(Z) = E_t |(Z_1 - Z_0) - dZ_t/dt|^2`` of rectified flow; 0 is straight.

    Liu, Gong and Liu, *Flow Straight and Fast* (2022; ICLR 2023). It sums over dimensions, where
    :func:`curvature` takes their mean, and so ``S = D C`` with ``D`` dimensions a sample: values for data of
    different size, or scale, do not compare.

    Args:
        path: of :meth:`fewstep.Solver.sample` with ``trajectory=True``.

    Returns:
        Of each sample, float64 of shape ``(B,)``; the mean over samples is ``S(Z)``.
    """
    return curvature(path) * path.x1[0].numel()
