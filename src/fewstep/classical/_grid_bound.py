"""Time grids from a schedule alone: DMN's bound on the error of an exponential multistep solver."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..schedules import CondOT, Schedule
from ._grids import check_steps, karras, log_snr, noise_levels, uniform
from .adams import gauss_legendre

__all__ = ["bound", "dmn"]

#: Points of the Gauss-Legendre rule, enough for ``e^lambda`` over the whole range in one step.
_POINTS = 16
#: Number of first steps that are bounded one by one, as in the authors' code.
_ALONE = 3
#: Least step, relative to an even one: where two points meet, the weights are infinite.
_LEAST_STEP = 0.01


def dmn(
    steps: int,
    schedule: Schedule | None = None,
    *,
    order: int = 3,
    power: float = 1.0,
    sigma_min: float = 0.01,
    sigma_max: float = 80.0,
) -> tuple[float, ...]:
    """Return time steps from a model-independent error bound (DMN; Xue et al. 2024, *Optimized Time Steps*).

    The result of an exponential multistep solver in ``lambda = log(alpha / sigma)`` is a sum of the data
    predictions at its points, ``x_N / sigma_N = x_0 / sigma_0 + sum_n c_n m_n``. With an error of at most
    ``e_n`` in the prediction at ``lambda_n``, the points minimise ``sum_n |c_n| e_n``; see :func:`bound`.

    As in the paper and the authors' code: the weights; ``e = sigma^power / alpha`` where
    ``alpha^2 + sigma^2 = 1``, with power 1 for pixels and 2 for latents; orders that start with 1, 2 and end
    with 2, 1; the first three steps bounded one by one. The authors recommend the last for up to seven calls
    only; here it is always done, as with more calls the weights of neighbouring steps can cancel and make the
    bound small on poor grids.

    Different from the paper: a quasi-Newton method over the shares of the steps, from three initial grids,
    instead of a trust-region method from one; and the ends, which are finite in the paper. Here the first and
    last level are ``sigma_max`` and ``sigma_min``, or the schedule's if narrower, and these points are then
    moved to ``t = 0`` and ``t = 1``. The default ``sigma_min`` is about where the paper stops, 0.001 before
    the end on ``VP``.

    Args:
        steps: number of steps.
        schedule: the schedule of the network, ``CondOT()`` by default.
        order: order of the solver, 1 to 3: 3 as in the paper, 2 for DPM-Solver++(2M).
        power: the assumed rate at which predictions improve with the signal.
        sigma_min: ``sigma / alpha`` at the last point.
        sigma_max: ``sigma / alpha`` at the first point.

    Returns:
        The grid. It takes a second or two on a CPU, and no network call.

    Raises:
        ValueError: on an order or levels out of range.
    """
    steps = check_steps(steps)
    if order not in (1, 2, 3) or not 0 < sigma_min < sigma_max:
        raise ValueError(
            "dmn: order must be 1, 2 or 3 and 0 < sigma_min < sigma_max, not "
            f"order={order!r}, sigma_min={sigma_min!r}, sigma_max={sigma_max!r}."
        )
    schedule = schedule or CondOT()
    first, last, _ = noise_levels(steps, schedule, sigma_min, sigma_max)
    if not first > last:
        raise ValueError(
            f"dmn: {schedule!r} has no levels between sigma_min={sigma_min:g} and sigma_max={sigma_max:g}."
        )
    if steps == 1:
        return uniform(1)
    ends = torch.tensor([-math.log(first), -math.log(last)], dtype=torch.float64)
    starts = [
        uniform(steps),
        log_snr(steps, schedule, sigma_min=sigma_min, sigma_max=sigma_max),
        karras(steps, schedule, sigma_min=sigma_min, sigma_max=sigma_max),
    ]
    found = [_minimise(_clipped(start, schedule, ends), order, power) for start in starts]
    lambdas = min(found, key=lambda points: float(bound(points, order, power)))
    return (0.0, *schedule.inverse_log_snr(lambdas[1:-1]).tolist(), 1.0)


def bound(lambdas: Tensor, order: int = 3, power: float = 1.0) -> Tensor:
    """Return the bound that :func:`dmn` minimises, divided by ``sigma_N``; differentiable.

    Step ``s`` to ``lambda_{s+1}`` integrates ``e^lambda`` times the polynomial through the last predictions,
    with weights ``w_sn = int e^lambda l_n(lambda) dlambda``. The first three steps and the last contribute
    ``sqrt(sum_n (w_sn e_n)^2)`` each; the others contribute ``sum_n e_n |sum_s w_sn|`` together.

    Args:
        lambdas: ``N + 1`` log-SNRs, finite and increasing.
        order: largest order of a step; step ``s`` has at most order ``min(s + 1, N - s)``.
        power: see :func:`dmn`.
    """
    N = len(lambdas) - 1
    # sigma^power / alpha for alpha^2 + sigma^2 = 1
    softplus = torch.nn.functional.softplus
    error = (softplus(-2 * lambdas[:-1]) / 2 - power * softplus(2 * lambdas[:-1]) / 2).exp()
    wrong = _weights(lambdas, order) * error
    s = torch.arange(N)
    alone = (s < _ALONE) | (s == N - 1)
    apart: Tensor = torch.linalg.vector_norm(wrong[alone], dim=1).sum()
    return apart + wrong[~alone].sum(dim=0).abs().sum()


def _weights(lambdas: Tensor, order: int) -> Tensor:
    """Return ``w[s, n]``, the weight of the prediction at point ``n`` in step ``s``, over ``sigma_N``."""
    N = len(lambdas) - 1
    s = torch.arange(N)
    orders = torch.minimum(s + 1, N - s).clamp(max=order)
    window = (s <= s[:, None]) & (s > (s - orders)[:, None])  # [s, n]: point n is in the history of step s
    x, w = gauss_legendre(_POINTS)
    h = (lambdas[1:] - lambdas[:-1])[:, None]
    tau = lambdas[:-1, None] + h * (x + 1) / 2  # (s, q)
    here = lambdas[:-1]
    gap = (here[:, None] - here).where(s != s[:, None], torch.ones_like(here))  # (n, m)
    factor = (tau[:, None, None] - here[:, None]) / gap[..., None]  # (s, n, m, q)
    other = (window[:, None, :] & (s != s[:, None]))[..., None]
    basis = factor.where(other, torch.ones_like(factor)).prod(dim=2)
    return window * (h / 2) * (basis * (w * tau.exp())[:, None]).sum(dim=2)


def _clipped(grid: tuple[float, ...], schedule: Schedule, ends: Tensor) -> Tensor:
    """Return the log-SNRs of a grid between given ends, with points beyond them spread evenly."""
    inner = schedule.log_snr(torch.tensor(grid[1:-1], dtype=torch.float64))
    inside = inner[(inner > ends[0]) & (inner < ends[1])]
    missing = len(inner) - len(inside)
    extra = ends[0] + (ends[1] - ends[0]) * torch.arange(1, missing + 1) / (missing + 1)
    return torch.cat([ends[:1], torch.cat([inside, extra]).sort().values, ends[1:]])


def _minimise(lambdas: Tensor, order: int, power: float) -> Tensor:
    """Minimise the bound locally from given points, with fixed ends."""
    first, length, N = lambdas[0], lambdas[-1] - lambdas[0], len(lambdas) - 1
    shares = (lambdas.diff() / length).clamp(min=1e-3)
    theta = shares.log().requires_grad_()

    def points() -> Tensor:
        share = (1 - _LEAST_STEP) * theta.softmax(0) + _LEAST_STEP / N
        return torch.cat([first[None], first + length * share.cumsum(0)])

    optimizer = torch.optim.LBFGS(
        [theta], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-12
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = bound(points(), order, power).log()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return points().detach()
