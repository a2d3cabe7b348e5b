"""DEIS and iPNDM: Adams-Bashforth on the noise prediction, with the linear part integrated exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..schedules import Schedule
from ._draft import Draft, check_order, solver
from ._exponential_builder import begin_noise, finish, multistep
from .adams import gauss_legendre, lagrange_integrals, lagrange_polynomials

__all__ = ["deis", "ipndm"]


@solver
def deis(
    order: int,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    variable: Literal["time", "log_rho"] = "time",
    lower_order_final: bool = False,
) -> Draft:
    """DEIS (Zhang and Chen 2023), one call per step.

    The noise predictions of the last ``order`` points are extrapolated by a polynomial ``P``:

        ``x' / alpha' = x / alpha + int P d rho``,   ``rho = sigma / alpha``.

    Args:
        order: number of predictions in the polynomial, 1 to 4; the paper's tAB-DEIS of order 0 to 3. The
            first steps have fewer.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        variable: variable of the polynomial: ``"time"`` (the paper's tAB), the time of the schedule, or
            ``"log_rho"``, as in diffusers' ``DEISMultistepScheduler``. For ``rho`` itself (the paper's
            rhoAB), see :func:`~fewstep.classical.lms`.
        lower_order_final: reduce the order to 1 at the end, as diffusers does below 15 steps.

    Raises:
        ValueError: on an unknown order or variable.
    """
    check_order("deis", order, 4)
    if variable not in ("time", "log_rho"):
        raise ValueError(f"deis: variable must be 'time' or 'log_rho', not {variable!r}.")
    builder, t = begin_noise(steps, schedule, grid)

    def add(time: Tensor, calls: list[int]) -> int:
        if variable == "log_rho":
            return builder.step(time, builder.polynomial(time, calls))
        weights = _integrals_over_rho(builder.schedule, t[calls], t[calls[0]], time)
        return builder.sigma_step(time, dict(zip(calls, weights, strict=True)))

    multistep(builder, t, order, add, lower_order_final)
    return finish(builder, t[-1], f"deis{order}")


@solver
def ipndm(
    order: int = 4,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
) -> Draft:
    """Improved pseudo linear multistep (Liu et al. 2022; Zhang and Chen 2023, appendix), one call per step.

    DDIM with a combination of the last noise predictions in place of the noise, with the weights of an
    Adams-Bashforth method with equal steps on every grid: 3/2, -1/2 for order 2. Higher orders are reached
    only where steps are equal in ``sigma / alpha``; those of :func:`lms` hold on every grid.

    Args:
        order: 1 to 4.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.

    Raises:
        ValueError: on an unknown order.
    """
    check_order("ipndm", order, 4)
    builder, t = begin_noise(steps, schedule, grid)

    def add(time: Tensor, calls: list[int]) -> None:
        nodes = -torch.arange(len(calls), dtype=torch.float64)
        equal = lagrange_integrals(nodes, nodes[0], nodes[0] + 1)
        builder.step(time, dict(zip(calls, builder.total(time) * equal, strict=True)))

    multistep(builder, t, order, add)
    return finish(builder, t[-1], "ipndm" if order == 4 else f"ipndm{order}")


def _integrals_over_rho(schedule: Schedule, nodes: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return ``int l_j(t) d rho`` over a step, for the Lagrange polynomials of the times ``nodes``.

    Gauss-Legendre quadrature in ``v = arsinh(rho)``, which behaves as ``rho`` near pure data and as its
    logarithm near pure noise, on a mesh ``z^3`` that is dense near pure data, where time may be a root of
    rho.
    """
    x, w = gauss_legendre(128)
    start, end = (torch.asinh(schedule(time).sigma / schedule(time).alpha) for time in (lower, upper))
    z = (x + 1) / 2
    v, dv = end + (start - end) * z**3, 3 * z**2 * (end - start) * w / 2
    times = schedule.inverse_log_snr(-torch.sinh(v).log())
    return lagrange_polynomials(nodes, times) @ (torch.cosh(v) * dv)
