"""Problems that a table solves exactly: straight paths, polynomials in time, the linear test equation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._predictions import in_data_and_noise
from .._table import Table
from ..solver import Solver

__all__ = ["Exactness", "exactness"]

#: Relative error or growth that counts as rounding.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Exactness:
    """Residuals of a table on problems that a consistent one solves exactly.

    Attributes:
        residuals: errors of the states ``x_1 .. x_N`` on two problems. For a table of velocities that is
            bound to no schedule, ``"constant"`` is ``a_i - 1`` (the velocity 0) and ``"slope"`` is
            ``sum_j b_ij - (t_i - t_0)`` (the velocity 1), in the reduced form. For a table bound to a
            schedule they are the errors in the weights of ``"noise"`` and ``"data"`` on the path
            ``alpha data + sigma noise``, which is the exact one where all data is one point.
        consistent: whether the states follow the first problem, and the sample both.
        quadrature_degree: the sample is exact when the velocity is a polynomial in time of this degree or
            less, and independent of the state; -1 when not even a constant. ``None`` where the table has no
            form for velocities.
        linear_order: ``R(mu)``, the sample of ``dx/dt = mu x``, agrees with ``exp(mu)`` to this power of
            ``mu``; -1 when not even at ``mu = 0``.
    """

    residuals: dict[str, tuple[float, ...]]
    consistent: bool
    quadrature_degree: int | None
    linear_order: int | None

    @property
    def worst_row(self) -> int:
        """Index of the state with the largest residual."""
        rows = zip(*self.residuals.values(), strict=True)
        size = [max(math.inf if math.isnan(r) else abs(r) for r in row) for row in rows]
        return 1 + size.index(max(size))


def exactness(solver: Solver, velocities: Table | None) -> Exactness:
    """Return the residuals of ``solver``; ``velocities`` is its table for velocities, if it has one."""
    residuals = _residuals(solver)
    first, second = residuals
    scale = max(1.0, float(solver.table.unroll().b.abs().sum(dim=1).max()))
    return Exactness(
        residuals={key: tuple(row.tolist()) for key, row in residuals.items()},
        consistent=_small(residuals[first], scale) and _small(residuals[second][-1], scale),
        quadrature_degree=None if velocities is None else _quadrature_degree(velocities, solver.end),
        linear_order=None if velocities is None else _linear_order(velocities, solver.end),
    )


def _small(residual: Tensor, scale: float) -> bool:
    return bool((residual.abs() <= ROUNDING * scale).all())  # NaN is not small


def _residuals(solver: Solver) -> dict[str, Tensor]:
    times, a, b = solver.table.unroll()
    at = torch.cat([times[1:], times.new_tensor([solver.end])])
    if solver.schedule is None:
        return {"constant": a - 1, "slope": b.sum(dim=1) - (at - times[0])}
    read = (b != 0).any(dim=0)  # leave out unread calls, to avoid 0 * infinity
    data, noise = (
        torch.where(read, p, 0) for p in in_data_and_noise(solver.schedule(times), solver.prediction)
    )
    alpha, sigma = solver.schedule(at)[:2]
    alpha_0, sigma_0 = solver.schedule(times[0])[:2]
    return {"noise": a * sigma_0 + b @ noise - sigma, "data": a * alpha_0 + b @ data - alpha}


def _quadrature_degree(table: Table, end: float) -> int:
    """Test Legendre polynomials, whose integrals over the path are its length, 0, 0, 0, ..."""
    times, _, b = table.unroll()
    length = end - times[0]
    x = 2 * (times - times[0]) / length - 1
    previous, current, degree = torch.zeros_like(x), torch.ones_like(x), -1
    while degree < 2 * len(x):
        exact = length if degree == -1 else 0.0
        if abs(b[-1] @ current - exact) > ROUNDING * b[-1].abs().sum():
            break
        degree += 1
        previous, current = current, ((2 * degree + 1) * x * current - degree * previous) / (degree + 1)
    return degree


def _linear_order(table: Table, end: float) -> int:
    """Compare ``R`` as a polynomial; multiplication by ``mu`` shifts its coefficients by one."""
    N = len(table.times)
    powers = torch.eye(N + 1, dtype=torch.float64)
    for i, (c, d) in enumerate(zip(table.C, table.D, strict=True), start=1):
        powers[i] = c[:i] @ powers[:i] + (d[:i] @ powers[:i]).roll(1)
    k = torch.arange(N + 1, dtype=torch.float64)
    exact = ((end - table.times[0]).log() * k - torch.lgamma(k + 1)).exp()
    wrong = (powers[-1] - exact).abs() > ROUNDING * exact
    return int(wrong.double().argmax()) - 1 if bool(wrong.any()) else N
