"""The residuals of a loss along rollouts, and their derivatives in theta."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from ..families import Family
from ..pairs import Pairs
from ._forward_mode import derivative
from ._rollout import Rollout, chunks
from ._room import Room, room
from .losses import ENDPOINT_LOSSES, LeastSquares

__all__ = ["Residuals"]


class Residuals(NamedTuple):
    """The residuals of a loss for the solvers of a family."""

    rollout: Rollout
    family: Family
    loss: LeastSquares = ENDPOINT_LOSSES["rmse"]

    @property
    def points(self) -> tuple[int, ...]:
        """Indices of the compared states."""
        return self.loss.points(self.family)

    def room(self, memory: int, columns: int, pairs: Pairs) -> Room:
        """Return chunk sizes that keep ``columns`` columns of residuals within ``memory`` bytes."""
        compared = self.loss.numbers(self.family, pairs)
        return room(memory, columns, self.family.nfe, pairs.x0[0], self.rollout.max_batch, compared)

    def squared(self, theta: Tensor, pairs: Pairs, *, checkpointed: bool = False) -> Tensor:
        """Return the mean square of each residual, float64 of shape ``(K B,)``; differentiable."""
        times = self.loss.times(self.family, theta)
        table = self.family.table(theta).unroll()
        parts = [
            self.loss.squared(
                self.rollout.states(table, part, self.points, checkpointed=checkpointed), times, part
            )
            for part in chunks(pairs, self.rollout.max_batch)
        ]
        return torch.cat(parts)

    def at(self, theta: Tensor, pairs: Pairs) -> Tensor:
        """Return the residuals, ``(K B, ...)``, of the pairs in one batch."""
        table, times = self.family.table(theta).unroll(), self.loss.times(self.family, theta)
        return self.of(self.rollout.states(table, pairs, self.points), times, pairs)

    def of(self, states: Tensor, times: Tensor, pairs: Pairs) -> Tensor:
        """Return the residuals of the compared states, ``(K B, ...)``."""
        return self.loss.read(states) - self.loss.target(times, pairs)

    def derivative(self, states: Tensor, along: Tensor, times: Tensor, late: Tensor, pairs: Pairs) -> Tensor:
        """Return the Jacobian of the residuals, given those of the states and of their times.

        Args:
            states: the compared states, ``(K B, ...)``.
            along: their derivatives in ``P`` parameters, ``(P, K B, ...)``.
            times: their times, ``(K,)``.
            late: derivatives of the times, ``(P, K)``.
            pairs: the pairs.

        Returns:
            Tensor of shape ``(P, K B, ...)``.
        """
        J = self.loss.tangents(states, along)
        for p in late.any(dim=1).nonzero().flatten().tolist():
            J[p] -= derivative(lambda t: self.loss.target(t, pairs), times, late[p])
        return J

    def late(self, theta: Tensor) -> Tensor:
        """Return the derivatives of the compared states' times in each parameter, ``(P, K)``."""
        with torch.enable_grad():
            changes: Tensor = jacobian(lambda free: self.loss.times(self.family, free), theta)
        return changes.T

    def moves(
        self, theta: Tensor, others: list[Tensor]
    ) -> Callable[[Pairs, int | None], tuple[Tensor, Tensor]]:
        """Prepare the residuals at ``theta``, and their changes at other parameters.

        Returns:
            A function of some pairs and of the number of tables to roll out together, which returns tensors
            of shapes ``(K B, ...)`` and ``(P, K B, ...)``.
        """
        table = self.family.table(theta).unroll()
        tables = [self.family.table(other).unroll() for other in others]
        times = self.loss.times(self.family, theta)
        moved = [self.loss.times(self.family, other) for other in others]
        late = [p for p, there in enumerate(moved) if not torch.equal(there, times)]

        def of(pairs: Pairs, together: int | None) -> tuple[Tensor, Tensor]:
            found, moves = self.rollout.differences(
                table, tables, pairs, together, self.points, self.loss.read
            )
            target = self.loss.target(times, pairs)
            for p in late:
                moves[p] -= self.loss.target(moved[p], pairs) - target
            return found - target, moves

        return of
