"""Gauss-Newton on the solvers of a curve together: one theta, several numbers of calls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..families import Family
from ..pairs import Pairs
from ._rollout import Rollout
from .gauss_newton import GaussNewton
from .losses import EndpointLoss

__all__ = ["JointGaussNewton"]


class JointGaussNewton(GaussNewton):
    """Levenberg-Marquardt on the mean over families of the logarithm of each one's loss.

    Errors fall by orders of magnitude as calls are added, so that a mean of errors would hear the fewest
    calls only. The mean of logarithms is, up to a constant, that of ratios to any solvers fitted one by one:
    a percent counts the same at every number of calls.

    Args:
        rollout: the field.
        families: families with one theta.
        pairs: what to fit.
        loss: the endpoint loss of each, positive.
        **options: of :class:`GaussNewton`.
    """

    def __init__(
        self,
        rollout: Rollout,
        families: Sequence[Family],
        pairs: Pairs,
        loss: EndpointLoss,
        **options: Any,
    ) -> None:
        options = {"reuse": 0, **options}  # or the members would hold a Jacobian each
        super().__init__(rollout, families[0], pairs, loss, **options)
        self.members = [GaussNewton(rollout, family, pairs, loss, **options) for family in families]

    def _loss(self, theta: Tensor, pairs: Pairs) -> float:
        return sum(math.log(member._loss(theta, pairs)) for member in self.members) / len(self.members)

    def _normal_equations(self, theta: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Those of each family over its loss, which is what the slope of the logarithm weighs it with."""
        weighted = [
            torch.cat([A, g[:, None]], dim=1) / (member._loss(theta, pairs) * len(self.members))
            for member in self.members
            for A, g in [member._normal_equations(theta, pairs)]
        ]
        total = torch.stack(weighted).sum(0)
        return total[:, :-1], total[:, -1]
