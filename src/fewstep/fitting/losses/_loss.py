"""What all losses have in common, and what those have that are reweighted least squares."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ...families import Family
from ...field import Field
from ...metrics import per_sample_mse
from ...pairs import Pairs

__all__ = ["LeastSquares", "Loss"]


class Loss(ABC):
    """What a fit minimises."""

    #: For reports and solver files.
    name: str

    @property
    @abstractmethod
    def judge(self) -> LeastSquares:
        """The loss whose residuals, on validation pairs, choose among the iterates."""

    def prepared(self, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[Pairs, int]:
        """The pairs, with whatever else the loss compares with, and the network calls that took."""
        return pairs, 0


class LeastSquares(Loss):
    """The mean of ``rho(mse)`` over residuals, with ``mse`` the mean square of each and ``rho`` concave.

    A residual is what is read of a state less its target. Residuals are the rows of one batch: those of all
    pairs at the first point that is compared, then those at the second, and so on.
    """

    @abstractmethod
    def rho(self, mse: Tensor) -> Tensor:
        """The loss of each residual, given its mean square."""

    @abstractmethod
    def slope(self, mse: Tensor) -> Tensor:
        """The derivative of ``rho``, by which Gauss-Newton weighs the residuals."""

    def __call__(self, mse: Tensor) -> Tensor:
        """The loss, given the mean squares of all residuals."""
        return self.rho(mse).mean()

    def points(self, family: Family) -> tuple[int, ...]:
        """The states that are compared, ``K`` of them."""
        return (family.nfe,)

    def times(self, family: Family, theta: Tensor) -> Tensor:
        """Their times, ``(K,)``, as far as the target depends on them; differentiable."""
        return theta.new_full((1,), family.end)

    def read(self, states: Tensor) -> Tensor:
        """What is compared of states ``(B, ...)``."""
        return states

    def tangents(self, states: Tensor, along: Tensor) -> Tensor:
        """Derivatives of :meth:`read` along directions ``(G, B, ...)``."""
        return along

    def target(self, times: Tensor, pairs: Pairs) -> Tensor:
        """What it should be, ``(K B, ...)``; differentiable in the times."""
        return pairs.x1

    def squared(self, states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        """Mean square of each residual, float64 of shape ``(K B,)``."""
        return per_sample_mse(self.read(states), self.target(times, pairs))

    def numbers(self, family: Family, pairs: Pairs) -> int:
        """How many numbers are compared a pair."""
        with torch.no_grad():
            start = torch.zeros(family.size, dtype=torch.float64)
            return self.target(self.times(family, start), pairs[:1]).numel()
