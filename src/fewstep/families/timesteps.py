"""Learned timesteps: a classical solver of which only the times are fitted.

Tong et al., *Learning to Discretize Denoising Diffusion ODEs* (LD3, ICLR 2025): the coefficients are those
of the classical solver at its current times, and the times passed to the network may differ from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._table import Table
from ..classical._baselines import METHODS, check_method, method_and_grid
from ..schedules import CondOT, Schedule
from ._family import Family, warped

__all__ = ["Timesteps"]

#: No increment of the grid is multiplied by more than ``exp(BOUND)`` or less than ``exp(-BOUND)``, so that
#: the points of a classical solver stay apart.
BOUND = 4.0
#: Largest shift of a time passed to the network, as a share of the gap to its neighbours. Less than a half
#: keeps neighbours in order.
SHARE = 0.45


class Timesteps(Family):
    """A classical solver on a free grid: its coefficients and stages follow the points.

    The increments of the grid are multiplied by ``exp(4 tanh(theta / 4))`` and normalised. With decoupled
    times, call ``j`` passes ``t_j + 0.45 g_j tanh(theta_j)``, clamped to [0, end], to the network, where
    ``g_j`` is the smaller gap from ``t_j`` to its neighbouring times.

    Args:
        base: one of :data:`fewstep.classical.METHODS`, on the uniform grid or, after a slash, one of
            :data:`fewstep.classical.GRIDS`: ``"deis3/cosine"``.
        nfe: number of network calls.
        schedule: the network's schedule, ``CondOT()`` by default.
        grid: initial times of the points, instead of a grid by name.
        decoupled: whether the times passed to the network are also free: LD3's ``xi``.

    Raises:
        ValueError: on an unknown solver or grid, one that cannot make so many calls, or one without a finite
            table of velocities under this schedule.
    """

    name: ClassVar[str] = "timesteps"
    citation: ClassVar[tuple[str, ...]] = (
        "Tong et al., Learning to Discretize Denoising Diffusion ODEs, ICLR 2025, arXiv:2405.15506",
    )

    def __init__(
        self,
        base: str,
        nfe: int,
        schedule: Schedule | None = None,
        *,
        grid: Sequence[float] | None = None,
        decoupled: bool = False,
    ) -> None:
        self.base = base
        self.start = base if grid is None else f"{base} on the given times"
        self.schedule = schedule or CondOT()
        self.decoupled = decoupled
        if grid is None:
            self._method, grid = method_and_grid(base, nfe, self.schedule)
        else:
            check_method(base)
            self._method = METHODS[base]
        start = self._method.on(grid, self.schedule)
        if start.nfe != nfe:
            raise ValueError(
                f"Timesteps: {base!r} makes {start.nfe} calls on the {len(grid) - 1} steps of grid, not "
                f"nfe={nfe}; give as many steps as make {nfe} calls."
            )
        start.check_ode("Timesteps: base")
        start.to("velocity", self.schedule)  # raises if the velocity does not determine its prediction
        self.nfe, self.points, self.end = start.nfe, start.points, start.end
        self._grid = torch.tensor(grid, dtype=torch.float64)
        # Calls at one time, up to rounding, share a rank; the first of each represents them.
        distinct, self._rank = torch.unique(start.table.times.round(decimals=12), return_inverse=True)
        self._first = torch.stack([(self._rank == k).nonzero()[0, 0] for k in range(len(distinct))])
        self._sizes = [len(grid) - 2, nfe if decoupled else 0]
        self.size = sum(self._sizes)

    def grid(self, theta: Tensor) -> Tensor:
        """Return the times of the points, at which the coefficients hold."""
        moves = theta[: self._sizes[0]]
        # The last increment is fixed, as only ratios of increments matter.
        return warped(self._grid, torch.cat([BOUND * torch.tanh(moves / BOUND), moves.new_zeros(1)]))

    def point_times(self, theta: Tensor) -> Tensor:
        return self.grid(theta)

    def table(self, theta: Tensor) -> Table:
        grid = self.grid(theta)
        if not grid.isfinite().all():  # theta is NaN: return NaN, so that the step is rejected
            N = self.nfe
            return Table(theta.sum().expand(N), theta.sum().expand(N, N), theta.sum().expand(N, N))
        draft = self._method.draft(grid, self.schedule)
        table = draft.table.convert(self.schedule, draft.prediction, "velocity")
        return table._replace(times=self._passed(table.times, theta[self._sizes[0] :]))

    def _passed(self, times: Tensor, moves: Tensor) -> Tensor:
        """Return the times passed to the network, given those of the solver."""
        if not self.decoupled:
            return times
        distinct = times[self._first]
        infinity = times.new_tensor([torch.inf])
        rest = self.end - distinct[-1:]
        # If the last call is at the end, as Heun's, no time follows it.
        gaps = torch.cat([infinity, distinct.diff(), torch.where(rest > 0, rest, infinity)])
        room = torch.minimum(gaps[:-1], gaps[1:])[self._rank]
        return (times + SHARE * room * torch.tanh(moves)).clamp(0, self.end)

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {
            "base": self.base,
            "decoupled": self.decoupled,
            "start": self._grid.tolist(),
            "grid": self.grid(theta).tolist(),
            "theta": theta.tolist(),
        }
