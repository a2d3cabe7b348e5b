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
from .losses import ENDPOINT_LOSSES, LeastSquares

__all__ = ["Residuals", "Room"]


class Room(NamedTuple):
    """Numbers of pairs, and of perturbations of them, per chunk."""

    pairs: int
    together: int


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
        """Return chunk sizes that keep a Jacobian of so many columns per pair within ``memory`` bytes.

        Half of the memory is for the results: the columns, the ``2 N + 1`` states and predictions of the
        unperturbed rollout, and some float64 copies of the residual. A quarter is for the rollouts of one
        chunk of perturbations: ``N`` predictions and eight temporary states. The rest is left to the caller.
        The network's own memory is not included. A chunk has at least one pair and one perturbation.
        """
        N, sample, max_batch = self.family.nfe, pairs.x0[0], self.rollout.max_batch
        compared = self.loss.numbers(self.family, pairs)
        state, residual = (count * sample.element_size() for count in (sample.numel(), compared))
        kept = columns * residual + (2 * N + 1) * state + 4 * 8 * compared
        count = max(1, min(memory // 2 // kept, max_batch))
        rolled = (N + 8) * state + max(0, residual - state)
        return Room(count, max(1, min(memory // 4 // (rolled * count), max_batch // count)))

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
        """Return the Jacobian of the residuals, ``(P, K B, ...)``.

        ``along`` and ``late`` are the derivatives of the compared states, ``(P, K B, ...)``, and of their
        times, ``(P, K)``.
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
        """Return a function of some pairs and of the number of tables to roll out together.

        It returns the residuals at ``theta``, ``(K B, ...)``, and their changes at the other parameters,
        ``(P, K B, ...)``.
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
