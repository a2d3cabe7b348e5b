"""iPNDM: the Adams-Bashforth weights of equal steps, applied to noise predictions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..schedules import Schedule
from ._draft import Draft, check_order, solver
from ._exponential_builder import begin_noise, finish, multistep
from .adams import lagrange_integrals

__all__ = ["ipndm"]


@solver
def ipndm(
    order: int = 4,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
) -> Draft:
    """Improved pseudo linear multistep (Liu et al. 2022; Zhang and Chen 2023, appendix), one call per step.

    DDIM with a combination of the last noise predictions in place of the noise, with the weights of an
    Adams-Bashforth method with equal steps on every grid: 3/2, -1/2 for order 2. Higher orders are reached
    only where steps are equal in ``sigma / alpha``; those of :func:`lms` hold on every grid.

    Args:
        order: 1 to 4.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.

    Raises:
        ValueError: on an unknown order.
    """
    check_order("ipndm", order, 4)
    builder, t = begin_noise(steps, schedule, grid)

    def add(time: Tensor, calls: list[int]) -> None:
        nodes = -torch.arange(len(calls), dtype=torch.float64)
        equal = lagrange_integrals(nodes, nodes[0], nodes[0] + 1)
        builder.step(time, dict(zip(calls, builder.total(time) * equal, strict=True)))

    multistep(builder, t, order, add)
    return finish(builder, t[-1], "ipndm" if order == 4 else f"ipndm{order}")
