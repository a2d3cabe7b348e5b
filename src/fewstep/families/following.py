"""Continued fits of any solver, with coefficients that follow its times."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .._table import Reduced, Table
from ..schedules import Schedule
from ..solver import Solver
from ._family import Family
from .timesteps import Timesteps

__all__ = ["Following"]


class Following(Family):
    """A given solver whose times move, and whose coefficients move as those of a classical solver would.

    ``a = a_init + a_base(t) - a_base(t_init)`` and likewise ``b``, for the base method on the grid of the
    solver's calls. At zero this is exactly the solver, and its coefficients stay good when a time moves. The
    times passed to the network are also free, as in :class:`Timesteps`.

    Args:
        init: the solver, classical or fitted, with calls at increasing times before the end.
        schedule: the network's schedule, ``CondOT()`` by default.
        base: the method to follow, one of :data:`fewstep.classical.METHODS` with one call per step.

    Raises:
        ValueError: when two calls of the solver share a time, or ``base`` has no table of velocities with
            finite numbers on them.
    """

    name: ClassVar[str] = "following"
    citation: ClassVar[tuple[str, ...]] = Timesteps.citation

    def __init__(self, init: Solver, schedule: Schedule | None = None, base: str = "deis3") -> None:
        self.init, self.start = init, f"the given {init.name}"
        self.nfe, self.points, self.end = init.nfe, init.points, init.end
        start = init.to("velocity", schedule).table.unroll()
        grid = [*start.times.tolist(), init.end]
        if any(late <= early for early, late in zip(grid, grid[1:], strict=False)):
            raise ValueError(
                f"Following: the calls of init {init.name!r} are at {grid[:-1]}, but must increase strictly "
                f"up to the end at {init.end:g}; pass it to NonStationary itself, which keeps coefficients."
            )
        self.moving = Timesteps(base, init.nfe, schedule, grid=grid, decoupled=True)
        self.size = self.moving.size
        self._start, self._base = start, self._moved(torch.zeros(self.size, dtype=torch.float64))

    def table(self, theta: Tensor) -> Table:
        (times, a, b), base, init = self._moved(theta), self._base, self._start
        return Table.from_reduced(Reduced(times, init.a + (a - base.a), init.b + (b - base.b)))

    def point_times(self, theta: Tensor) -> Tensor:
        return self.moving.grid(theta)[list(self.points)]

    def _moved(self, theta: Tensor) -> Reduced:
        return self.moving.table(theta).unroll()

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {"init": self.init.name, **self.moving.describe(theta)}
