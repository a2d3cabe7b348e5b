"""Singlestep DPM-Solvers with stages on the grid, as in diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

from torch import Tensor

from ..schedules import Schedule
from ._draft import Draft, check_order, solver
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
    """Singlestep DPM-Solver++ (data) or DPM-Solver (noise) with stages at the points of the grid.

    :func:`dpmpp` and :func:`dpm_solver` have stages between the grid's points; here every point is a call, so
    that ``steps`` is the number of calls, as in diffusers' ``DPMSolverSinglestepScheduler`` and in Lu et al.
    (2022a, appendix D.3). Each step of ``order`` calls is independent of the one before; in it, the state at
    the second point has order 2 and that at the third order 3.

    Args:
        order: 1 to 3.
        steps: number of calls, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the calls, and the end, instead of ``steps``.
        prediction: the prediction to expand, data or noise.
        lower_order_final: end with a shorter step of order 1 or 2, as diffusers does; required when the
            number of calls is not a multiple of the order. A call in pure noise, and the last call before
            pure data, always form a step of order 1.

    Raises:
        ValueError: on an unknown order or prediction, or a number of calls that is not a multiple.
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
    """Return the number of calls of each step."""
    full, rest = divmod(calls, order)
    if not lower_order_final:
        if rest:
            raise ValueError(
                f"dpm_singlestep: {calls} calls at finite lambda are not a multiple of order={order}; use "
                "another number of steps, or lower_order_final=True."
            )
        return [order] * full
    if rest == 0 and order > 1 and full:
        return [order] * (full - 1) + [order - 1, 1]
    return [order] * full + [rest] * (rest > 0)


def _add_step(builder: ExponentialBuilder, times: Tensor) -> None:
    """Append up to three states from one start: DDIM, a line with half its slope, and an integrated line."""
    start = builder.last
    builder.ddim(times[0])
    for time, integrated in zip(times[1:], (False, True), strict=False):
        stage = builder.last
        if integrated:
            weights = builder.polynomial(time, [start, stage], start=start)
        else:
            weights = builder.line(time, stage, builder.total(time, start), start=start)
        builder.step(time, weights, start=start)
