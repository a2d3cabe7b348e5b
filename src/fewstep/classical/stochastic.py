"""Solvers of SDEs: tables whose rows add noise.

Along the path ``x = alpha data + sigma noise`` the ODE keeps the noise of a sample. An SDE with the same
marginal laws replaces part of it, at a rate ``eta`` in ``lambda = log(alpha / sigma)``. Over a step of length
``h``, with ``u`` the distance in lambda from its end and ``eta`` constant,

    x* = e^(-eta h) (sigma* / sigma) x + alpha* (1 + eta) int_0^h e^(-(1 + eta) u) data du
         + sigma* sqrt(1 - e^(-2 eta h)) xi,      xi ~ N(0, I)                                          (1)

(Xue et al. 2023, with ``eta = tau^2``; Lu et al. 2022b at ``eta = 1``). The integral is that of
``_exponential_builder.py``, eq. (4), with lambda stretched by ``1 + eta``, so that the weights of every ODE
solver serve the SDE. At ``eta = 0`` these are solvers of the ODE, and add nothing.

They are sampled as ``solver.sample(field, x0, noises=fs.noises(seed=0))``. They aim at the law of samples
and not at the ODE's solution from the same noise: there is no error to fit, or to compare by pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .._builder import TableBuilder
from .._names import check_name
from .._ranges import NOT_NEGATIVE, check_range
from ..schedules import CondOT, Schedule, SchedulePoint
from ._draft import Draft, check_order, solver
from ._exponential_builder import DataBuilder, Weights, begin_noise, finish, multistep, step_orders
from ._grids import resolve

__all__ = ["dpmpp_2m_sde", "edm_stochastic", "euler_ancestral", "sa_solver"]

#: Karras et al. (2022), algorithm 2: a level is raised by this factor at most.
_HIGHEST = 2**0.5


@solver
def euler_ancestral(
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    eta: float = 1.0,
    s_noise: float = 1.0,
) -> Draft:
    """Ancestral sampling of order 1: k-diffusion's ``sample_euler_ancestral``, and DDIM with ``eta``.

    With ``s = sigma / alpha``, a step to ``s*`` goes down to ``sqrt(s*^2 - up^2)`` by :func:`ddim` and adds
    noise of ``up = eta s* sqrt(1 - (s* / s)^2)`` (Song et al. 2021, eq. 16). ``eta=1`` is (1) of the module
    with ``data`` constant, and the sampler of DDPM (Ho et al. 2020) with the smaller of its variances;
    ``eta=0`` is :func:`ddim`.

    Args:
        steps: number of steps, uniform in time; one call each.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        eta: how much noise is replaced, 0 or more.
        s_noise: factor of the noise that is added; only at 1 are the marginal laws those of the path.
    """
    eta, s_noise = check_range("euler_ancestral", NOT_NEGATIVE, eta=eta, s_noise=s_noise)
    t, schedule = resolve(steps, grid), schedule or CondOT()
    builder = TableBuilder(t[0])
    for start, time in zip(t[:-1], t[1:], strict=True):
        old, new = schedule(start), schedule(time)
        h = schedule.log_snr(time) - schedule.log_snr(start)
        kept = (1 + eta**2 * torch.expm1(-2 * h)).clamp(min=0).sqrt()  # of the noise
        builder.add(
            time,
            {builder.last: kept * new.sigma / old.sigma},
            {builder.last: new.alpha * (1 - kept * torch.exp(-h))},
            point=True,
            S=s_noise * new.sigma * (1 - kept.square()).sqrt(),
        )
    return Draft(*builder.finish(), t[-1].item(), "euler_ancestral", "data", schedule)


@solver
def dpmpp_2m_sde(
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    variant: Literal["midpoint", "heun"] = "midpoint",
    eta: float = 1.0,
    s_noise: float = 1.0,
    lower_order_final: bool = False,
) -> Draft:
    """DPM-Solver++ 2M for the SDE: k-diffusion's ``sample_dpmpp_2m_sde``; one call per step.

    At ``eta=1`` it is ``DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")`` of diffusers. Steps
    from pure noise and to pure data are of order 1; ``eta=0`` with ``"midpoint"`` is ``dpmpp("2M")``.

    Args:
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        variant: weight of the slope: half of the step's, or the integral of the line (``"heun"``).
        eta: rate at which noise is replaced, 0 or more.
        s_noise: factor of the noise that is added; only at 1 are the marginal laws those of the path.
        lower_order_final: make the last step of order 1, as diffusers does below 15 steps.

    Raises:
        ValueError: on an unknown variant.
    """
    check_name("dpmpp_2m_sde: variant", variant, ("midpoint", "heun"))
    eta, s_noise = check_range("dpmpp_2m_sde", NOT_NEGATIVE, eta=eta, s_noise=s_noise)
    t = resolve(steps, grid)
    builder = _StretchedBuilder(schedule or CondOT(), t[0], eta, s_noise)

    def add(time: Tensor, calls: list[int]) -> int:
        h, total = builder.length(time), builder.total(time)
        if len(calls) == 1 or not h.isfinite():
            return builder.step(time, {calls[0]: total})
        slope = total if variant == "midpoint" else 2 * (1 - total / h)
        return builder.step(time, builder.line(time, calls[1], slope))

    multistep(builder, t, 2, add, lower_order_final)
    return finish(builder, t[-1], "dpmpp_2m_sde")


@solver
def sa_solver(
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    predictor: int = 2,
    corrector: int = 2,
    tau: float = 1.0,
    lower_order_final: bool = True,
) -> Draft:
    """SA-Solver (Xue et al., NeurIPS 2023, arXiv:2309.05019): stochastic Adams methods, one call per step.

    The predictor integrates the polynomial through the last predictions. The network is called at the
    predicted state, and the corrector makes the step again, with the same noise, from a polynomial with the
    new prediction; the last state is not corrected. In place of the integral of a line its slope has weight
    ``h / 2``, as in diffusers' ``SASolverScheduler``, whose ``tau_func`` is constant here. A step from pure
    noise is of order 1 and not corrected.

    Args:
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        predictor: number of predictions that the predictor reads, 1 to 3.
        corrector: that of the corrector, 1 to 4, or 0 for none.
        tau: square root of the rate at which noise is replaced, 0 or more.
        lower_order_final: reduce the orders at the end, as diffusers does.

    Raises:
        ValueError: on an unknown order.
    """
    check_order("sa_solver: predictor", predictor, 3)
    if corrector:
        check_order("sa_solver: corrector", corrector, 4)
    (tau,) = check_range("sa_solver", NOT_NEGATIVE, tau=tau)
    t = resolve(steps, grid)
    builder, count = _StretchedBuilder(schedule or CondOT(), t[0], tau**2), len(t) - 1
    for i, (k, time) in enumerate(zip(step_orders(predictor, count, lower_order_final), t[1:], strict=True)):
        if not builder.length(time).isfinite():
            builder.step(time, {i: builder.total(time)})
            continue
        predicted = _adams(builder, time, range(i, i - k, -1))
        builder.step(time, predicted)
        if corrector and i + 1 < count:
            most = min(corrector, i + 2, count - i + 1 if lower_order_final else corrector)
            change = _adams(builder, time, range(i + 1, i + 1 - most, -1), start=i)
            for j, w in predicted.items():
                change[j] = change[j] - w if j in change else -w
            builder.correct(change)
    return finish(builder, t[-1], f"sa_solver{predictor}{corrector}")


@solver
def edm_stochastic(
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    churn: float = 40.0,
    s_min: float = 0.0,
    s_max: float = float("inf"),
    s_noise: float = 1.0,
) -> Draft:
    """EDM's stochastic sampler (Karras et al. 2022, algorithm 2): Heun's method from raised noise levels.

    Also k-diffusion's ``sample_heun`` with ``s_churn``. A step from the level ``s = sigma / alpha``, where in
    ``[s_min, s_max]``, begins at ``(1 + min(churn / n, sqrt(2) - 1)) s``: the row that makes this state adds
    the noise, and the network is called at the time of the raised level. The initial noise is not raised, nor
    is any level above that of ``t = 0``. Calls are those of :func:`edm_heun`, which ``churn=0`` is.

    Args:
        steps: number ``n`` of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        churn: ``S_churn`` of the paper, 0 or more.
        s_min: lowest level at which noise is added.
        s_max: highest level at which noise is added.
        s_noise: factor of the noise that is added; only at 1 are the marginal laws those of the path.
    """
    churn, s_noise, s_min = check_range(
        "edm_stochastic", NOT_NEGATIVE, churn=churn, s_noise=s_noise, s_min=s_min
    )
    builder, t = begin_noise(steps, schedule, grid)
    first, raise_by, reached = builder.level_at(0 * t[0]), min(1 + churn / (len(t) - 1), _HIGHEST), t[0]
    for i, time in enumerate(t[1:], start=1):
        start, level = builder.last, builder.level_at(time)
        if builder.lambdas[-1].isinf() or level == 0:
            builder.ddim(time)
            continue
        at, S = time, None
        if s_min <= level <= s_max and i + 1 < len(t):
            raised = (raise_by * level).minimum(first)
            at = builder.schedule.inverse_log_snr(-raised.log())
            S = s_noise * builder.schedule(at).alpha * (raised.square() - level.square()).sqrt()
        H = level - builder.level(start)
        builder.sigma_step(time, {start: H}, point=False)
        weights = {start: H / 2, builder.last: H / 2}
        builder.sigma_step(at, weights, start=start, point=bool(at > reached), S=S)
        reached = reached.maximum(at)
    return finish(builder, t[-1], "edm_stochastic")


class _StretchedBuilder(DataBuilder):
    """Makes steps (1): those of the ODE with lambda stretched, with less of the state, and with noise.

    Args:
        schedule: the schedule.
        t0: time of the initial state.
        eta: rate at which noise is replaced.
        s_noise: factor of the noise that is added.
    """

    def __init__(self, schedule: Schedule, t0: Tensor, eta: float, s_noise: float = 1.0) -> None:
        self.eta, self.s_noise = eta, s_noise
        super().__init__(schedule, t0)

    def log_snr(self, time: Tensor) -> Tensor:
        return (1 + self.eta) * super().log_snr(time)

    def ddim(self, time: Tensor, *, start: int | None = None, point: bool = True) -> int:
        start = self.last if start is None else start
        return self.step(time, {start: self.total(time, start)}, start=start, point=point)

    def step(self, time: Tensor, weights: Weights, *, start: int | None = None, **options: Any) -> int:
        start, new = self.last if start is None else start, self.schedule(time)
        S = self.s_noise * new.sigma * (1 - self._kept(new, start).square()).sqrt()
        return super().step(time, weights, start=start, S=S, **options)

    def _ratio(self, new: SchedulePoint, start: int) -> Tensor:
        return super()._ratio(new, start) * self._kept(new, start)

    def _kept(self, new: SchedulePoint, start: int) -> Tensor:
        """Return ``e^(-eta h)``, which is 0 from pure noise and to pure data, and 1 at ``eta = 0``."""
        old = self.at[start]
        return ((new.sigma * old.alpha) / (new.alpha * old.sigma)) ** self.eta


def _adams(
    builder: _StretchedBuilder, time: Tensor, calls: Sequence[int], start: int | None = None
) -> dict[int, Tensor]:
    """Return the weights of the polynomial through some calls, or of a line as diffusers has them."""
    start = builder.last if start is None else start
    if len(calls) != 2:
        return builder.polynomial(time, calls, start=start)
    (other,) = {*calls} - {start}
    return builder.line(time, other, builder.length(time, start), start=start)
