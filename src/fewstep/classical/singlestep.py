"""Singlestep DPM-Solvers on a grid of calls, as diffusers runs them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

from torch import Tensor

from ..schedules import Schedule
from ._arguments import check_order
from ._draft import Draft, solver
from ._exponential_builder import ExponentialBuilder, begin, finish

__all__ = ["dpm_singlestep"]


@solver
def dpm_singlestep(
    order: int,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    prediction: Literal["data", "noise"] = "data",
    lower_order_final: bool = True,
) -> Draft:
    """Singlestep DPM-Solver++ (data) or DPM-Solver (noise) whose stages lie at the points of the grid.

    Where :func:`dpmpp` and :func:`dpm_solver` put stages between the grid's points, here every point is a
    call, so that ``steps`` is the number of calls, as diffusers' ``DPMSolverSinglestepScheduler`` counts
    and as Lu et al. (2022a, appendix D.3) distribute a given number of them. Steps of ``order`` calls start
    anew; within one, the state at the second point has order 2 and that at the third order 3.

    Args:
        order: 1 to 3.
        steps: number of calls, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times to call at, and the end, instead.
        prediction: which prediction to expand, data or noise.
        lower_order_final: end on a shorter step of order 1 or 2, as diffusers does; needed where the
            calls are no multiple of the order. A call in pure noise, and the last one on the way to pure
            data, make a step of order 1 of their own in any case.

    Raises:
        ValueError: on another order or prediction, or calls that do not divide.
    """
    check_order("dpm_singlestep", order, 3)
    builder, t = begin(prediction, steps, schedule, grid)
    lambdas = builder.schedule.log_snr(t)
    first, last = int(lambdas[0].isinf()), int(lambdas[-1].isinf())
    inner = _lengths(order, len(t) - 1 - first, lower_order_final)
    if last and inner and inner[-1] > 1:
        inner = [*inner[:-1], inner[-1] - 1, 1]
    for start, end in pairwise(accumulate([*[1] * first, *inner], initial=0)):
        _add_step(builder, t[start + 1 : end + 1])
    return finish(builder, t[-1], f"dpm_singlestep{order}")


def _lengths(order: int, calls: int, lower_order_final: bool) -> list[int]:
    """How many calls every step has."""
    full, rest = divmod(calls, order)
    if not lower_order_final:
        if rest:
            raise ValueError(
                f"dpm_singlestep: steps of {order} calls do not divide {calls} calls at finite lambda; use "
                "another number of steps, or lower_order_final=True."
            )
        return [order] * full
    if rest == 0 and order > 1 and full:
        return [order] * (full - 1) + [order - 1, 1]
    return [order] * full + [rest] * (rest > 0)


def _add_step(builder: ExponentialBuilder, times: Tensor) -> None:
    """Up to three states from one start: DDIM, then a line with half weight, then a line integrated."""
    start = builder.last
    builder.ddim(times[0])
    for time, integrated in zip(times[1:], (False, True), strict=False):
        stage = builder.last
        if integrated:
            weights = builder.polynomial(time, [start, stage], start=start)
        else:
            weights = builder.line(time, stage, builder.total(time, start), start=start)
        builder.step(time, weights, start=start)
