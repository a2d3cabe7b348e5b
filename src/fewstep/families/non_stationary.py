"""Non-stationary solvers: every coefficient of the reduced form is free.

Shaul et al., *Bespoke Non-Stationary Solvers for Fast Sampling of Diffusion and Flow Models* (ICML
2024): ``x_i = a_i x_0 + sum_{j<i} b_ij u_j`` with ``u_j = u(x_j, t_j)`` and ``t_0`` pinned, which is
``n (n + 5) / 2 - 1`` free numbers. Every other solver in this package is one of these.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .._table import Reduced, Table
from ..schedules import Schedule
from ..solver import Solver
from ._family import Family, warped

__all__ = ["NonStationary"]


class NonStationary(Family):
    """Corrections to the reduced form of any solver.

    ``a = a_init + delta_a / n``, ``b = b_init + delta_b / n``, and the times are those of the initial solver
    with their increments multiplied by positive numbers.

    Args:
        init: the solver to start from, classical or fitted; its :attr:`~fewstep.Solver.nfe` is kept.
        schedule: the network's schedule, needed only where ``init`` is a table of other predictions
            than velocities and names none.
    """

    name: ClassVar[str] = "non_stationary"
    citation: ClassVar[tuple[str, ...]] = (
        "Shaul et al., Bespoke Non-Stationary Solvers for Fast Sampling of Diffusion and Flow Models, "
        "ICML 2024, arXiv:2403.01329",
    )

    def __init__(self, init: Solver, schedule: Schedule | None = None) -> None:
        self.init = init
        self.nfe = init.nfe
        self.points = init.points
        self.end = init.end
        self._start = init.to("velocity", schedule).table.unroll()
        self._grid = torch.cat([self._start.times, torch.tensor([init.end], dtype=torch.float64)])
        self._lower = torch.tril_indices(self.nfe, self.nfe)
        self._sizes = [self.nfe - 1, self.nfe, self.nfe * (self.nfe + 1) // 2]
        self.size = sum(self._sizes)

    def reduced(self, theta: Tensor) -> Reduced:
        """The reduced form of ``theta``."""
        t, a, b = theta.split(self._sizes)
        # The last increment stays, as only ratios of increments count.
        times = warped(self._grid, torch.cat([t, t.new_zeros(1)]))[:-1]
        delta = torch.zeros_like(self._start.b).index_put(tuple(self._lower), b / self.nfe)
        return Reduced(times, self._start.a + a / self.nfe, self._start.b + delta)

    def table(self, theta: Tensor) -> Table:
        return Table.from_reduced(self.reduced(theta))

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {"init": self.init.name, "theta": theta.tolist()}
