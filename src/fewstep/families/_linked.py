"""Families with a shared theta, whose own parameters are linear in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._table import Table
from ..solver import Solver

if TYPE_CHECKING:
    from ._family import Family

__all__ = ["Linked", "series"]


class Linked(NamedTuple):
    """A family whose own parameters are ``link @ theta``, for a theta shared with other families.

    A fit computes the Jacobian ``J`` in the few own parameters; that in theta is ``J @ link``.

    Args:
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

    def within(self, outer: Tensor) -> Linked:
        """Return the same family, linked to another theta, with this ``theta = outer @ other``."""
        return Linked(self.own, self.link @ outer)


def series(coefficients: Tensor, size: int) -> Tensor:
    """Return the link of ``sum_k c_k theta_k``, where theta concatenates the ``theta_k`` of ``size`` each."""
    return torch.kron(coefficients[None], torch.eye(size, dtype=torch.float64))
