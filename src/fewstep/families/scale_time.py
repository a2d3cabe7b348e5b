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
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from .._builder import TableBuilder
from .._table import Table
from ..classical.grids import uniform
from ..classical.runge_kutta import TABLEAUX, ButcherTableau
from ._family import Family, warped

__all__ = ["ScaleTime", "ScaleTimeNodes"]


class ScaleTimeNodes(NamedTuple):
    """The free functions at the nodes, all float64 of shape ``(K,)``; slopes at the last node are unused.

    ``t``: times; ``dt``: their derivatives in r; ``s``: scales; ``ds``: their derivatives in r.
    """

    t: Tensor
    dt: Tensor
    s: Tensor
    ds: Tensor


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
        self._node = {i + c: k for k, (i, c) in enumerate((i, c) for i in range(steps) for c in within)}
        self._node[Fraction(steps)] = len(self._node)
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
        t, dt, s, ds = (_padded(part, len(self._grid)) for part in theta.split(list(self._sizes.values())))
        return ScaleTimeNodes(
            t=warped(self._grid, t[:-1]),
            dt=dt.exp(),
            s=torch.cat([torch.ones(1, dtype=torch.float64), s[:-1].exp()]),
            ds=ds,
        )

    def table(self, theta: Tensor) -> Table:
        t, dt, s, ds = self.nodes(theta)
        builder = TableBuilder(t[0])
        for i in range(self.steps):
            h, start = self.r[i + 1] - self.r[i], builder.last
            node = [self._node[i + c] for c in (*self.base.c, Fraction(1))]
            for k, weights in enumerate((*self.base.a[1:], self.base.b), start=1):
                s_k = s[node[k]]
                C, D = {start: s[node[0]] / s_k}, {}
                for l, weight in enumerate(weights):
                    if weight:
                        n, step = node[l], h * float(weight)
                        C[start + l] = C.get(start + l, 0) + step * ds[n] / s_k
                        D[start + l] = step * dt[n] * s[n] / s_k
                builder.add(t[node[k]], C, D, point=k == self.base.stages)
        return builder.finish()[0]

    def describe(self, theta: Tensor) -> dict[str, Any]:
        nodes = self.nodes(theta)
        return {
            "base": self.base.name,
            "steps": self.steps,
            "train": self.train,
            "theta": theta.tolist(),
            **{key: value.tolist() for key, value in nodes._asdict().items()},
        }


def _padded(part: Tensor, size: int) -> Tensor:
    return torch.cat([part, part.new_zeros(size - len(part))])
