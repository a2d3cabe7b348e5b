"""Exponential integrators in the log-SNR: DDIM and DPM-Solver++, as tables of data predictions.

With ``lambda = log(alpha / sigma)`` and ``d(lambda)`` the data prediction along the trajectory,

    x(t) = (sigma_t / sigma_s) x(s) + sigma_t int e^lambda d(lambda) dlambda       (Lu et al. 2022b, eq. 8)

from ``lambda_s`` to ``lambda_t``. Written with ratios of sigma instead of exponentials of lambda, the
formulas stay finite where a step starts in pure noise (lambda = -inf) or ends in pure data (+inf).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .._builder import TableBuilder
from .._table import Table
from ..schedules import CondOT, Schedule
from ..solver import Solver
from . import grids

__all__ = ["ddim", "dpmpp"]

Variant = Literal["1", "2M", "3M", "2S"]


def ddim(
    steps: int | None = None, *, schedule: Schedule | None = None, grid: Sequence[float] | None = None
) -> Solver:
    """DDIM (Song et al. 2021), deterministic: order 1, one call a step. The same as DPM-Solver++(1)."""
    return _solver("1", "ddim", steps, schedule, grid)


def dpmpp(
    variant: Variant,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
) -> Solver:
    """DPM-Solver++ (Lu et al. 2022b): ``"1"``, multistep ``"2M"`` and ``"3M"``, singlestep ``"2S"``.

    The multistep variants cost one call a step. They start with lower orders; a step that ends in
    pure data (sigma = 0) is of order 1, and history at infinite distance in lambda has no weight.
    ``"2S"`` costs two calls a step, but one in a step of infinite length in lambda: on a schedule
    that runs from pure noise to pure data, ``n`` steps cost ``2 n - 2`` calls.

    Args:
        variant: which of the four.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times to step through, instead.

    Raises:
        ValueError: on an unknown variant.
    """
    if variant not in ("1", "2M", "3M", "2S"):
        raise ValueError(f"dpmpp: variant must be '1', '2M', '3M' or '2S', not {variant!r}.")
    return _solver(variant, f"dpmpp_{variant.lower()}", steps, schedule, grid)


def _solver(
    variant: str, name: str, steps: int | None, schedule: Schedule | None, grid: Sequence[float] | None
) -> Solver:
    schedule = schedule or CondOT()
    t = grids.resolve(steps, grid)
    table, points = dpmpp_table(variant, t, schedule)
    return Solver.from_table(table, points, end=float(t[-1]), name=name, prediction="data", schedule=schedule)


def dpmpp_table(variant: str, t: Tensor, schedule: Schedule) -> tuple[Table, tuple[int, ...]]:
    """The table of DPM-Solver++ on a grid, in data predictions."""
    builder = TableBuilder(t[0])
    calls: list[int] = []  # the call at each point so far
    lambdas = schedule.log_snr(t)
    for i in range(len(t) - 1):
        calls.append(builder.last)
        if variant == "2S" and (lambdas[i + 1] - lambdas[i]).isfinite():
            _add_singlestep(builder, t, i, schedule)
            continue
        order = {"1": 1, "2M": 2, "3M": 3, "2S": 1}[variant]
        weights = _multistep_weights(lambdas, i, order)
        alpha, sigma = schedule(t)[:2]
        D = {calls[i - k]: alpha[i + 1] * w for k, w in enumerate(weights)}
        builder.add(t[i + 1], {builder.last: sigma[i + 1] / sigma[i]}, D, point=True)
    return builder.finish()


def _multistep_weights(lambdas: Tensor, i: int, order: int) -> list[Tensor]:
    """Weights over ``alpha_{i+1}`` of the data predictions at points ``i, i-1, i-2``.

    2M is eq. (13) of the paper. 3M is the form that diffusers samples with: its last term holds half of
    the second derivative, which leaves the order at 2. With the whole of it the order is 3, but the
    bundled digits flow comes out slightly worse at 8 calls.
    """
    h = lambdas[i + 1] - lambdas[i]
    phi1 = -torch.expm1(-h)  # 1 - e^-h, which is 1 in a step to pure data
    gaps = [lambdas[i - k] - lambdas[i - k - 1] for k in range(min(order - 1, i))]
    gaps = [gap for gap in gaps if gap.isfinite()]
    if not h.isfinite() or not gaps:
        return [phi1]
    if len(gaps) == 1:
        w = phi1 * h / (2 * gaps[0])
        return [phi1 + w, -w]
    r0, r1 = gaps[0] / h, gaps[1] / h
    phi2 = 1 - phi1 / h
    phi3 = 0.5 - phi2 / h
    # First derivative, and half the second, by divided differences of m0, m1, m2.
    near, far = torch.stack([1 / r0, -1 / r0, 0 * r0]), torch.stack([0 * r1, 1 / r1, -1 / r1])
    first = near + r0 / (r0 + r1) * (near - far)
    half_second = (near - far) / (r0 + r1)
    weights = phi2 * first + phi3 * half_second
    weights[0] = weights[0] + phi1
    return list(weights)


def _add_singlestep(builder: TableBuilder, t: Tensor, i: int, schedule: Schedule) -> None:
    """DPM-Solver++(2S): a DDIM step to the middle in lambda, then one with the corrected prediction."""
    lambdas = schedule.log_snr(t[i : i + 2])
    middle = schedule.inverse_log_snr(lambdas.mean())
    (alpha_m, sigma_m), (alpha, sigma) = (schedule(s)[:2] for s in (middle, t[i + 1]))
    sigma_s = schedule(t[i]).sigma
    h, start = lambdas[1] - lambdas[0], builder.last
    stage = builder.add(
        middle, {start: sigma_m / sigma_s}, {start: -alpha_m * torch.expm1(-h / 2)}, point=False
    )
    # m_start + (m_stage - m_start) / (2 * 1/2): the stage alone
    builder.add(t[i + 1], {start: sigma / sigma_s}, {stage: -alpha * torch.expm1(-h)}, point=True)
