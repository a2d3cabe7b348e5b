"""UniPC: a predictor-corrector with one network call per step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ..schedules import Schedule
from ._draft import Draft, check_order, solver
from ._exponential_builder import ExponentialBuilder, begin, finish, step_orders

__all__ = ["unipc"]


@solver
def unipc(
    order: int,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    variant: Literal["bh1", "bh2"] = "bh2",
    prediction: Literal["data", "noise"] = "data",
    lower_order_final: bool = True,
) -> Draft:
    """UniPC (Zhao et al. 2023), one call per step.

    The predictor integrates the polynomial in lambda through the last ``order`` predictions. The network
    is called at the predicted state, its prediction is added to the polynomial, and the corrector integrates
    the same step again; the next step starts at the corrected state. The states of the table are the
    predicted ones, where calls are made; the last state is not corrected.

    For a line, in predictors of order 2 and correctors of order 1, the paper sets the weight of the slope to
    ``B(h) / 2``, with ``B(h) = h`` (bh1) or ``e^h - 1`` (bh2); otherwise ``B(h)`` cancels. A step of infinite
    length is predicted with order 1. A first step from pure noise is corrected only with data predictions and
    bh2, where the corrector has a limit.

    Args:
        order: 1 to 3; with the corrector, the order of convergence is one higher.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        variant: the choice of ``B(h)``.
        prediction: the prediction to extrapolate, data or noise.
        lower_order_final: reduce the order to 1 at the end, as in the paper.

    Raises:
        ValueError: on an unknown order, variant or prediction.
    """
    check_order("unipc", order, 3)
    if variant not in ("bh1", "bh2"):
        raise ValueError(f"unipc: variant must be 'bh1' or 'bh2', not {variant!r}.")
    builder, t = begin(prediction, steps, schedule, grid)
    count = len(t) - 1
    for i, (k, time) in enumerate(zip(step_orders(order, count, lower_order_final), t[1:], strict=True)):
        finite = builder.length(time).isfinite()
        history = [j for j in range(i, i - k, -1) if j == i or builder.lambdas[j].isfinite()]
        B = _scale(builder, time, variant, prediction)
        if finite:
            line = len(history) == 2
            predicted = builder.line(time, history[1], B) if line else builder.polynomial(time, history)
            builder.step(time, predicted)
        else:
            predicted = {i: builder.total(time)}
            builder.ddim(time)
        # From pure noise, only the corrector with bh2 and data predictions has a limit.
        if i + 1 < count and (finite or (variant, prediction) == ("bh2", "data")):
            corrected = _corrector(builder, time, history, B)
            builder.correct({j: w - predicted.get(j, 0) for j, w in corrected.items()})
    return finish(builder, t[-1], f"unipc{order}_{variant}")


def _scale(builder: ExponentialBuilder, time: Tensor, variant: str, prediction: str) -> Tensor:
    """Return ``B(h)`` in the units of the builder, in which ``e^h - 1`` is ``1 - e^-h``."""
    if variant == "bh2":
        return builder.total(time)
    h = builder.length(time)
    return h if prediction == "data" else h * torch.exp(-h)


def _corrector(builder: ExponentialBuilder, time: Tensor, history: list[int], B: Tensor) -> dict[int, Tensor]:
    new, start = builder.last, history[0]
    if len(history) == 1:
        return builder.line(time, new, B, start=start)
    return builder.polynomial(time, [new, *history], start=start)
