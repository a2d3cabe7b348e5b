"""Explicit Runge-Kutta methods, from their Butcher tableaux."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from .._builder import TableBuilder
from .._table import Table
from ..solver import Solver
from . import grids

__all__ = ["TABLEAUX", "ButcherTableau", "euler", "heun", "midpoint", "ralston", "rk2", "rk4", "runge_kutta"]


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


def _tableau(
    name: str, order: int, a: Sequence[Sequence[int | Fraction]], b: Sequence[int | Fraction]
) -> ButcherTableau:
    exact = tuple(tuple(Fraction(entry) for entry in row) for row in a)
    return ButcherTableau(name, order, exact, tuple(map(Fraction, b)))


def rk2(alpha: Fraction, name: str | None = None) -> ButcherTableau:
    """The second-order method whose stage lies at ``alpha``: 1/2 midpoint, 2/3 Ralston, 1 Heun."""
    weight = 1 / (2 * alpha)
    return _tableau(name or f"rk2({alpha})", 2, [[], [alpha]], [1 - weight, weight])


_HALF = Fraction(1, 2)
TABLEAUX: dict[str, ButcherTableau] = {
    "euler": _tableau("euler", 1, [[]], [1]),
    "midpoint": rk2(_HALF, "midpoint"),
    "heun": rk2(Fraction(1), "heun"),
    "ralston": rk2(Fraction(2, 3), "ralston"),
    "rk4": _tableau(
        "rk4",
        4,
        [[], [_HALF], [0, _HALF], [0, 0, 1]],
        [Fraction(1, 6), Fraction(1, 3), Fraction(1, 3), Fraction(1, 6)],
    ),
}


def step_nodes(tableau: ButcherTableau, t: Tensor, i: int) -> list[Tensor]:
    """Times of the stages of step ``i`` on the grid ``t``."""
    h = t[i + 1] - t[i]
    return [t[i + 1] if c == 1 else t[i] + float(c) * h for c in tableau.c]


def add_step(builder: TableBuilder, tableau: ButcherTableau, t: Tensor, i: int) -> None:
    """Append the states of step ``i`` of a Runge-Kutta method."""
    h, times = t[i + 1] - t[i], [*step_nodes(tableau, t, i), t[i + 1]]
    start, one = builder.last, torch.ones_like(h)
    for k, weights in enumerate((*tableau.a[1:], tableau.b), start=1):
        D = {start + l: h * float(w) for l, w in enumerate(weights) if w}
        builder.add(times[k], {start: one}, D, point=k == tableau.stages)


def runge_kutta_table(tableau: ButcherTableau, t: Tensor) -> tuple[Table, tuple[int, ...]]:
    """The table of a Runge-Kutta method on a grid, differentiable in the grid."""
    builder = TableBuilder(t[0])
    for i in range(len(t) - 1):
        add_step(builder, tableau, t, i)
    return builder.finish()


def runge_kutta(
    tableau: ButcherTableau, steps: int | None = None, *, grid: Sequence[float] | None = None
) -> Solver:
    """Any explicit Runge-Kutta method, on ``steps`` uniform steps or on a grid of times.

    Args:
        tableau: the method; see :class:`ButcherTableau` and :func:`rk2`.
        steps: number of uniform steps.
        grid: times to step through, instead.

    Returns:
        A solver with ``steps * tableau.stages`` calls.
    """
    t = grids.resolve(steps, grid)
    table, points = runge_kutta_table(tableau, t)
    return Solver.from_table(table, points, end=float(t[-1]), name=tableau.name)


def euler(steps: int | None = None, *, grid: Sequence[float] | None = None) -> Solver:
    """Euler's method: order 1, one call a step."""
    return runge_kutta(TABLEAUX["euler"], steps, grid=grid)


def midpoint(steps: int | None = None, *, grid: Sequence[float] | None = None) -> Solver:
    """The midpoint method: order 2, two calls a step, none of them at ``t = 1``."""
    return runge_kutta(TABLEAUX["midpoint"], steps, grid=grid)


def heun(steps: int | None = None, *, grid: Sequence[float] | None = None) -> Solver:
    """Heun's method: order 2, two calls a step, the last of them at ``t = 1``.

    Trained networks are unreliable exactly there; :func:`midpoint` is usually far better.
    """
    return runge_kutta(TABLEAUX["heun"], steps, grid=grid)


def ralston(steps: int | None = None, *, grid: Sequence[float] | None = None) -> Solver:
    """Ralston's method: order 2 with the least error bound, two calls a step."""
    return runge_kutta(TABLEAUX["ralston"], steps, grid=grid)


def rk4(steps: int | None = None, *, grid: Sequence[float] | None = None) -> Solver:
    """The classical Runge-Kutta method: order 4, four calls a step, the last of them at ``t = 1``."""
    return runge_kutta(TABLEAUX["rk4"], steps, grid=grid)
