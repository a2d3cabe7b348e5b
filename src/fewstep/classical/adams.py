"""Adams-Bashforth methods on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .._builder import TableBuilder
from ._draft import Draft, check_order, solver
from ._grids import resolve
from .runge_kutta import TABLEAUX, add_step

__all__ = ["adams_bashforth"]


@solver
def adams_bashforth(
    order: int,
    steps: int | None = None,
    *,
    grid: Sequence[float] | None = None,
    start: Literal["lower_order", "runge_kutta"] = "lower_order",
) -> Draft:
    """Adams-Bashforth: integrate the polynomial through the last ``order`` slopes.

    Args:
        order: 1 to 4.
        steps: number of uniform steps.
        grid: times of the points, instead of ``steps``; steps may differ in length.
        start: method of the first ``order - 1`` steps. With ``"lower_order"`` every step costs one call, as
            is usual for diffusion models, and the first step limits the order of convergence to 2. With
            ``"runge_kutta"`` they cost two calls each (order 2) or four (orders 3 and 4) and the order is
            the nominal one.

    Raises:
        ValueError: on an unknown order or start.
    """
    check_order("adams_bashforth", order, 4)
    if start not in ("lower_order", "runge_kutta"):
        raise ValueError(f"adams_bashforth: start must be 'lower_order' or 'runge_kutta', not {start!r}.")
    t = resolve(steps, grid)
    builder = TableBuilder(t[0])
    calls: list[int] = []  # the call at each point so far
    for i in range(len(t) - 1):
        calls.append(builder.last)
        if start == "runge_kutta" and i < order - 1:
            add_step(builder, TABLEAUX["midpoint" if order == 2 else "rk4"], t, i)
            continue
        k = min(order, i + 1)
        weights = lagrange_integrals(t[i + 1 - k : i + 1], t[i], t[i + 1])
        D = dict(zip(calls[-k:], weights, strict=True))
        builder.add(t[i + 1], {builder.last: torch.ones_like(t[0])}, D, point=True)
    return Draft(*builder.finish(), t[-1].item(), f"ab{order}")


def lagrange_integrals(nodes: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the integrals over ``[lower, upper]`` of the Lagrange polynomials of ``nodes``, shape ``(k,)``.

    Gauss-Legendre quadrature with ``k`` points is exact for them.
    """
    x, w = gauss_legendre(len(nodes))
    tau = lower + (upper - lower) * (x + 1) / 2
    return (upper - lower) / 2 * lagrange_polynomials(nodes, tau) @ w


@cache
def gauss_legendre(points: int) -> tuple[Tensor, Tensor]:
    """Return nodes in [-1, 1] and weights of the quadrature that is exact up to degree ``2 points - 1``."""
    x, w = np.polynomial.legendre.leggauss(points)
    return torch.from_numpy(x), torch.from_numpy(w)


def lagrange_polynomials(nodes: Tensor, at: Tensor) -> Tensor:
    """Return the Lagrange polynomials of ``k`` nodes at ``n`` points, shape ``(k, n)``."""
    values = []
    for j in range(len(nodes)):
        others = torch.cat([nodes[:j], nodes[j + 1 :]])
        values.append(((at[:, None] - others) / (nodes[j] - others)).prod(dim=1))
    return torch.stack(values)
