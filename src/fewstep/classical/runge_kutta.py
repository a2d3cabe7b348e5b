"""Explicit Runge-Kutta methods, from their Butcher tableaux."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor

from .._builder import TableBuilder
from ..solver import Solver
from ._draft import Draft, solver
from ._grids import resolve

__all__ = [
    "TABLEAUX",
    "ButcherTableau",
    "bogacki_shampine",
    "dormand_prince",
    "euler",
    "heun",
    "heun3",
    "kutta3",
    "midpoint",
    "ralston",
    "rk2",
    "rk4",
    "runge_kutta",
    "ssprk3",
    "three_eighths",
]


@dataclass(frozen=True)
class ButcherTableau:
    """An explicit Runge-Kutta method: stage ``k`` sits at ``c_k`` and adds ``h sum_l a_kl u_l``.

    Args:
        name: the method's name.
        order: its order of convergence.
        a: rows of the strictly lower triangular matrix; row ``k`` has ``k`` numbers.
        b: weights of the stages in the step.
    """

    name: str
    order: int
    a: tuple[tuple[Fraction, ...], ...]
    b: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if [len(row) for row in self.a] != list(range(len(self.b))):
            raise ValueError(
                f"ButcherTableau {self.name!r}: a must be strictly lower triangular, of b's size."
            )
        if sum(self.b) != 1:
            raise ValueError(f"ButcherTableau {self.name!r}: the weights b must sum to 1, not {sum(self.b)}.")

    @property
    def c(self) -> tuple[Fraction, ...]:
        """Stage positions, the row sums of ``a``."""
        return tuple(sum(row, Fraction(0)) for row in self.a)

    @property
    def stages(self) -> int:
        """Network calls a step."""
        return len(self.b)


def rk2(alpha: Fraction, name: str | None = None) -> ButcherTableau:
    """The second-order method whose stage lies at ``alpha``: 1/2 midpoint, 2/3 Ralston, 1 Heun."""
    weight = 1 / (2 * alpha)
    return ButcherTableau(name or f"rk2({alpha})", 2, ((), (alpha,)), (1 - weight, weight))


def _tableau(name: str, order: int, *rows: str) -> ButcherTableau:
    """Return the method with these rows of ``a``, from the second on, and ``b``."""
    *a, b = [tuple(map(Fraction, row.split())) for row in ("", *rows)]
    return ButcherTableau(name, order, tuple(a), b)


#: Explicit Runge-Kutta methods.
_METHODS = (
    _tableau("euler", 1, "1"),
    rk2(Fraction(1, 2), "midpoint"),
    rk2(Fraction(2, 3), "ralston"),
    rk2(Fraction(1), "heun"),
    # Heun (1900), Kutta (1901), Shu and Osher (1988), Bogacki and Shampine (1989) without the embedded pair
    _tableau("heun3", 3, "1/3", "0 2/3", "1/4 0 3/4"),
    _tableau("kutta3", 3, "1/2", "-1 2", "1/6 2/3 1/6"),
    _tableau("ssprk3", 3, "1", "1/4 1/4", "1/6 1/6 2/3"),
    _tableau("bogacki_shampine", 3, "1/2", "0 3/4", "2/9 1/3 4/9"),
    _tableau("rk4", 4, "1/2", "0 1/2", "0 0 1", "1/6 1/3 1/3 1/6"),
    _tableau("three_eighths", 4, "1/3", "-1/3 1", "1 -1 1", "1/8 3/8 3/8 1/8"),
    _tableau(
        "dormand_prince",
        5,
        "1/5",
        "3/40 9/40",
        "44/45 -56/15 32/9",
        "19372/6561 -25360/2187 64448/6561 -212/729",
        "9017/3168 -355/33 46732/5247 49/176 -5103/18656",
        "35/384 0 500/1113 125/192 -2187/6784 11/84",
    ),
)
#: Methods by name.
TABLEAUX: dict[str, ButcherTableau] = {tableau.name: tableau for tableau in _METHODS}


def add_step(builder: TableBuilder, tableau: ButcherTableau, t: Tensor, i: int) -> None:
    """Append the states of step ``i`` of a Runge-Kutta method."""
    h = t[i + 1] - t[i]
    times = [t[i + 1] if c == 1 else t[i] + float(c) * h for c in (*tableau.c, 1)]
    start, one = builder.last, torch.ones_like(h)
    for k, weights in enumerate((*tableau.a[1:], tableau.b), start=1):
        D = {start + l: h * float(w) for l, w in enumerate(weights) if w}
        builder.add(times[k], {start: one}, D, point=k == tableau.stages)


@solver
def runge_kutta(
    tableau: ButcherTableau,
    steps: int | None = None,
    *,
    grid: Sequence[float] | None = None,
    last: ButcherTableau | None = None,
) -> Draft:
    """Any explicit Runge-Kutta method, on ``steps`` uniform steps or on a grid of times.

    Args:
        tableau: the method; see :class:`ButcherTableau` and :func:`rk2`.
        steps: number of uniform steps.
        grid: times to step through, instead.
        last: another method for the last step, such as Euler's, which calls nothing at its end.

    Returns:
        A solver with ``steps * tableau.stages`` calls, if ``last`` changes nothing.
    """
    t = resolve(steps, grid)
    builder, steps = TableBuilder(t[0]), len(t) - 1
    for i in range(steps):
        add_step(builder, last if last and i == steps - 1 else tableau, t, i)
    return Draft(*builder.finish(), t[-1].item(), tableau.name)


class _OnGrid(Protocol):
    def __call__(self, steps: int | None = None, *, grid: Sequence[float] | None = None) -> Solver: ...


def _method(name: str, about: str) -> _OnGrid:
    """The function that makes the solver of a tableau."""

    def make(steps: int | None = None, *, grid: Sequence[float] | None = None) -> Solver:
        return runge_kutta(TABLEAUX[name], steps, grid=grid)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"""{about}

    Args:
        steps: number of uniform steps.
        grid: times to step through, instead.
    """
    return make


euler = _method("euler", "Euler's method: order 1, one call a step.")
midpoint = _method("midpoint", "The midpoint method: order 2, two calls a step, none of them at ``t = 1``.")
ralston = _method("ralston", "Ralston's method: order 2 with the least error bound, two calls a step.")
heun3 = _method("heun3", "Heun's third-order method: three calls a step, none of them at its end.")
kutta3 = _method("kutta3", "Kutta's third-order method: three calls a step, the last of them at its end.")
ssprk3 = _method(
    "ssprk3",
    "The strong-stability-preserving method of order 3: three calls a step, the second at its end.",
)
bogacki_shampine = _method(
    "bogacki_shampine",
    "The third-order method of Bogacki and Shampine's pair: three calls a step, none at its end.",
)
rk4 = _method(
    "rk4",
    "The classical Runge-Kutta method: order 4, four calls a step, the last of them at ``t = 1``.",
)
three_eighths = _method(
    "three_eighths",
    "Kutta's 3/8 rule, torchdiffeq's ``rk4``: order 4, four calls a step, the last at its end.",
)
dormand_prince = _method(
    "dormand_prince",
    "The fifth-order method of Dormand and Prince's pair, with steps of given length: six calls each.",
)


def heun(
    steps: int | None = None, *, grid: Sequence[float] | None = None, euler_last: bool = False
) -> Solver:
    """Heun's method, or Lobatto III with two stages: order 2, two calls a step, the last at ``t = 1``.

    Trained networks are unreliable exactly there; :func:`midpoint` is usually far better.

    Args:
        steps: number of uniform steps.
        grid: times to step through, instead.
        euler_last: make the last step Euler's, as diffusers' ``FlowMatchHeunDiscreteScheduler`` does: one
            call less, and none at ``t = 1``.
    """
    last = TABLEAUX["euler"] if euler_last else None
    return runge_kutta(TABLEAUX["heun"], steps, grid=grid, last=last)
