"""The base classes of losses and of reweighted least squares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from ...families import Family
from ...field import Field
from ...metrics import per_sample_mse
from ...pairs import Pairs

__all__ = ["LeastSquares", "Loss"]


class Loss(ABC):
    """The base of all losses."""

    #: Name in reports and solver files.
    name: str

    @property
    @abstractmethod
    def judge(self) -> LeastSquares:
        """The least-squares loss that selects the iterate on the validation pairs."""

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        """Return the pairs with the loss's further targets, and the number of network calls made for them."""
        return pairs, 0


class LeastSquares(Loss):
    """The mean of ``rho(mse)`` over residuals, with ``mse`` the mean square of each and ``rho`` concave.

    The derivative ``slope`` of ``rho`` is the weight of the residuals in Gauss-Newton. A residual is
    ``read(state) - target``. The residuals are the rows of one batch: those of all pairs at the first
    compared point, then those at the second, and so on.
    """

    rho: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]

    @property
    def judge(self) -> LeastSquares:
        return self

    def __call__(self, mse: Tensor) -> Tensor:
        """Return the loss, given the mean squares of all residuals."""
        return self.rho(mse).mean()

    def points(self, family: Family) -> tuple[int, ...]:
        """Return the indices of the ``K`` compared states."""
        return (family.nfe,)

    def times(self, family: Family, theta: Tensor) -> Tensor:
        """Return the times of the compared states, ``(K,)``, on which targets may depend; differentiable."""
        return theta.new_full((1,), family.end)

    def read(self, states: Tensor) -> Tensor:
        """Return the compared quantity of states ``(B, ...)``."""
        return states

    def tangents(self, states: Tensor, along: Tensor) -> Tensor:
        """Return the derivatives of :meth:`read` along directions ``(G, B, ...)``."""
        return along

    def target(self, times: Tensor, pairs: Pairs) -> Tensor:
        """Return the targets, ``(K B, ...)``; differentiable in the times."""
        return pairs.x1

    def squared(self, states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        """Return the mean square of each residual, float64 of shape ``(K B,)``."""
        return per_sample_mse(self.read(states), self.target(times, pairs))

    def numbers(self, family: Family, pairs: Pairs) -> int:
        """Return how many numbers are compared per pair."""
        with torch.no_grad():
            start = torch.zeros(family.size, dtype=torch.float64)
            return self.target(self.times(family, start), pairs[:1]).numel()
