"""A task of a fit: one of its solvers, a field, and target samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..families import Linked
from ..metrics import per_sample_mse
from ..pairs import Pairs
from ._gains import least_mse
from ._rollout import Rollout, chunks
from .losses import LeastSquares

__all__ = ["Task"]


class Task(NamedTuple):
    """One of the solvers that share a theta, with a field and its pairs."""

    rollout: Rollout
    solvers: Linked
    pairs: Pairs

    @property
    def calls(self) -> int:
        """Network calls of one rollout of all pairs."""
        return self.solvers.nfe * len(self.pairs)

    def errors(self, theta: Tensor, judge: LeastSquares) -> tuple[Tensor, Tensor]:
        """Return mean squares of the samples' errors and of the residuals of ``judge``, float64 ``(B,)``."""
        family, own = self.solvers.own, self.solvers.link @ theta
        table, times = family.table(own).unroll(), judge.times(family, own)

        def measure(part: Pairs) -> tuple[Tensor, Tensor]:
            end = self.rollout.endpoint(table, part)
            return per_sample_mse(end, part.x1), judge.squared(end, times, part)

        errors, judged = self._each(measure, 2)
        return errors, judged

    def limits(self, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean squares of the samples' errors now, and with the best last row for each sample.

        That row is the combination of the initial state and all predictions, at the states that the solver
        visits, which is nearest to the sample's target. The third numbers add a combination of those of
        another pair to the sample instead; NaN where a batch has no other. All are float64 ``(B,)``.
        """
        table = self.solvers.table(theta).unroll()

        def measure(part: Pairs) -> tuple[Tensor, Tensor, Tensor]:
            calls: dict[int, Tensor] = {}
            end = self.rollout.states(table, part, (self.solvers.nfe,), predictions=calls)
            columns = [self.rollout.field.initial_state(part.x0), *calls.values()]
            own = least_mse(part.x1 - end, columns).to(end.device)
            others = least_mse(part.x1 - end, [x.roll(1, 0) for x in columns]).to(end.device)
            return per_sample_mse(end, part.x1), own, others if len(part) > 1 else others * math.nan

        errors, own, others = self._each(measure, 3)
        return errors, own, others

    @torch.no_grad()
    def _each(self, measure: Callable[[Pairs], tuple[Tensor, ...]], count: int) -> Tensor:
        """Return some numbers for each pair, float64 ``(count, B)``; processes share the work."""

        def work() -> Tensor:
            found = [torch.zeros(0, count, dtype=torch.float64, device=self.pairs.x0.device)]
            for part in chunks(self.rollout.team.own(self.pairs), self.rollout.max_batch):
                found.append(torch.stack(measure(part), 1))
            return torch.cat(found)

        return torch.cat(self.rollout.together(work)).T
