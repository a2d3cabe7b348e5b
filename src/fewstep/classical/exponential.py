"""DDIM, DPM-Solver and DPM-Solver++.

With ``lambda = log(alpha / sigma)``, along the trajectory from ``s`` to ``t``,

    x(t) = (sigma_t / sigma_s) x(s) + sigma_t int e^lambda data dlambda         (Lu et al. 2022b, eq. 8)
    x(t) = (alpha_t / alpha_s) x(s) - alpha_t int e^-lambda noise dlambda       (Lu et al. 2022a, eq. 3.4)

DPM-Solver++ expands the data prediction, DPM-Solver the noise prediction; their weights are the same
function of the moments of the respective integral.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from .._names import check_name
from ..schedules import Schedule
from ._draft import Draft, solver
from ._exponential_builder import ExponentialBuilder, begin, finish, multistep
from .exponential_runge_kutta import EXPONENTIAL_TABLEAUX, add_step, singlestep

__all__ = ["ddim", "dpm_solver", "dpmpp"]

Variant = Literal["1", "2M", "3M", "2S", "3S"]


@solver
def ddim(
    steps: int | None = None, *, schedule: Schedule | None = None, grid: Sequence[float] | None = None
) -> Draft:
    """Deterministic DDIM (Song et al. 2021): order 1, one call per step.

    Identical to DPM-Solver(1), DPM-Solver++(1), DEIS and UniP of order 1, and to Euler's method for
    ``d(x / alpha) = noise d(sigma / alpha)``, which is k-diffusion's ``sample_euler``.
    """
    return _solver("data", "1", "ddim", steps, schedule, grid)


@solver
def dpmpp(
    variant: Variant,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    lower_order_final: bool = False,
) -> Draft:
    """DPM-Solver++ (Lu et al. 2022b): ``"1"``, multistep ``"2M"``, ``"3M"``, singlestep ``"2S"``, ``"3S"``.

    The multistep variants cost one call per step. They start with lower orders; a step that ends in
    pure data (sigma = 0) is of order 1, and predictions at infinite distance in lambda have no weight.
    ``"2S"`` costs two calls per step and ``"3S"`` three, but one in a step of infinite length in lambda:
    from pure noise to pure data, ``n`` steps of 2S cost ``2 n - 2`` calls.

    Args:
        variant: one of the five.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        lower_order_final: reduce the order of a multistep variant to 1 at the end, as diffusers does below
            15 steps.

    Raises:
        ValueError: on an unknown variant.
    """
    return _solver("data", variant, f"dpmpp_{variant}".lower(), steps, schedule, grid, lower_order_final)


@solver
def dpm_solver(
    variant: Variant,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    lower_order_final: bool = False,
) -> Draft:
    """DPM-Solver (Lu et al. 2022a): singlestep ``"2S"`` and ``"3S"``, and ``"1"``, ``"2M"`` and ``"3M"``.

    The same as :func:`dpmpp`, with its calls and arguments, but expanded in the noise prediction. ``"2S"`` is
    algorithm 1 of the paper with ``r1 = 1/2``, and k-diffusion's ``sample_dpm_2``; ``"3S"`` is algorithm 2
    with ``r1 = 1/3, r2 = 2/3``. The multistep variants are those of diffusers.

    Raises:
        ValueError: on an unknown variant.
    """
    name = f"dpm_solver_{variant}".lower()
    return _solver("noise", variant, name, steps, schedule, grid, lower_order_final)


def _solver(
    prediction: Literal["data", "noise"],
    variant: str,
    name: str,
    steps: int | None,
    schedule: Schedule | None,
    grid: Sequence[float] | None,
    lower_order_final: bool = False,
) -> Draft:
    check_name(f"{name.rsplit('_', 1)[0]}: variant", variant, get_args(Variant))
    builder, t = begin(prediction, steps, schedule, grid)
    if variant == "2S":
        singlestep(builder, t, lambda time: _add_midpoint(builder, time))
    elif variant == "3S":
        singlestep(builder, t, lambda time: add_step(builder, EXPONENTIAL_TABLEAUX["dpm3"], time))
    else:

        def add(time: Tensor, calls: list[int]) -> int:
            return builder.step(time, _multistep_weights(builder, time, calls))

        multistep(builder, t, int(variant[0]), add, lower_order_final)
    return finish(builder, t[-1], name)


def _add_midpoint(builder: ExponentialBuilder, time: Tensor) -> None:
    """Append a step of 2S, ``r1 = 1/2``: DDIM to the midpoint in lambda, then its prediction alone."""
    start = builder.last
    middle = builder.ddim(builder.inside(time, 1 / 2), point=False)
    builder.step(time, {middle: builder.total(time, start)}, start=start)


def _multistep_weights(builder: ExponentialBuilder, time: Tensor, calls: list[int]) -> dict[int, Tensor]:
    """Return the weights of the newest predictions, newest first, in the units of the builder.

    2M is eq. (13) of Lu et al. (2022b). 3M is the form in diffusers: its last term has half of the second
    derivative, so that the order is 2. With all of it the order is 3 (see
    :func:`~fewstep.classical.exponential_adams`), but the result on the bundled digits flow is slightly worse
    at 8 calls.
    """
    h, lambdas = builder.length(time), [builder.lambdas[j] for j in calls]
    gaps = [near - far for near, far in pairwise(lambdas) if far.isfinite()]
    if not h.isfinite() or not gaps:
        return {calls[0]: builder.total(time)}
    if len(gaps) == 1:
        return builder.line(time, calls[1], builder.total(time))
    exact = torch.stack(list(builder.polynomial(time, calls).values()))
    theta = (torch.stack(lambdas) - lambdas[0]) / h
    differences = (theta[:, None] - theta[None, :] + torch.eye(3, dtype=theta.dtype)).prod(dim=1)
    half_of_second_term = exact @ theta.square() / 2
    return dict(zip(calls, exact - half_of_second_term / differences, strict=True))
