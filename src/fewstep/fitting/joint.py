"""Gauss-Newton on several solvers together that share a theta."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..families import Linked
from ..pairs import Pairs
from ._rollout import Rollout
from .gauss_newton import GaussNewton
from .losses import EndpointLoss

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
        loss: the endpoint loss of each, positive.
        **options: of :class:`GaussNewton`.
    """

    def __init__(self, tasks: Sequence[Task], loss: EndpointLoss, **options: Any) -> None:
        first = tasks[0]
        super().__init__(first.rollout, first.solvers.own, first.pairs, loss, **options)
        self.size = first.solvers.size
        self.members = [
            (GaussNewton(task.rollout, task.solvers.own, task.pairs, loss, **options), task.solvers.link)
            for task in tasks
        ]

    def _loss(self, theta: Tensor, pairs: Pairs) -> float:
        return sum(math.log(member._loss(P @ theta, member.pairs)) for member, P in self.members) / len(
            self.members
        )

    def _normal_equations(self, theta: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Those of each task over its loss, which is what the slope of the logarithm weighs it with."""
        total = [theta.new_zeros(self.size, self.size), theta.new_zeros(self.size)]
        for member, P in self.members:
            own = P @ theta
            A, g = member._normal_equations(own, member.pairs)
            weight = len(self.members) * member._loss(own, member.pairs)
            total[0] += P.T @ A @ P / weight
            total[1] += P.T @ g / weight
        return total[0], total[1]
