"""Linear stability, and the propagation of errors to the sample."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._table import Table
from ..solver import Solver
from .exactness import ROUNDING

__all__ = ["RATES", "ErrorGrowth", "Stability", "error_growth", "stability"]

#: The tabulated rates ``mu`` of the test equation.
RATES = (-1.0, -4.0, -16.0, -64.0)


@dataclass(frozen=True)
class Stability:
    """The table on the test equation ``dx/dt = mu x``, whose solution is ``exp(mu t)``.

    Attributes:
        rates: the rates ``mu``.
        times: times of the trajectory points.
        amplification: a row for each rate: ``R_i(mu) = x_i / x_0`` at the trajectory points.
        exact: likewise, ``exp(mu (t_i - t_0))``.
        real_limit: largest ``z`` such that for every ``mu`` in ``[-z, 0]`` no trajectory point is larger than
            ``x_0``, or than it is at ``mu = 0`` if the table itself scales the state. ``None`` without limit.
        growth: a row for rate 0 and then for each rate: ``|d x_N / d x_j|``, the gain in the sample of an
            error in ``x_j``, ``j = 0 .. N``.
    """

    rates: tuple[float, ...]
    times: tuple[float, ...]
    amplification: tuple[tuple[float, ...], ...]
    exact: tuple[tuple[float, ...], ...]
    real_limit: float | None
    growth: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class ErrorGrowth:
    """Propagation of errors in the table's predictions to the sample.

    Attributes:
        noise_gain: ``|b_Nj|``, the weight of call ``j`` in the sample in reduced form, which multiplies the
            network's error there.
        total: their sum, the largest error of the sample for network errors of at most one. For velocities it
            is the length of the path, 1, if no weight is negative.
        cancellation: ``total`` over ``|sum_j b_Nj|``; 1 if all weights have the same sign, ``None`` if their
            sum is zero.
        largest_coefficient: largest magnitude in C and D, which amplifies rounding of a state or prediction.
    """

    noise_gain: tuple[float, ...]
    total: float
    cancellation: float | None
    largest_coefficient: float


def error_growth(solver: Solver) -> ErrorGrowth:
    """Return the error growth of ``solver`` in its own predictions."""
    weights, table = solver.table.unroll().b[-1], solver.table
    total, net = float(weights.abs().sum()), abs(float(weights.sum()))
    return ErrorGrowth(
        tuple(weights.abs().tolist()),
        total,
        total / net if net > ROUNDING * total else None,
        float(torch.maximum(table.C.abs(), table.D.abs()).max()),
    )


def stability(velocities: Table, points: tuple[int, ...], end: float) -> Stability:
    """Return the linear stability of a table for velocities at its trajectory points."""
    times = (*velocities.times.tolist(), end)
    at = tuple(times[i] for i in points)
    mu = torch.tensor(RATES, dtype=torch.float64)
    return Stability(
        rates=RATES,
        times=at,
        amplification=_rows(amplification(velocities, mu)[list(points)].T),
        exact=tuple(tuple(math.exp(rate * (t - at[0])) for t in at) for rate in RATES),
        real_limit=_real_limit(velocities, list(points)),
        growth=_rows(_sensitivity(velocities, torch.cat([mu.new_zeros(1), mu])).abs().T),
    )


def amplification(table: Table, mu: Tensor) -> Tensor:
    """Return ``R_i(mu)`` of every state, ``(N + 1, M)`` for ``M`` rates."""
    states = torch.ones(len(table.times) + 1, len(mu), dtype=mu.dtype)
    for i, (c, d) in enumerate(zip(table.C, table.D, strict=True), start=1):
        states[i] = c[:i] @ states[:i] + mu * (d[:i] @ states[:i])
    return states


def _sensitivity(table: Table, mu: Tensor) -> Tensor:
    """Return ``d x_N / d x_j``, ``(N + 1, M)``, by running the table backwards."""
    N = len(table.times)
    gains = torch.ones(N + 1, len(mu), dtype=mu.dtype)
    for j in reversed(range(N)):  # rows j .. N - 1 read x_j, and make x_{j+1} .. x_N
        gains[j] = table.C[j:, j] @ gains[j + 1 :] + mu * (table.D[j:, j] @ gains[j + 1 :])
    return gains


def _real_limit(table: Table, points: list[int]) -> float | None:
    """Return the first rate at which a point grows, found by a scan and bisection.

    No consistent polynomial of degree N stays bounded beyond ``2 N^2``, which the Chebyshev polynomial
    attains; the scan is finest where usual tables have their limit.
    """
    N = len(table.times)
    bound = amplification(table, table.times.new_zeros(1))[points].abs().clamp(min=1) * (1 + ROUNDING)
    fine, far = torch.linspace(0, 3 * N, 2001), torch.logspace(math.log10(3 * N), math.log10(4 * N**2), 500)
    z = torch.cat([fine, far]).double()

    def stable(rates: Tensor) -> Tensor:
        return (amplification(table, -rates)[points].abs() <= bound).all(dim=0)

    grows = ~stable(z)
    if not bool(grows.any()):
        return None
    k = int(grows.double().argmax())
    low, high = z[max(k - 1, 0)], z[k]
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if bool(stable(middle[None])) else (low, middle)
    return float(low)


def _rows(matrix: Tensor) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())
