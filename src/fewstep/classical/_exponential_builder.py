"""Writing down solvers that integrate the linear part of the ODE exactly.

On the path ``x = alpha data + sigma noise`` the velocity is ``alpha' data + sigma' noise``. With one of the
two eliminated it is linear in ``x``, but for a network's prediction of the other. With
``lambda = log(alpha / sigma)`` and primes for d/dt,

    dx/dt = (sigma' / sigma) x + alpha lambda' data                                                     (1)
    dx/dt = (alpha' / alpha) x - sigma lambda' noise                                                    (2)

Divided by ``sigma`` and ``alpha`` the linear part vanishes, and the ODE is an integral:

    d(x / sigma) = e^lambda data dlambda              d(x / alpha) = -e^-lambda noise dlambda           (3)

Over a step of length ``h`` in lambda, from ``x, alpha, sigma`` to ``x*, alpha*, sigma*``, with ``u`` the
distance from the end at which the weight ``e^-u`` is one (the last for data, the first for noise), and with
``s = sigma / alpha = e^-lambda`` at the start:

    x* = (sigma* / sigma) x + alpha* int_0^h e^-u data du                                               (4)
    x* = (alpha* / alpha) x - alpha* s int_0^h e^-u noise du                                            (5)

Solvers differ in what they put in place of the prediction. A polynomial through the predictions ``m_j`` made
so far, of data (DPM-Solver++, Lu et al., arXiv 2211.01095; UniPC, Zhao et al., arXiv 2302.04867) or of noise
(DEIS, Zhang and Chen, arXiv 2204.13902), makes of the integral, with the Lagrange polynomials ``l_j``,

    sum_j w_j m_j,      w_j = int_0^h e^-u l_j(u) du,      sum_j w_j = 1 - e^-h,                        (6)

and every other rule is a choice of the ``w_j``, too. Those of (6) solve ``sum_j w_j u_j^k = gamma(k + 1, h)``
for ``k = 0, 1, ...``, the moments of ``e^-u``.                                                         (7)

A row of the table is then, with ``start`` the state that the step begins at and ``m_j = data_j``,

    C[start] = sigma* / sigma,      D[j] = alpha* w_j                                                   (8)

and, as the table reads data predictions only, with ``noise_j = (x_j - alpha_j data_j) / sigma_j`` in (5),

    C[start] = alpha* / alpha,   C[j] -= v_j,   D[j] = alpha_j v_j,   v_j = alpha* s w_j / sigma_j.     (9)

It reads data predictions because these stay finite in pure noise (alpha = 0), where the first step of any
such solver is one of order 1, and no solver here calls the network in pure data (sigma = 0).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from .._builder import TableBuilder
from ..schedules import CondOT, Schedule, SchedulePoint
from ._draft import Draft
from ._grids import resolve

__all__ = [
    "DataBuilder",
    "ExponentialBuilder",
    "NoiseBuilder",
    "Weights",
    "begin",
    "begin_noise",
    "exponential_integrals",
    "finish",
    "multistep",
    "step_orders",
]

#: Coefficients by the index of the call (or state) that they belong to.
Weights = Mapping[int, Tensor]


class ExponentialBuilder(TableBuilder, ABC):
    """Collects the states of a solver that weighs one kind of prediction, in the units of (6)."""

    def __init__(self, schedule: Schedule, t0: Tensor) -> None:
        super().__init__(t0)
        self.schedule = schedule
        self.at = [schedule(t0)]
        self.lambdas = [self.log_snr(t0)]
        self._corrections: dict[int, tuple[Weights, Weights]] = {}

    def log_snr(self, time: Tensor) -> Tensor:
        """``lambda`` at a time, in which the solver's polynomials are."""
        return self.schedule.log_snr(time)

    def length(self, time: Tensor, start: int | None = None) -> Tensor:
        """``h``, the length in lambda of the step to ``time``: infinite from pure noise or to pure data."""
        return self.log_snr(time) - self.lambdas[self.last if start is None else start]

    def inside(self, time: Tensor, fraction: float) -> Tensor:
        """The time at a fraction of the step to ``time`` in lambda."""
        return self.schedule.inverse_log_snr(self.lambdas[-1] + fraction * self.length(time))

    def ddim(self, time: Tensor, *, start: int | None = None, point: bool = True) -> int:
        """Append the step of order 1, which is the same for data and noise and finite from end to end."""
        start = self.last if start is None else start
        new, old = self.schedule(time), self.at[start]
        D = {start: new.alpha * self.total(time, start)}
        return self._append(time, start, new.sigma / old.sigma, {}, D, point=point)

    def step(
        self,
        time: Tensor,
        weights: Weights,
        *,
        start: int | None = None,
        point: bool = True,
        S: Tensor | None = None,
    ) -> int:
        """Append the state at ``time`` that the weights and a noise ``S xi`` lead to from ``start``."""
        start = self.last if start is None else start
        new = self.schedule(time)
        C, D = self._terms(new, start, weights)
        return self._append(time, start, self._ratio(new, start), C, D, point=point, S=S)

    def correct(self, change: Weights) -> None:
        """Change the weights that led to the newest state from the one before.

        The call stays where it was made; all further steps from there start at the corrected state.
        """
        self._corrections[self.last] = self._terms(self.at[-1], self.last - 1, change)

    def polynomial(
        self, time: Tensor, calls: Sequence[int], *, start: int | None = None
    ) -> dict[int, Tensor]:
        """The weights that integrate the polynomial in lambda through some calls, from ``start``.

        Calls at infinite distance, in pure noise, have no weight, and a polynomial at infinite distance, of
        data predictions in a step to pure data, is the constant of its newest call.
        """
        start = self.last if start is None else start
        h = self.length(time, start)
        calls = [j for j in calls if self.lambdas[j].isfinite()]
        distances = self._from_heavy_end(torch.stack([self.lambdas[j] for j in calls]), time, start)
        if not distances.isfinite().all():
            return {start: self.total(time, start)}
        return dict(zip(calls, exponential_integrals(distances, h), strict=True))

    def line(self, time: Tensor, other: int, B: Tensor, *, start: int | None = None) -> dict[int, Tensor]:
        """The prediction at the start, and ``B / 2`` times the slope towards another one.

        The integral has ``phi_2`` in the place of ``B / 2``; DPM-Solver and UniPC take ``B / 2`` where it
        makes no difference to the order, with ``B = 1 - e^-h`` or nearly so.
        """
        start = self.last if start is None else start
        h = self.length(time, start)
        gap = self.lambdas[other] - self.lambdas[start]
        w = B / 2 * (1 if gap == h else h / gap)  # equal even where both are infinite
        return {start: self.total(time, start) - w, other: w}

    def total(self, time: Tensor, start: int | None = None) -> Tensor:
        """``1 - e^-h``, which the weights of a step sum to."""
        return -torch.expm1(-self.length(time, start))

    def _append(self, time: Tensor, start: int, ratio: Tensor, C: Weights, D: Weights, **options: Any) -> int:
        states, calls = self._corrections.get(start, ({}, {}))
        self.at.append(self.schedule(time))
        self.lambdas.append(self.log_snr(time))
        return self.add(
            time,
            _sum({start: ratio}, _scaled(ratio, states), C),
            _sum(_scaled(ratio, calls), D),
            **options,
        )

    @abstractmethod
    def _ratio(self, new: SchedulePoint, start: int) -> Tensor:
        """Return the coefficient of the starting state."""

    @abstractmethod
    def _terms(self, new: SchedulePoint, start: int, weights: Weights) -> tuple[Weights, Weights]:
        """Return the contribution of the predictions, as coefficients of states and data predictions."""

    @abstractmethod
    def _from_heavy_end(self, lambdas: Tensor, time: Tensor, start: int) -> Tensor:
        """Distances from the end of the step at which the integral's weight ``exp(-u)`` is one."""


