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
from ._family import Family, remembered, warped

__all__ = ["NonStationary"]


class NonStationary(Family):
    """Corrections to the reduced form of any solver, or of the solvers of another family.

    ``a = a_init + delta_a / n``, ``b = b_init + delta_b / n``. Around a solver, its coefficients are
    constant and the increments of its times are multiplied by positive numbers. Around a family, such as
    ``Timesteps("deis3/cosine", 8, schedule)``, ``a_init``, ``b_init`` and the times are those of the family
    at its own parameters, so that the coefficients follow the times, and the corrections stay small;
    Generalized Solvers (2025, arXiv:2510.17699) are such corrections to DPM-Solver++(3M).

    Args:
        init: the solver to start from, classical or fitted, or the family; its ``nfe`` is kept.
        schedule: the network's schedule, needed only where ``init`` is a table of other predictions
            than velocities and names none.
    """

    name: ClassVar[str] = "non_stationary"
    citation: ClassVar[tuple[str, ...]] = (
        "Shaul et al., Bespoke Non-Stationary Solvers for Fast Sampling of Diffusion and Flow Models, "
        "ICML 2024, arXiv:2403.01329",
    )

    def __init__(self, init: Solver | Family, schedule: Schedule | None = None) -> None:
        if isinstance(init, Solver):
            init.check_ode("NonStationary: init")
        self.anchor = init if isinstance(init, Family) else _Retimed(init, schedule)
        self.nfe, self.points, self.end = init.nfe, init.points, init.end
        self.start = self.anchor.start
        self._lower = torch.tril_indices(self.nfe, self.nfe)
        self._sizes = [self.anchor.size, self.nfe, self.nfe * (self.nfe + 1) // 2]
        self.size = sum(self._sizes)
        self._anchored = remembered(lambda theta: self.anchor.table(theta).unroll())

    def table(self, theta: Tensor) -> Table:
        anchor, a, b = theta.split(self._sizes)
        start = self._anchored(anchor)
        delta = torch.zeros_like(start.b).index_put(tuple(self._lower), b / self.nfe)
        return Table.from_reduced(Reduced(start.times, start.a + a / self.nfe, start.b + delta))

    def point_times(self, theta: Tensor) -> Tensor:
        return self.anchor.point_times(theta[: self.anchor.size])

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {**self.anchor.describe(theta[: self.anchor.size]), "theta": theta.tolist()}


class _Retimed(Family):
    """A solver with free times and fixed coefficients."""

    name: ClassVar[str] = "retimed"

    def __init__(self, init: Solver, schedule: Schedule | None) -> None:
        self.init = init
        self.start = f"the given {init.name}"
        self.nfe, self.points, self.end = init.nfe, init.points, init.end
        self._start = init.to("velocity", schedule).table
        self._grid = torch.cat([self._start.times, torch.tensor([init.end], dtype=torch.float64)])
        self.size = self.nfe - 1

    def table(self, theta: Tensor) -> Table:
        # The last increment is fixed, as only ratios of increments matter.
        return self._start._replace(times=warped(self._grid, torch.cat([theta, theta.new_zeros(1)]))[:-1])

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {"init": self.init.name}
