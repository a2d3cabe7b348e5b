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
from ._family import Family, checked_channels, warped
from ._remembered import Remembered

__all__ = ["NonStationary"]


class NonStationary(Family):
    """Corrections to the reduced form of any solver, or of the solvers of another family.

    ``a = a_init + delta_a / n``, ``b = b_init + delta_b / n``. Around a solver, its coefficients are
    constant and its times have their increments multiplied by positive numbers. Around a family, such as
    ``Timesteps("deis3/cosine", 8, schedule)``, ``a_init``, ``b_init`` and the times are those of the family
    at its own parameters, so that moving a time moves the coefficients with it, and the corrections stay
    small; Generalized Solvers (2025, arXiv:2510.17699) are corrections to DPM-Solver++(3M) in this way.

    With offsets, ``x_i = a_i x_0 + sum_j b_ij u_j + e_i`` with ``e = e_init + delta_e / n``, which serves
    where data has another mean than noise. With channels each of them has corrections of its own.

    Args:
        init: the solver to start from, classical or fitted, or the family; its ``nfe`` is kept.
        schedule: the network's schedule, needed only where ``init`` is a table of other predictions
            than velocities and names none.
        offset: whether the offsets are free, too: ``n`` numbers more.
        channels: how many channels the state has, each of which then has corrections of its own; by
            default they share them.

    Raises:
        ValueError: on fewer than one channel, or others than those of ``init``.
    """

    name: ClassVar[str] = "non_stationary"
    citation: ClassVar[tuple[str, ...]] = (
        "Shaul et al., Bespoke Non-Stationary Solvers for Fast Sampling of Diffusion and Flow Models, "
        "ICML 2024, arXiv:2403.01329",
    )

    def __init__(
        self,
        init: Solver | Family,
        schedule: Schedule | None = None,
        *,
        offset: bool = False,
        channels: int | None = None,
    ) -> None:
        if checked_channels("NonStationary", channels) is not None and init.channels not in (None, channels):
            raise ValueError(
                f"NonStationary: channels={channels}, but init has {init.channels} channels; pass "
                f"channels={init.channels}, or another init."
            )
        self.anchor = init if isinstance(init, Family) else _Retimed(init, schedule)
        self.offset = offset
        self.channels = channels or init.channels
        self._own = channels or 1
        self.nfe, self.points, self.end = init.nfe, init.points, init.end
        self.start = self.anchor.start
        self._lower = torch.tril_indices(self.nfe, self.nfe)
        numbers = (self.nfe, self.nfe * (self.nfe + 1) // 2, self.nfe * offset)
        self._sizes = [self.anchor.size, *(self._own * count for count in numbers)]
        self.size = sum(self._sizes)
        self._anchored = Remembered(lambda theta: self.anchor.table(theta).unroll())

    def reduced(self, theta: Tensor) -> Reduced:
        """The reduced form of ``theta``."""
        anchor, *corrections = theta.split(self._sizes)
        start = self._anchored(anchor)
        if self.channels is not None:
            start = start.over(self.channels)
            corrections = [part.reshape(-1, self._own).expand(-1, self.channels) for part in corrections]
        a, b, e = (part / self.nfe for part in corrections)
        delta = torch.zeros_like(start.b).index_put(tuple(self._lower), b)
        return Reduced(start.times, start.a + a, start.b + delta, start.e + e if self.offset else start.e)

    def table(self, theta: Tensor) -> Table:
        return Table.from_reduced(self.reduced(theta))

    def point_times(self, theta: Tensor) -> Tensor:
        return self.anchor.point_times(theta[: self.anchor.size])

    def describe(self, theta: Tensor) -> dict[str, Any]:
        free: dict[str, Any] = {"offset": True} if self.offset else {}
        free |= {"channels": self._own} if self._own > 1 else {}
        return {**self.anchor.describe(theta[: self.anchor.size]), **free, "theta": theta.tolist()}


class _Retimed(Family):
    """A solver whose times move while its coefficients stay."""

    name: ClassVar[str] = "retimed"

    def __init__(self, init: Solver, schedule: Schedule | None) -> None:
        self.init = init
        self.start = init.name
        self.nfe, self.points, self.end = init.nfe, init.points, init.end
        self._start = init.to("velocity", schedule).table
        self._grid = torch.cat([self._start.times, torch.tensor([init.end], dtype=torch.float64)])
        self.size = self.nfe - 1

    def table(self, theta: Tensor) -> Table:
        # The last increment stays, as only ratios of increments count.
        return self._start._replace(times=warped(self._grid, torch.cat([theta, theta.new_zeros(1)]))[:-1])

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {"init": self.init.name}
