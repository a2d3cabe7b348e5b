"""Scale-time (bespoke) solvers: a classical method on a path that is scaled and re-timed.

Shaul et al., *Bespoke Solvers for Generative Flow Models* (ICLR 2024), section 2. On the path
``xbar(r) = s_r x(t_r)`` the velocity is ``ubar_r(xbar) = (s'_r / s_r) xbar + t'_r s_r u(xbar / s_r, t_r)``.
A Runge-Kutta step of ``ubar``, written for the states ``x = xbar / s`` that the network sees, is

    x_k = [ s_i x_i + h sum_l a_kl (s'_l x_l + t'_l s_l u_l) ] / s_k,        u_l = u(x_l, t_l),

for every stage ``k`` and, with ``b`` in place of ``a``, for the next point. The numbers
``t, t', s, s'`` at the points and stages are free: t increases from 0 to 1, ``t', s > 0``, ``s_0 = 1``.
An Adams-Bashforth step sums ``h w_l (s'_l x_l + t'_l s_l u_l)`` over earlier points instead, which have the
numbers of Euler's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from .._names import check_name
from .._table import Table
from ..classical.adams import adams_bashforth
from ..classical.runge_kutta import TABLEAUX, ButcherTableau, runge_kutta
from ..solver import Solver
from ._family import Family, warped

__all__ = ["BASES", "ScaleTime", "ScaleTimeNodes"]

#: The methods by name, as functions of the number of steps.
BASES: dict[str, Callable[[int], Solver]] = {
    **{name: partial(runge_kutta, tableau) for name, tableau in TABLEAUX.items()},
    **{f"ab{order}": partial(adams_bashforth, order) for order in (2, 3, 4)},
}


class ScaleTimeNodes(NamedTuple):
    """The functions of a scale-time transform at its nodes, float64 of shape ``(K,)``.

    ``t``: times; ``dt``: their derivatives in r; ``s``: scales; ``ds``: their derivatives in r. No network
    call is made at the last node, whose slopes are unused there.
    """

    t: Tensor
    dt: Tensor
    s: Tensor
    ds: Tensor


class ScaleTime(Family):
    """Scale-time solvers on a Runge-Kutta or Adams-Bashforth method over ``steps`` uniform steps in r.

    Args:
        base: the method: a name in ``classical.TABLEAUX``, ``"ab2"``, ``"ab3"`` or ``"ab4"``, or a tableau.
        steps: number of steps.
        train: ``"both"``, or only ``"time"`` (s = 1) or only ``"scale"`` (t = r), the ablations
            of the paper's Appendix K.2.

    Raises:
        ValueError: on an unknown base, fewer than one step, or another ``train``.
    """

    name: ClassVar[str] = "scale_time"
    citation: ClassVar[tuple[str, ...]] = (
        "Shaul et al., Bespoke Solvers for Generative Flow Models, ICLR 2024, arXiv:2310.19075",
    )

    def __init__(
        self,
        base: str | ButcherTableau = "midpoint",
        steps: int = 4,
        train: Literal["both", "time", "scale"] = "both",
    ) -> None:
        if not isinstance(base, ButcherTableau):
            check_name("ScaleTime: base", base, BASES)
        check_name("ScaleTime: train", train, ("both", "time", "scale"))
        plain = BASES[base](steps) if isinstance(base, str) else runge_kutta(base, steps)
        self.base = base if isinstance(base, str) else base.name
        self.start = self.base
        self.steps = steps
        self.train = train
        self.nfe, self.points = plain.nfe, plain.points
        self.stages = self.nfe // steps
        self._base = plain.table
        at = torch.cat([self._base.times, torch.tensor([plain.end], dtype=torch.float64)])
        self.r = at[list(self.points)]
        # States at the same r share a node: stages, or a point and the last stage before it.
        self._grid, node = torch.unique(at, return_inverse=True)
        self._node: list[int] = node.tolist()
        K = len(self._grid) - 1
        slopes = len(set(self._node[:-1]))  # at the nodes of network calls
        self._sizes = {"t": K - 1, "dt": slopes, "s": K, "ds": slopes}
        if train != "both":
            free = ("t", "dt") if train == "time" else ("s", "ds")
            self._sizes = {key: size if key in free else 0 for key, size in self._sizes.items()}
        self.size = sum(self._sizes.values())

    def nodes(self, theta: Tensor) -> ScaleTimeNodes:
        """Return the functions t, t', s, s' at the nodes."""
        parts = theta.split(list(self._sizes.values()))
        K = len(self._grid)
        t, dt, s, ds = (torch.cat([part, part.new_zeros(K - len(part))]) for part in parts)  # zeros if fixed
        return ScaleTimeNodes(
            t=warped(self._grid, t[:-1]),
            dt=dt.exp(),
            s=torch.cat([torch.ones_like(s[:1]), s[:-1].exp()]),
            ds=ds,
        )

    def table(self, theta: Tensor) -> Table:
        """Return the table of velocities with the steps of the base on ``xbar(r) = s(r) x(t(r))``.

        The base reads states ``xbar_j = s_j x_j`` and velocities ``ubar_j = s'_j x_j + t'_j s_j u_j``, so
        that with its ``C`` and ``D``

            x_i = sum_j (C_ij s_j + D_ij s'_j) / s_i x_j + D_ij t'_j s_j / s_i u_j .
        """
        base = self._base
        t, dt, s, ds = (value[self._node] for value in self.nodes(theta))
        here, after = s[:-1], s[1:, None]
        C, D = (base.C * here + base.D * ds[:-1]) / after, base.D * dt[:-1] * here / after
        return Table(t[:-1], C, D)

    def describe(self, theta: Tensor) -> dict[str, Any]:
        return {
            "base": self.base,
            "steps": self.steps,
            "train": self.train,
            "theta": theta.tolist(),
            "r": self._grid.tolist(),
            **{key: value.tolist() for key, value in self.nodes(theta)._asdict().items()},
        }
