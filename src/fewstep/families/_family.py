"""Families: maps from a parameter vector theta to a solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from .._table import Table
from ..solver import Solver

__all__ = ["Family", "Linked", "remembered", "series", "warped"]

Value = TypeVar("Value")


class Family(ABC):
    """A smooth map from ``theta``, a float64 vector of ``size`` numbers, to a table of velocities.

    ``theta = 0`` is the solver that fitting starts from, and a unit change of any entry is a
    change of order one, so that one step size and one damping serve all of them.
    """

    name: ClassVar[str]
    citation: ClassVar[tuple[str, ...]]
    #: Network calls of every solver of the family.
    nfe: int
    #: Number of parameters.
    size: int
    #: Indices of the states that are trajectory points.
    points: tuple[int, ...]
    #: Time of the sample.
    end: float = 1.0
    #: Name of the solver at ``theta = 0``.
    start: str = "start"

    @abstractmethod
    def table(self, theta: Tensor) -> Table:
        """Return the table of ``theta``, differentiable."""

    def point_times(self, theta: Tensor) -> Tensor:
        """Return the times of the trajectory points, float64 with the shape of ``points``; differentiable.

        By default, those passed to the network.
        """
        return torch.cat([self.table(theta).times[list(self.points[:-1])], theta.new_tensor([self.end])])

    @abstractmethod
    def describe(self, theta: Tensor) -> dict[str, Any]:
        """Return JSON-ready parameters, named as in the paper."""

    def member(self, nfe: int | None = None, guidance: float | None = None) -> Linked:
        """Return these solvers, which have one number of calls and serve one guidance scale."""
        if nfe not in (None, self.nfe):
            raise ValueError(f"{self.name}: these solvers make {self.nfe} calls, not nfe={nfe}; fit those.")
        return Linked(self, torch.eye(self.size, dtype=torch.float64))

    def solver(self, theta: Tensor | None = None, **facts: Any) -> Solver:
        """Return the solver of ``theta`` (by default the start), with further facts for its file."""
        theta = torch.zeros(self.size, dtype=torch.float64) if theta is None else theta.detach()
        facts = {"name": f"{self.name}-{self.nfe}", "citation": self.citation, **facts}
        family = {"name": self.name, **self.describe(theta)}
        return Solver.from_table(self.table(theta), self.points, end=self.end, family=family, **facts)


class Linked(NamedTuple):
    """A family whose own parameters are ``link @ theta``, for a theta shared with other families.

    A fit computes the Jacobian ``J`` in the few own parameters; that in theta is ``J @ link``.

    Attributes:
        own: the family.
        link: float64 of shape ``(own.size, P)``, where ``P`` is the size of theta.
    """

    own: Family
    link: Tensor

    @property
    def nfe(self) -> int:
        """Network calls of the solvers."""
        return self.own.nfe

    @property
    def size(self) -> int:
        """Size of theta."""
        return self.link.shape[1]

    def table(self, theta: Tensor) -> Table:
        """Return the table of ``theta``, differentiable."""
        return self.own.table(self.link @ theta)

    def solver(self, theta: Tensor | None = None, **facts: Any) -> Solver:
        """Return the solver of ``theta`` (by default the start), whose file has its own parameters."""
        return self.own.solver(None if theta is None else self.link @ theta, **facts)


def series(coefficients: Tensor, size: int) -> Tensor:
    """Return the link of ``sum_k c_k theta_k``, where theta concatenates the ``theta_k`` of ``size`` each."""
    return torch.kron(coefficients[None], torch.eye(size, dtype=torch.float64))


def remembered(make: Callable[[Tensor], Value]) -> Callable[[Tensor], Value]:
    """Return the function ``make(theta)``, cached for theta without gradients.

    Most perturbations of a fit do not change the times, and making a classical table takes milliseconds.
    """
    cached = lru_cache(256)(lambda numbers: make(torch.tensor(numbers, dtype=torch.float64)))
    return lambda theta: make(theta) if theta.requires_grad else cached(tuple(theta.tolist()))


def warped(start: Tensor, log_increments: Tensor) -> Tensor:
    """Move the inner points of an increasing grid, keeping both ends and the order.

    The increments are multiplied by ``exp(log_increments)`` and normalised to the same sum. At zero
    the grid is exactly ``start``.
    """
    increments = start.diff()
    total = start[-1] - start[0]

    def position(weights: Tensor) -> Tensor:
        return total * weights.cumsum(0) / weights.sum()

    shift = position(increments * log_increments.exp()) - position(increments)
    grid = torch.cat([start[:1], start[1:-1] + shift[:-1], start[-1:]])
    # With tiny increments, rounding could move a point before its predecessor or past the end.
    return grid.cummax(0).values.clamp(max=start[-1])
