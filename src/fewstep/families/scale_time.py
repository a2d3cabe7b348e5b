"""Scale-time (bespoke) solvers: a Runge-Kutta method on a path that is scaled and re-timed.

Shaul et al., *Bespoke Solvers for Generative Flow Models* (ICLR 2024), section 2. On the path
``xbar(r) = s_r x(t_r)`` the velocity is ``ubar_r(xbar) = (s'_r / s_r) xbar + t'_r s_r u(xbar / s_r, t_r)``.
A Runge-Kutta step of ``ubar``, written for the states ``x = xbar / s`` that the network sees, is

    x_k = [ s_i x_i + h sum_l a_kl (s'_l x_l + t'_l s_l u_l) ] / s_k,        u_l = u(x_l, t_l),

for every stage ``k`` and, with ``b`` in place of ``a``, for the next point. The numbers
``t, t', s, s'`` at the points and stages are free: t increases from 0 to 1, ``t', s > 0``, ``s_0 = 1``.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .._table import Table
from ..classical.grids import uniform
from ..classical.runge_kutta import TABLEAUX, ButcherTableau, runge_kutta_table
from ._family import Family, padded, warped
from ._transformed import ScaleTimeNodes, transformed

__all__ = ["ScaleTime", "ScaleTimeNodes"]


class ScaleTime(Family):
    """Scale-time solvers on a Runge-Kutta method over ``steps`` uniform steps in r.

    Args:
        base: the method, a name in ``classical.TABLEAUX`` or a tableau.
        steps: number of steps.
        train: ``"both"``, or only ``"time"`` (s = 1) or only ``"scale"`` (t = r), the ablations
            of the paper's Figure 15.

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
        if isinstance(base, str) and base not in TABLEAUX:
            raise ValueError(f"ScaleTime: base must be one of {', '.join(TABLEAUX)}, not {base!r}.")
        if train not in ("both", "time", "scale"):
            raise ValueError(f"ScaleTime: train must be 'both', 'time' or 'scale', not {train!r}.")
        self.base = TABLEAUX[base] if isinstance(base, str) else base
        self.steps = steps
        self.train = train
        self.nfe = steps * self.base.stages
        self.points = tuple(range(0, self.nfe + 1, self.base.stages))
        self.r = torch.tensor(uniform(steps), dtype=torch.float64)
        # Stages that sit at the same r share their node: c = 1 is the next point.
        within = sorted({c % 1 for c in self.base.c})
        node = {i + c: k for k, (i, c) in enumerate((i, c) for i in range(steps) for c in within)}
        node[Fraction(steps)] = len(node)
        # The first stage of the first step is x_0; from then on a step adds its other stages and its end.
        self._node = [0] + [node[i + c] for i in range(steps) for c in (*self.base.c[1:], Fraction(1))]
        self._base, _ = runge_kutta_table(self.base, self.r)
        h = self.r.diff()
        self._grid = torch.stack(
            [self.r[i] + float(c) * h[i] for i in range(steps) for c in within] + [self.r[-1]]
        )
        K = len(self._grid) - 1
        called = {i + c for i in range(steps) for c in self.base.c}
        slopes = K + (Fraction(steps) in called)
        self._sizes = {"t": K - 1, "dt": slopes, "s": K, "ds": slopes}
        if train != "both":
            free = ("t", "dt") if train == "time" else ("s", "ds")
            self._sizes = {key: size if key in free else 0 for key, size in self._sizes.items()}
        self.size = sum(self._sizes.values())

    def nodes(self, theta: Tensor) -> ScaleTimeNodes:
        """The functions t, t', s, s' at the nodes."""
        t, dt, s, ds = (padded(part, len(self._grid)) for part in theta.split(list(self._sizes.values())))
        return ScaleTimeNodes(
            t=warped(self._grid, t[:-1]),
            dt=dt.exp(),
            s=torch.cat([torch.ones(1, dtype=torch.float64), s[:-1].exp()]),
            ds=ds,
        )

    def table(self, theta: Tensor) -> Table:
        return transformed(self._base, self.nodes(theta).at(self._node))

    def describe(self, theta: Tensor) -> dict[str, Any]:
        nodes = self.nodes(theta)
        return {
            "base": self.base.name,
            "steps": self.steps,
            "train": self.train,
            "theta": theta.tolist(),
            **{key: value.tolist() for key, value in nodes._asdict().items()},
        }
