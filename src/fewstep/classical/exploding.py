"""Solvers in variance-exploding coordinates, ``dy / ds = noise`` with ``y = x / alpha, s = sigma / alpha``.

For every schedule, this is the ODE of Karras et al. (2022) and k-diffusion.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..schedules import Schedule
from ._draft import Draft, check_order, solver
from ._exponential_builder import NoiseBuilder, begin_noise, finish, multistep
from .adams import lagrange_integrals
from .runge_kutta import TABLEAUX, ButcherTableau

__all__ = ["edm_heun", "exploding_runge_kutta", "lms"]


@solver
def exploding_runge_kutta(
    tableau: ButcherTableau,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
) -> Draft:
    """Any explicit Runge-Kutta method for ``dy / ds = noise``.

    A step from pure noise has infinite length and is of order 1, and so is a step to pure data with a
    tableau that calls the network there (``c = 1``): they cost one call each.

    Args:
        tableau: the method; see :class:`ButcherTableau`.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
    """
    builder, t = begin_noise(steps, schedule, grid)
    calls_end = 1 in tableau.c
    for time in t[1:]:
        h = builder.length(time)
        if builder.lambdas[-1].isinf() or (h.isinf() and calls_end):
            builder.ddim(time)
        else:
            _add_step(builder, tableau, time)
    return finish(builder, t[-1], f"exploding_{tableau.name}")


@solver
def edm_heun(
    steps: int | None = None, *, schedule: Schedule | None = None, grid: Sequence[float] | None = None
) -> Draft:
    """Heun's method in sigma (Karras et al. 2022, algorithm 1), with Euler steps to and from infinity.

    Two calls per step, but one in a step to pure data and in a step from pure noise: ``2 n - 1`` calls on
    :class:`~fewstep.schedules.VE`, whose uniform steps are those of the paper's eq. 5 with
    ``sigma_min = 0``; on other schedules, use :func:`~fewstep.classical.grids.karras`.
    """
    draft = exploding_runge_kutta.draft(TABLEAUX["heun"], steps, schedule=schedule, grid=grid)
    return draft._replace(name="edm_heun")


@solver
def lms(
    order: int = 4,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
) -> Draft:
    """Linear multistep: the polynomial in ``sigma / alpha`` through the last noises; one call per step.

    Also known as rhoAB-DEIS (Zhang and Chen 2023) and k-diffusion's ``sample_lms``. It is Adams-Bashforth on
    any grid; a prediction in pure noise, at infinite distance, has no weight.

    Args:
        order: 1 to 4; lower in the first steps.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.

    Raises:
        ValueError: on an unknown order.
    """
    check_order("lms", order, 4)
    builder, t = begin_noise(steps, schedule, grid)

    def add(time: Tensor, calls: list[int]) -> None:
        calls = [j for j in calls if builder.level(j).isfinite()]
        nodes = torch.stack([builder.level(j) for j in calls])
        weights = lagrange_integrals(nodes, nodes[0], builder.level_at(time))
        builder.sigma_step(time, dict(zip(calls, weights, strict=True)))

    multistep(builder, t, order, add)
    return finish(builder, t[-1], f"lms{order}")


def _add_step(builder: NoiseBuilder, tableau: ButcherTableau, time: Tensor) -> None:
    """Append ``y_k = y + H sum_l a_kl noise_l`` at ``s + c_k H``, for every stage and the end."""
    start = builder.last
    s = builder.level(start)
    H = builder.level_at(time) - s
    places = [*tableau.c[1:], 1]
    for k, (c, row) in enumerate(zip(places, (*tableau.a[1:], tableau.b), strict=True), start=1):
        at = time if c == 1 else builder.schedule.inverse_log_snr(-(s + float(c) * H).log())
        weights = {start + l: H * float(w) for l, w in enumerate(row) if w}
        builder.sigma_step(at, weights, start=start, point=k == tableau.stages)
