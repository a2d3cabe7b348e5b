"""A task of a fit: one of its solvers, a field, and target samples."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..families import Linked
from ..metrics import per_sample_mse
from ..pairs import Pairs
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

    @torch.no_grad()
    def errors(self, theta: Tensor, judge: LeastSquares) -> tuple[Tensor, Tensor]:
        """Return mean squares of the samples' errors and of the residuals of ``judge``, float64 ``(B,)``."""
        family, own = self.solvers.own, self.solvers.link @ theta
        table, times = family.table(own).unroll(), judge.times(family, own)

        def work() -> Tensor:
            found = [torch.zeros(0, 2, dtype=torch.float64, device=self.pairs.x0.device)]
            for part in chunks(self.rollout.team.own(self.pairs), self.rollout.max_batch):
                end = self.rollout.endpoint(table, part)
                found.append(torch.stack([per_sample_mse(end, part.x1), judge.squared(end, times, part)], 1))
            return torch.cat(found)

        errors, judged = torch.cat(self.rollout.together(work)).T
        return errors, judged