class DataBuilder(ExponentialBuilder):
    """Weighs data predictions, as in (4) and (8)."""

    def _ratio(self, new: SchedulePoint, start: int) -> Tensor:
        return new.sigma / self.at[start].sigma

    def _terms(self, new: SchedulePoint, start: int, weights: Weights) -> tuple[Weights, Weights]:
        return {}, _scaled(new.alpha, weights)

    def _from_heavy_end(self, lambdas: Tensor, time: Tensor, start: int) -> Tensor:
        return self.log_snr(time) - lambdas


class NoiseBuilder(ExponentialBuilder):
    """Weighs noise predictions, as in (5) and (9)."""

    def sigma_step(self, time: Tensor, weights: Weights, *, start: int | None = None, **options: Any) -> int:
        """Append ``x' / alpha' = x / alpha + sum_j W_j noise_j``: weights that sum to ``s' - s``."""
        s = self.level(self.last if start is None else start)
        return self.step(time, _scaled(-1 / s, weights), start=start, **options)

    def level(self, state: int) -> Tensor:
        """``s = sigma / alpha`` at a state: infinite in pure noise."""
        return self.at[state].sigma / self.at[state].alpha

    def level_at(self, time: Tensor) -> Tensor:
        """``s = sigma / alpha`` at a time."""
        point = self.schedule(time)
        return point.sigma / point.alpha

    def _ratio(self, new: SchedulePoint, start: int) -> Tensor:
        return new.alpha / self.at[start].alpha

    def _terms(self, new: SchedulePoint, start: int, weights: Weights) -> tuple[Weights, Weights]:
        noise = _scaled(-new.alpha * self.level(start), weights)
        states = {j: c / self.at[j].sigma for j, c in noise.items()}
        return states, {j: -self.at[j].alpha * c for j, c in states.items()}

    def _from_heavy_end(self, lambdas: Tensor, time: Tensor, start: int) -> Tensor:
        return lambdas - self.lambdas[start]


