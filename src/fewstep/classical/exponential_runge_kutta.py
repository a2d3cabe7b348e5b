"""Exponential integrators: Runge-Kutta and Adams methods in lambda."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from torch import Tensor

from ..schedules import Schedule
from ._draft import Draft, solver
from ._exponential_builder import ExponentialBuilder, begin, finish, multistep

__all__ = ["EXPONENTIAL_TABLEAUX", "ExponentialTableau", "exponential_adams", "exponential_runge_kutta"]


@dataclass(frozen=True)
class ExponentialTableau:
    """An explicit exponential Runge-Kutta method, defined by the polynomials that it integrates.

    Each stage, at ``lambda + c_k h``, and the end of the step are reached from the start by integrating
    exactly the polynomial in lambda through the predictions at some earlier stages.

    Args:
        name: the method's name.
        order: its order of convergence.
        c: positions of the stages, in [0, 1], the first at 0.
        through: indices of the earlier stages, for every stage but the first, and for the end.

    Raises:
        ValueError: when the numbers do not form an explicit method.
    """

    name: str
    order: int
    c: tuple[Fraction, ...]
    through: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        explicit = len(self.through) == len(self.c) and all(
            row and all(0 <= k < count for k in row) and len({self.c[k] for k in row}) == len(row)
            for count, row in enumerate(self.through, start=1)
        )
        if not (self.c and self.c[0] == 0 and all(0 <= c <= 1 for c in self.c) and explicit):
            raise ValueError(
                f"ExponentialTableau {self.name!r}: c must start at 0 and stay in [0, 1], and every row of "
                f"through name earlier stages at different places, not c={self.c}, through={self.through}."
            )


_HALF, _THIRD = Fraction(1, 2), Fraction(1, 3)
#: Euler, Heun (ETD2RK of Cox and Matthews 2002), the midpoint method with the full slope, and
#: DPM-Solver-3 (algorithm 2 of Lu et al. 2022a).
EXPONENTIAL_TABLEAUX: dict[str, ExponentialTableau] = {
    "euler": ExponentialTableau("euler", 1, (Fraction(0),), ((0,),)),
    "heun": ExponentialTableau("heun", 2, (Fraction(0), Fraction(1)), ((0,), (0, 1))),
    "midpoint": ExponentialTableau("midpoint", 2, (Fraction(0), _HALF), ((0,), (0, 1))),
    "dpm3": ExponentialTableau("dpm3", 3, (Fraction(0), _THIRD, 2 * _THIRD), ((0,), (0, 1), (0, 2))),
}


@solver
def exponential_runge_kutta(
    tableau: ExponentialTableau,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    prediction: Literal["data", "noise"] = "data",
) -> Draft:
    """Any explicit exponential Runge-Kutta method that integrates polynomials in lambda.

    One call per stage; a step of infinite length in lambda has one call and is of order 1.

    Args:
        tableau: the method; see :class:`ExponentialTableau`.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        prediction: the prediction to interpolate, data or noise.

    Raises:
        ValueError: on an unknown prediction.
    """
    builder, t = begin(prediction, steps, schedule, grid)
    singlestep(builder, t, lambda time: add_step(builder, tableau, time))
    return finish(builder, t[-1], f"exponential_{tableau.name}")


@solver
def exponential_adams(
    order: int,
    steps: int | None = None,
    *,
    schedule: Schedule | None = None,
    grid: Sequence[float] | None = None,
    prediction: Literal["data", "noise"] = "data",
    lower_order_final: bool = False,
) -> Draft:
    """Exponential Adams-Bashforth: the polynomial in lambda through the last predictions; one call per step.

    With noise predictions it is DEIS in ``log_rho``; with data predictions, :func:`dpmpp` with all its
    derivative terms. In a step to pure data, of infinite length, the data prediction is constant.

    Args:
        order: 1 or more; lower in the first steps. Above 4, rounding and instability dominate.
        steps: number of steps, uniform in time.
        schedule: the schedule of the network, ``CondOT()`` by default.
        grid: times of the points, instead of ``steps``.
        prediction: the prediction to interpolate, data or noise.
        lower_order_final: reduce the order to 1 at the end.

    Raises:
        ValueError: on an order below 1, or an unknown prediction.
    """
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ValueError(f"exponential_adams: order must be a whole number of at least 1, not {order!r}.")
    builder, t = begin(prediction, steps, schedule, grid)

    def add(time: Tensor, calls: list[int]) -> int:
        return builder.step(time, builder.polynomial(time, calls))

    multistep(builder, t, order, add, lower_order_final)
    return finish(builder, t[-1], f"exponential_ab{order}")


def singlestep(builder: ExponentialBuilder, t: Tensor, add: Callable[[Tensor], None]) -> None:
    """Append one step after another; those of infinite length in lambda are of order 1."""
    for time in t[1:]:
        if builder.length(time).isfinite():
            add(time)
        else:
            builder.ddim(time)


def add_step(builder: ExponentialBuilder, tableau: ExponentialTableau, end: Tensor) -> None:
    """Append the states of one step."""
    start = builder.last
    inner = [end if c == 1 else builder.inside(end, float(c)) for c in tableau.c[1:]]
    for time, row in zip((*inner, end), tableau.through, strict=True):
        weights = builder.polynomial(time, [start + k for k in row], start=start)
        last = len(tableau.c) == builder.last - start + 1
        builder.step(time, weights, start=start, point=last)
