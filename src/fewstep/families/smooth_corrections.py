"""Smooth corrections to a classical solver: one theta for every number of calls.

A non-stationary solver fitted for ``n`` calls is a classical one at its own times, with a correction to every
coefficient (see :mod:`.non_stationary`), which are of no use for another number of calls. Here the times and
the corrections are functions of ``r = i / n``, which give those of any ``n``. With ``h = 4 / n``,

* the increment of the classical grid from ``r_i`` to ``r_{i+1}`` is multiplied by ``exp(m(r_{i+1/2}))``, up
  to normalisation, and the time passed to the network at call ``i`` is shifted, by ``h tau(r_i)`` as in
  :class:`.Timesteps`;
* to the step from ``x_i``, whose coefficients are the classical solver's at these times,

      1/n [ h^2 c(r_i) x_i + h^2 g_0(r_i) u_i + h g_1(r_i) nabla u_i + g_2(r_i) nabla^2 u_i + ... ]

  is added, with backward differences of the velocities, of which linear multistep methods are sums;
* the first steps, which have fewer earlier calls, have their own weights ``h b_ij / n`` of ``u_j``.

``m, tau, c, g_k`` are Bernstein polynomials. Every solver converges with order 2 if the classical one does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from .. import schedules
from .._table import Table
from ..classical._baselines import METHODS, check_method
from ..schedules import CondOT, Schedule
from ..solver import Solver
from ._family import Family, Linked, remembered, series
from .non_stationary import NonStationary
from .timesteps import Timesteps

__all__ = ["SmoothCorrections", "bernstein"]

#: A solver with so many calls weighs the terms of theta alike.
UNIT = 4
#: Terms of the series in ``1 / n``.
TERMS = 4
#: Most of each of them: sizes of dense tables.
_MOST = 100
_COUNTS = {"degree": 1, "terms": 1, "differences": 0, "startup": 0}


class SmoothCorrections:
    """Functions of ``r`` that correct a classical solver with any number of calls.

    ``theta`` is a float64 vector of ``size`` numbers; at zero every solver is the classical one. It is a
    series in ``1 / n``: the functions for ``n`` calls are those of ``theta_0 + theta_1 (4 / n) + ...``.

    Args:
        base: one of :data:`fewstep.classical.METHODS` with one call per step, on the uniform grid or, after a
            slash, one of :data:`fewstep.classical.GRIDS`.
        schedule: the network's schedule, ``CondOT()`` by default.
        degree: degree of the polynomials, at least 1.
        terms: terms of the series in ``1 / n``, at least 1.
        differences: the highest backward difference with a weight.
        startup: number of first steps with their own weights.

    Raises:
        ValueError: on an unknown base, one with several calls per step, or a count that is too small.
    """

    name: ClassVar[str] = "smooth_corrections"
    citation: ClassVar[tuple[str, ...]] = NonStationary.citation
    #: Calls per step of the base.
    stages: ClassVar[int] = 1

    def __init__(
        self,
        base: str = "deis3/cosine",
        schedule: Schedule | None = None,
        degree: int = 7,
        terms: int = TERMS,
        differences: int = 4,
        startup: int = 4,
    ) -> None:
        check_method(base.partition("/")[0])
        if METHODS[base.partition("/")[0]].stages > 1:
            raise ValueError(
                f"SmoothCorrections: base {base!r} makes several calls a step, which leaves no smooth "
                "differences; take 'deis3/cosine' or 'ab2'."
            )
        counts = {"degree": degree, "terms": terms, "differences": differences, "startup": startup}
        for label, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or not _COUNTS[label] <= value <= _MOST:
                raise ValueError(
                    f"SmoothCorrections: {label} must be a whole number from {_COUNTS[label]} to {_MOST}, "
                    f"not {value!r:.60}."
                )
        self.base, self.schedule, self.degree, self.terms = base, schedule or CondOT(), degree, terms
        self.differences, self.startup = differences, startup
        # Only ratios of increments matter, so m(1) = 0.
        K = degree + 1
        self.sizes = [degree, K, K, K * (differences + 1), startup * (startup + 1) // 2]
        self.size = terms * sum(self.sizes)

    def link(self, nfe: int) -> Tensor:
        """Return the matrix that maps theta to ``theta_0 + theta_1 (4 / n) + ...``."""
        return series((UNIT / nfe) ** torch.arange(self.terms, dtype=torch.float64), sum(self.sizes))

    def member(self, nfe: int | None = None, guidance: float | None = None) -> Linked:
        """Return the solvers with ``nfe`` calls, linked to this theta; they serve any guidance scale.

        Raises:
            ValueError: when the base cannot make exactly ``nfe`` calls.
        """
        if nfe is None:
            raise ValueError("SmoothCorrections: has solvers of any number of calls; say which, as nfe=8.")
        return Linked(_Corrected(self, nfe), self.link(nfe))

    def solver(self, theta: Tensor, nfe: int, **facts: Any) -> Solver:
        """Return the solver with ``nfe`` calls, with further facts for its file."""
        return self.member(nfe).solver(theta, **facts)

    def describe(self) -> dict[str, Any]:
        """Return the arguments of the family, JSON-ready."""
        counts = {label: getattr(self, label) for label in _COUNTS}
        return {"base": self.base, "schedule": self.schedule.to_dict(), **counts}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> SmoothCorrections:
        """Return the family described by :meth:`describe`."""
        return cls(**{**facts, "schedule": schedules.from_dict(facts["schedule"])})


class _Corrected(Family):
    """The solvers with ``nfe`` calls, from the functions for this ``nfe``."""

    name: ClassVar[str] = SmoothCorrections.name
    citation: ClassVar[tuple[str, ...]] = SmoothCorrections.citation

    def __init__(self, smooth: SmoothCorrections, nfe: int) -> None:
        self.smooth, self.size, self.start = smooth, sum(smooth.sizes), smooth.base
        self.anchor = Timesteps(smooth.base, nfe, smooth.schedule, decoupled=True)
        self._anchored = remembered(self.anchor.table)
        self.nfe, self.points, self.end = nfe, self.anchor.points, self.anchor.end
        h, r = UNIT / nfe, torch.arange(nfe).double() / nfe
        self._values = bernstein(smooth.degree, r)
        between = bernstein(smooth.degree, r + 0.5 / nfe)[:, :-1]
        self._increments = (between - between[-1])[:-1]
        orders = torch.tensor([max(0, 2 - k) for k in range(smooth.differences + 1)])
        self._nabla = h ** orders[:, None, None] / nfe * _differences(nfe, smooth.differences)
        self._first = torch.tril_indices(smooth.startup, smooth.startup)
        self._made = self._first[0] < nfe

    def table(self, theta: Tensor) -> Table:
        n, h = self.nfe, UNIT / self.nfe
        m, tau, c, g, b = theta.split(self.smooth.sizes)
        start = self._anchored(torch.cat([self._increments @ m, h * self._values @ tau]))
        weights = self._values @ g.reshape(len(self._nabla), -1).T
        D = start.D + torch.einsum("ik,kij->ij", weights, self._nabla)
        first = tuple(self._first[:, self._made])
        return start._replace(
            C=start.C + torch.diag(h**2 / n * self._values @ c),
            D=D.index_put(first, h / n * b[self._made], accumulate=True),
        )

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {**self.smooth.describe(), "terms": 1, "theta": theta.tolist()}


def _differences(nfe: int, highest: int) -> Tensor:
    """Return ``nabla^k`` at every step, as matrices that act on the velocities of all steps.

    A difference of order ``k`` needs ``k`` earlier calls, and is zero without them.

    Returns:
        Shape ``(highest + 1, nfe, nfe)``.
    """
    nabla = [torch.eye(nfe, dtype=torch.float64)]
    for _ in range(highest):
        nabla.append(torch.cat([nabla[-1][:1], nabla[-1].diff(dim=0)]))
    known = torch.arange(nfe) >= torch.arange(highest + 1)[:, None]
    return known[:, :, None] * torch.stack(nabla)


def bernstein(degree: int, r: Tensor) -> Tensor:
    """Return the Bernstein polynomials of a degree at ``n`` points, shape ``(n, degree + 1)``."""
    k = torch.arange(degree + 1)
    binomial = torch.tensor([math.comb(degree, i) for i in range(degree + 1)], dtype=r.dtype)
    return binomial * r[:, None] ** k * (1 - r[:, None]) ** (degree - k)
