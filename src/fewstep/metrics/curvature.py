"""Curvature and straightness of sampled paths."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .._device import placed, widest
from ..solver import Path

__all__ = ["CurvatureMeter", "curvature", "relative_curvature", "straightness"]


class CurvatureMeter:
    """Curvature of paths given point by point, in constant memory.

    With ``D`` the mean velocity ``(x(T) - x(0)) / T`` and ``v_i`` the mean velocity of step ``i``, of length
    ``h_i``, the curvature is the variance of the velocity over time, and so

        ``sum_i h_i / T mean_d (D - v_i)^2  =  sum_i h_i / T mean_d v_i^2  -  mean_d D^2``.

    For uniform steps this is the discretised ``C(Z)`` of Lee, Kim and Ye, *Minimizing Trajectory
    Curvature of ODE-based Generative Models* (ICML 2023), per dimension. It is zero for a straight path at
    constant speed, and for any path of a single step.

    Args:
        x: initial points of the paths, ``(B, ...)``.
        t: their initial time.
    """

    def __init__(self, x: Tensor, t: float = 0.0) -> None:
        self._dtype = widest(x.device)
        self._start, self._last = x, x.clone()
        self._begin = t
        self._t: Tensor | float = t  # one number while all paths share it, which no device need be given
        self._square_speed = torch.zeros(len(x), dtype=self._dtype, device=x.device)

    @classmethod
    def along(cls, states: Tensor, times: Iterable[float]) -> CurvatureMeter:
        """Return the meter of complete paths: ``states`` of shape ``(P, B, ...)`` at ``P`` times."""
        start, *later = map(float, times)
        meter = cls(states[0], start)
        for x, t in zip(states[1:], later, strict=True):
            meter.add(x, t)
        return meter

    def add(self, x: Tensor, t: Tensor | float, index: Tensor | slice = slice(None)) -> None:
        """Add the next points ``x`` of some of the paths, reached at times ``t``.

        Shape:
            ``x``: ``(n, ...)``; ``t``: ``(n,)`` or a number; ``index``: the ``n`` paths, by default all.
        """
        h, index = self._step(t, index), placed(index, x)
        if isinstance(h, Tensor):
            h = h.to(x.device, self._dtype)
        self._square_speed[index] += self._mean_square(x, self._last[index]) / h
        self._last[index] = x

    def displacement(self) -> Tensor:
        """Return the mean square over dimensions of ``D``, the scale of the curvature; ``(B,)``."""
        duration = self._duration()
        return self._mean_square(self._last, self._start) / (duration * duration)

    def curvature(self) -> Tensor:
        """Return the curvature of each path, per dimension; ``(B,)``."""
        # Rounding can make that of a straight path negative.
        return (self._square_speed / self._duration() - self.displacement()).clamp(min=0)

    def _step(self, t: Tensor | float, index: Tensor | slice) -> Tensor | float:
        """Return the step that leads some of the paths to ``t``, which is then their time."""
        if not isinstance(self._t, Tensor):
            if not isinstance(t, Tensor) and isinstance(index, slice) and index == slice(None):
                h, self._t = t - self._t, t
                return h
            self._t = torch.full((len(self._last),), self._t, dtype=torch.float64)
        steps = t - self._t[index]
        self._t[index] = torch.as_tensor(t, dtype=torch.float64)
        return steps

    def _duration(self) -> Tensor | float:
        duration = self._t - self._begin
        return duration.to(self._square_speed) if isinstance(duration, Tensor) else duration

    def _mean_square(self, x: Tensor, y: Tensor) -> Tensor:
        return (x.to(self._dtype) - y.to(self._dtype)).flatten(1).square().mean(dim=1)


def curvature(path: Path) -> Tensor:
    """Mean squared deviation of the velocity along recorded trajectories from its mean.

    ``C = E_t mean_d ((x(1) - x(0)) - dx/dt)^2``, with the velocities of the steps between the trajectory
    points; see :class:`CurvatureMeter`.

    Args:
        path: result of :meth:`fewstep.Solver.sample` with ``trajectory=True``.

    Returns:
        Curvature of each sample, per dimension, not averaged: float64 of shape ``(B,)``.
    """
    return CurvatureMeter.along(path.states, path.times).curvature()


def relative_curvature(path: Path) -> Tensor:
    """Curvature relative to the mean square displacement, ``C / mean_d (x(1) - x(0))^2``.

    It does not depend on the scale or the dimension of the data: 0 for straight paths at constant speed, 1
    where the deviation of the velocity is as large as its mean. It is NaN or infinite for a closed path.

    Args:
        path: result of :meth:`fewstep.Solver.sample` with ``trajectory=True``.

    Returns:
        One value per sample, float64 of shape ``(B,)``. Their mean differs from ``relative`` in
        :func:`fewstep.generate` and :func:`fewstep.compare`, the ratio of mean curvature and mean
        displacement.
    """
    meter = CurvatureMeter.along(path.states, path.times)
    return meter.curvature() / meter.displacement()


def straightness(path: Path) -> Tensor:
    """Straightness ``S(Z) = E_t |(Z_1 - Z_0) - dZ_t/dt|^2`` of rectified flow; 0 is straight.

    Liu, Gong and Liu, *Flow Straight and Fast* (2022; ICLR 2023). It sums over dimensions where
    :func:`curvature` averages: ``S = D C`` with ``D`` dimensions per sample. Values for data of different
    size or scale are not comparable.

    Args:
        path: result of :meth:`fewstep.Solver.sample` with ``trajectory=True``.

    Returns:
        One value per sample, float64 of shape ``(B,)``; their mean is ``S(Z)``.
    """
    return curvature(path) * path.x1[0].numel()
