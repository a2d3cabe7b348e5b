"""Classical solvers as differentiable tables, before their numbers are frozen."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import NamedTuple, ParamSpec, Protocol, cast

from .._predictions import Prediction
from .._table import Table
from ..schedules import Schedule
from ..solver import Solver

__all__ = ["Draft", "check_order", "solver"]

Arguments = ParamSpec("Arguments")


class Draft(NamedTuple):
    """A table, differentiable in the grid that it was made on, and the facts of its :class:`Solver`."""

    table: Table
    points: tuple[int, ...]
    end: float
    name: str
    prediction: Prediction = "velocity"
    schedule: Schedule | None = None

    def solver(self) -> Solver:
        """Return the solver with the numbers of the table."""
        return Solver.from_table(**self._asdict())


class Classical(Protocol[Arguments]):
    """A function that makes a solver, with the one that makes its draft."""

    draft: Callable[Arguments, Draft]

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Solver: ...


def solver(draft: Callable[Arguments, Draft]) -> Classical[Arguments]:
    """Turn a function that returns a draft into one that returns the solver, with attribute ``draft``."""

    @wraps(draft)
    def make(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Solver:
        return draft(*args, **kwargs).solver()

    made = cast("Classical[Arguments]", make)
    made.draft = draft
    made.__signature__ = signature(draft).replace(return_annotation="Solver")  # type: ignore[attr-defined]
    return made


def check_order(function: str, order: int, highest: int) -> None:
    """Raise a ``ValueError`` unless ``order`` is a whole number from 1 to ``highest``."""
    known = range(1, highest + 1)
    if isinstance(order, bool) or order not in known:
        words = f"{', '.join(map(str, known[:-1]))} or {highest}"
        raise ValueError(f"{function}: order must be {words}, not {order!r}.")
