"""Losses at every point of the trajectory."""

from __future__ import annotations

from torch import Tensor

from ...families import Family
from ...field import Field
from ...pairs import Pairs
from ._endpoint import ENDPOINT_LOSSES, EndpointLoss, endpoint_loss
from ._loss import LeastSquares
from ._pairs import PathPairs

__all__ = ["Nodes"]


class Nodes(LeastSquares):
    """The mean over trajectory points and samples of ``rho`` of the residual ``x_i - x(t_i)``.

    ``x(t)`` is the reference path from the same noise, and ``t_i`` the time of point ``i`` under the current
    theta (:meth:`~fewstep.families.Family.point_times`), so that the derivative of a residual in its time is
    minus the reference velocity. Points ``1 .. n``, the sample included, have equal weights; stages have
    none. The loss works for every family and keeps the solver near the path; the iterate is still chosen by
    the sample.

    Args:
        loss: an endpoint loss, applied to each point.
    """

    def __init__(self, loss: str | EndpointLoss = "rmse") -> None:
        self.loss = endpoint_loss(loss, "Nodes")
        self.rho, self.slope = self.loss.rho, self.loss.slope
        self.name = f"nodes({self.loss.name})"

    @property
    def judge(self) -> LeastSquares:
        return ENDPOINT_LOSSES["rmse"]

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        return PathPairs.solved(pairs, field, rtol=rtol, atol=atol)

    def points(self, family: Family) -> tuple[int, ...]:
        return family.points[1:]

    def times(self, family: Family, theta: Tensor) -> Tensor:
        return family.point_times(theta)[1:]

    def target(self, times: Tensor, pairs: Pairs) -> Tensor:
        assert isinstance(pairs, PathPairs)  # as `prepared` made them
        return pairs.path.at(times).flatten(0, 1)
