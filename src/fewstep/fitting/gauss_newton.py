"""Forward-only Gauss-Newton: no gradient is asked of the network, ever.

Theta has tens of numbers and an endpoint loss is a sum of squares, so the Jacobian of the endpoint
comes from perturbed rollouts (Levenberg 1944, Marquardt 1963), and the network may be a black box.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .._table import Reduced
from ..families import Family
from ..pairs import Pairs
from ._rollout import Rollout, chunks
from .losses import EndpointLoss

__all__ = ["GaussNewton", "Iterate"]

#: Bytes that the Jacobian of one chunk of pairs may take.
MEMORY = 256 * 2**20


class Iterate(NamedTuple):
    """One state of an optimiser: parameters, and the training loss there."""

    theta: Tensor
    loss: float


class GaussNewton:
    """Levenberg-Marquardt on ``loss + mu |theta|^2`` with a penalty that is let go step by step.

    ``theta = 0`` is the initial solver, so the penalty shrinks towards it. It starts at a tenth of the
    initial loss and falls by ``decay`` an iteration to ``shrinkage / pairs`` of it: the iterates trace a
    path from the prior to the data, along which validation chooses (iteratively regularised
    Gauss-Newton, Bakushinskii 1992).

    Args:
        rollout: the field.
        family: the solvers.
        pairs: what to fit.
        loss: the endpoint loss; samples are weighed by its slope, which is reweighted least squares.
        step: size of the perturbations of theta; forward differences.
        shrinkage: final penalty over the initial loss, times the number of pairs.
        decay: factor of the penalty from one iteration to the next.
    """

    def __init__(
        self,
        rollout: Rollout,
        family: Family,
        pairs: Pairs,
        loss: EndpointLoss,
        *,
        step: float = 1e-3,
        shrinkage: float = 0.01,
        decay: float = 0.3,
    ) -> None:
        self.rollout = rollout
        self.family = family
        self.pairs = pairs
        self.loss = loss
        self.step = step
        self.shrinkage = shrinkage
        self.decay = decay

    def __call__(self, iterations: int) -> Iterator[Iterate]:
        """Yield the start and then an iterate a step, until no step improves the penalised training loss."""
        theta = torch.zeros(self.family.size, dtype=torch.float64)
        damping, growth = 1e-2, 2.0
        loss = first = self._loss(theta)
        yield Iterate(theta, loss)
        for iteration in range(iterations):
            mu = (abs(first) or 1.0) * max(self.shrinkage / len(self.pairs), 0.1 * self.decay**iteration)
            A, g = self._normal_equations(theta)
            A, g = A + mu * torch.eye(len(A), dtype=A.dtype), g + mu * theta
            objective = loss + mu * float(theta @ theta)
            for _ in range(8):
                delta = -torch.linalg.solve(A + damping * torch.diag(A.diag()), g)
                predicted = -float(2 * g @ delta + delta @ A @ delta)
                trial = theta + delta
                trial_loss = self._loss(trial)
                actual = objective - trial_loss - mu * float(trial @ trial)
                gain = actual / max(predicted, torch.finfo(torch.float64).tiny)
                if gain > 0:
                    break
                damping, growth = damping * growth, 2 * growth
            else:
                return
            # Nielsen (1999): trust the model more the better it predicted the gain.
            damping, growth = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
            settled = loss - trial_loss < 1e-3 * abs(loss) and 0.1 * self.decay**iteration < 1e-6
            theta, loss = trial, trial_loss
            yield Iterate(theta, loss)
            if settled:
                return

    def _loss(self, theta: Tensor) -> float:
        value = float(self.loss(self.rollout.squared_error(self._reduced(theta), self.pairs)))
        return value if value == value else float("inf")

    def _reduced(self, theta: Tensor) -> Reduced:
        return self.family.table(theta).unroll()

    def _normal_equations(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """``J^T W J`` and ``J^T W r`` a sample and dimension, accumulated over chunks of pairs."""
        size = self.family.size
        table = self._reduced(theta)
        perturbed = [self._reduced(theta + self.step * unit) for unit in torch.eye(size, dtype=torch.float64)]
        A, g = theta.new_zeros(size, size), theta.new_zeros(size)
        sample_bytes = 8 * size * self.pairs.x0[0].numel()
        for part in chunks(self.pairs, max(1, min(MEMORY // sample_bytes, self.rollout.max_batch))):
            end, moved = self.rollout.differences(table, perturbed, part)
            residual = (end - part.x1).double().flatten(1)
            weight = self.loss.slope(residual.square().mean(1)).sqrt()[:, None]
            J = (moved.flatten(2).double() / self.step * weight).flatten(1)
            A += (J @ J.T).cpu()
            g += (J @ (residual * weight).flatten()).cpu()
        count = self.pairs.x0.numel()
        return A / count, g / count
