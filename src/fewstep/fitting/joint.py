"""Gauss-Newton on several solvers together that share a theta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..families import Linked
from ..pairs import Pairs
from ._rollout import Rollout
from .gauss_newton import GaussNewton
from .losses import LeastSquares

__all__ = ["JointGaussNewton", "Task"]


class Task(NamedTuple):
    """One of the solvers that share a theta, and what it is to do: a field, and samples to reach."""

    rollout: Rollout
    solvers: Linked
    pairs: Pairs

    def squared_error(self, theta: Tensor) -> Tensor:
        """Mean square of the error of each pair, float64 of shape ``(B,)``."""
        return self.rollout.squared_error(self.solvers.table(theta).unroll(), self.pairs)


class JointGaussNewton(GaussNewton):
    """Levenberg-Marquardt on the mean over tasks of the logarithm of each one's loss.

    Errors fall by orders of magnitude as calls are added, so that a mean of errors would hear the fewest
    calls only. The mean of logarithms is, up to a constant, that of ratios to any solvers fitted one by one:
    a percent counts the same in every task.

    With ``P`` for the link of a task, its Jacobian in theta is ``J P``, so that its normal equations
    ``A = J^T W J``, ``g = J^T W r`` in its own parameters are ``P^T A P`` and ``P^T g`` in theta.

    Args:
        tasks: solvers with one theta, and their pairs, equally many.
        loss: the loss of each, positive.
        step: as for :class:`GaussNewton`.
    """

    def __init__(self, tasks: Sequence[Task], loss: LeastSquares, *, step: float | None = None) -> None:
        options: dict[str, Any] = {"step": step, "reuse": 0}  # or each would hold a Jacobian
        alone = [GaussNewton(task.rollout, task.solvers.own, task.pairs, loss, **options) for task in tasks]
        super().__init__(alone[0].rollout, alone[0].family, alone[0].pairs, loss, **options)
        self.size = tasks[0].solvers.size
        self.members = [(member, task.solvers.link) for member, task in zip(alone, tasks, strict=True)]
        self._latest: tuple[Tensor, list[float]] = torch.empty(0), []

    def _loss(self, theta: Tensor, pairs: Pairs) -> float:
        """The mean logarithm; every task has all of its own pairs, for which those of the first stand."""
        return sum(map(math.log, self._losses(theta))) / len(self.members)

    def _losses(self, theta: Tensor) -> list[float]:
        """The loss of each task; known where it was asked for last, as where a step ends the next begins."""
        if not torch.equal(self._latest[0], theta):
            self._latest = theta, [member._loss(P @ theta, member.pairs) for member, P in self.members]
        return self._latest[1]

    def _negligible(self, loss: float) -> float:
        """A thousandth of the geometric mean of the losses."""
        return 1e-3

    def _normal_equations(self, theta: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Those of each task over its loss, which is what the slope of the logarithm weighs it with."""
        A, g = theta.new_zeros(self.size, self.size), theta.new_zeros(self.size)
        for (member, P), loss in zip(self.members, self._losses(theta), strict=True):
            its_A, its_g = member._normal_equations(P @ theta, member.pairs)
            weight = 1 / (len(self.members) * loss)
            A += weight * P.T @ its_A @ P
            g += weight * P.T @ its_g
        return A, g
