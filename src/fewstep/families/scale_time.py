"""Scale-time (bespoke) solvers: a classical method on a path that is scaled and re-timed.

Shaul et al., *Bespoke Solvers for Generative Flow Models* (ICLR 2024), section 2. On the path
``xbar(r) = s_r x(t_r)`` the velocity is ``ubar_r(xbar) = (s'_r / s_r) xbar + t'_r s_r u(xbar / s_r, t_r)``.
A Runge-Kutta step of ``ubar``, written for the states ``x = xbar / s`` that the network sees, is

    x_k = [ s_i x_i + h sum_l a_kl (s'_l x_l + t'_l s_l u_l) ] / s_k,        u_l = u(x_l, t_l),

for every stage ``k`` and, with ``b`` in place of ``a``, for the next point. The numbers
``t, t', s, s'`` at the points and stages are free: t increases from 0 to 1, ``t', s > 0``, ``s_0 = 1``.
An Adams-Bashforth step sums ``h w_l (s'_l x_l + t'_l s_l u_l)`` over earlier points instead, which have the
numbers of Euler's.

The path may also be shifted, ``xbar(r) = s_r x(t_r) + b_r``, and each channel may have a scale and a shift of
its own. A constant shift changes no step, so ``b_0 = 0``; and where each call has a node of its own, what the
last point's shift adds to the sample ``(xbar_n - b_n) / s_n`` the slope at the last call adds, too, so
``b_n = 0``, and the sample is ``xbar_n / s_n`` as before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .._table import Table
from ..classical.adams import adams_bashforth
from ..classical.runge_kutta import TABLEAUX, ButcherTableau, runge_kutta
from ..solver import Solver
from ._family import Family, checked_channels, padded, warped
from ._transformed import ScaleTimeNodes, ShiftNodes, transformed

__all__ = ["BASES", "ScaleTime", "ScaleTimeNodes", "ShiftNodes"]

#: The methods by name, as functions of the number of steps.
BASES: dict[str, Callable[[int], Solver]] = {
    **{name: partial(runge_kutta, tableau) for name, tableau in TABLEAUX.items()},
    **{f"ab{order}": partial(adams_bashforth, order) for order in (2, 3, 4)},
}


class ScaleTime(Family):
    """Scale-time solvers on a Runge-Kutta or Adams-Bashforth method over ``steps`` uniform steps in r.

    Args:
        base: the method: a name in ``classical.TABLEAUX``, ``"ab2"``, ``"ab3"`` or ``"ab4"``, or a tableau.
        steps: number of steps.
        train: ``"both"``, or only ``"time"`` (s = 1) or only ``"scale"`` (t = r), the ablations
            of the paper's Figure 15.
        offset: whether the path is shifted, too: ``b`` and ``b'`` are free besides.
        channels: how many channels the state has, each of which then has a scale and a shift of its own; by
            default they share them.

    Raises:
        ValueError: on an unknown base, fewer than one step, another ``train``, or fewer than one channel.
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
        *,
        offset: bool = False,
        channels: int | None = None,
    ) -> None:
        if isinstance(base, str) and base not in BASES:
            raise ValueError(f"ScaleTime: base must be one of {', '.join(BASES)}, not {base!r}.")
        if train not in ("both", "time", "scale"):
            raise ValueError(f"ScaleTime: train must be 'both', 'time' or 'scale', not {train!r}.")
        plain = BASES[base](steps) if isinstance(base, str) else runge_kutta(base, steps)
        self.base = base if isinstance(base, str) else base.name
        self.start = self.base
        self.steps = steps
        self.train = train
        self.offset = offset
        self.channels = checked_channels("ScaleTime", channels)
        self.nfe, self.points = plain.nfe, plain.points
        self.stages = self.nfe // steps
        self._base = plain.table
        at = torch.cat([self._base.times, torch.tensor([plain.end], dtype=torch.float64)])
        self.r = at[list(self.points)]
        # States at the same r share their node: stages, and a point with the last stage before it.
        self._grid, node = torch.unique(at, return_inverse=True)
        self._node: list[int] = node.tolist()
        K = len(self._grid) - 1
        slopes = len(set(self._node[:-1]))  # of the nodes at which the network is called
        own = channels or 1
        self._sizes = {"t": K - 1, "dt": slopes, "s": K * own, "ds": slopes * own}
        if train != "both":
            free = ("t", "dt") if train == "time" else ("s", "ds")
            self._sizes = {key: size if key in free else 0 for key, size in self._sizes.items()}
        self._sizes |= {"b": (K - 1) * own * offset, "db": slopes * own * offset}
        self.size = sum(self._sizes.values())

    def nodes(self, theta: Tensor) -> ScaleTimeNodes:
        """The functions t, t', s, s' at the nodes."""
        t, dt, s, ds, _, _ = self._parts(theta)
        return ScaleTimeNodes(
            t=warped(self._grid, t[:-1]),
            dt=dt.exp(),
            s=torch.cat([torch.ones_like(s[:1]), s[:-1].exp()]),
            ds=ds,
        )

    def shift(self, theta: Tensor) -> ShiftNodes | None:
        """The functions b, b' at the nodes, if the path is shifted."""
        b, db = self._parts(theta)[4:]
        return ShiftNodes(b=torch.cat([torch.zeros_like(b[:1]), b[:-1]]), db=db) if self.offset else None

    def _parts(self, theta: Tensor) -> list[Tensor]:
        """The free numbers by node, those of s and b by node and channel; zeros for what is not free."""
        t, dt, *own = theta.split(list(self._sizes.values()))
        if self.channels is not None:
            own = [part.reshape(-1, self.channels) for part in own]
        return [padded(part, len(self._grid)) for part in (t, dt, *own)]

    def table(self, theta: Tensor) -> Table:
        shift = self.shift(theta)
        nodes = self.nodes(theta).at(self._node)
        return transformed(self._base, nodes, None if shift is None else shift.at(self._node))

    def describe(self, theta: Tensor) -> dict[str, Any]:
        shift = self.shift(theta)
        nodes = self.nodes(theta)._asdict() | ({} if shift is None else shift._asdict())
        return {
            "base": self.base,
            "steps": self.steps,
            "train": self.train,
            **({"channels": self.channels} if self.channels else {}),
            "theta": theta.tolist(),
            **{key: value.tolist() for key, value in nodes.items()},
        }