def begin(
    prediction: Literal["data", "noise"],
    steps: int | None,
    schedule: Schedule | None,
    grid: Sequence[float] | None,
) -> tuple[ExponentialBuilder, Tensor]:
    """The builder whose solvers weigh this prediction, and the times to step through."""
    if prediction not in ("data", "noise"):
        raise ValueError(f"prediction: an exponential solver weighs 'data' or 'noise', not {prediction!r}.")
    t = resolve(steps, grid)
    return (DataBuilder if prediction == "data" else NoiseBuilder)(schedule or CondOT(), t[0]), t


def begin_noise(
    steps: int | None, schedule: Schedule | None, grid: Sequence[float] | None
) -> tuple[NoiseBuilder, Tensor]:
    """As :func:`begin`, for noise predictions and what only their builder can do."""
    t = resolve(steps, grid)
    return NoiseBuilder(schedule or CondOT(), t[0]), t


def exponential_integrals(nodes: Tensor, h: Tensor) -> Tensor:
    """Integrals ``int_0^h exp(-u) l_j(u) du`` of the Lagrange polynomials of ``nodes``, shape ``(k,)``.

    From the moments, which are incomplete Gamma functions and so exact for every ``h``, 0 to infinity.
    """
    unit = h if h.isfinite() else torch.ones_like(h)
    powers = torch.arange(len(nodes), dtype=nodes.dtype)
    factorials = torch.lgamma(powers + 1).exp()
    moments = factorials * torch.special.gammainc(powers + 1, h.expand(len(nodes))) / unit**powers
    weights: Tensor = torch.linalg.solve((nodes / unit)[None, :] ** powers[:, None], moments)
    return weights


def step_orders(order: int, steps: int, lower_order_final: bool) -> list[int]:
    """The order of every step of a multistep method: as high as the history is long.

    With ``lower_order_final`` it also falls to 1 at the end: ``min(order, steps left)``.
    """
    left = [steps - i if lower_order_final else order for i in range(steps)]
    return [min(order, i + 1, left[i]) for i in range(steps)]


def multistep(
    builder: ExponentialBuilder,
    t: Tensor,
    order: int,
    add: Callable[[Tensor, list[int]], object],
    lower_order_final: bool = False,
) -> None:
    """Append one state a step; ``add(time, calls)`` makes it of the newest calls, newest first.

    The first step from pure noise, of infinite length, is of order 1.
    """
    for i, k in enumerate(step_orders(order, len(t) - 1, lower_order_final)):
        if builder.lambdas[i] == -torch.inf:
            builder.ddim(t[i + 1])
        else:
            add(t[i + 1], list(range(i, i - k, -1)))


def finish(builder: ExponentialBuilder, end: Tensor, name: str) -> Draft:
    """The finished solver."""
    return Draft(*builder.finish(), end.item(), name, "data", builder.schedule)


def _scaled(factor: Tensor | float, weights: Weights) -> dict[int, Tensor]:
    return {j: factor * w for j, w in weights.items()}


def _sum(*terms: Weights) -> dict[int, Tensor]:
    total: dict[int, Tensor] = {}
    for weights in terms:
        for j, w in weights.items():
            total[j] = total[j] + w if j in total else w
    return total
