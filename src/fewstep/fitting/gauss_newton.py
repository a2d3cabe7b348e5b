"""Forward-only Gauss-Newton: no gradient is propagated back through the network, ever.

Theta has tens of numbers and the losses are sums of squares, so the Jacobian of the residuals
comes from perturbed rollouts (Levenberg 1944, Marquardt 1963), and the network may be a black box.
Where it knows forward-mode derivatives, those serve as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..families import Family
from ..pairs import Pairs
from ._jacobian import Columns, Differences, Tangents
from ._residuals import Residuals
from ._rollout import Rollout, chunks
from .losses import LeastSquares

__all__ = ["GaussNewton", "Iterate"]

#: Bytes that a chunk of the Jacobian and the rollouts that make it may take, by default.
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
        pairs: what to fit, as the loss prepared them.
        loss: the loss; residuals are weighed by its slope, which is reweighted least squares.
        jacobian: ``"differences"`` of perturbed rollouts, for any network; or ``"jvp"``, exact forward-mode
            derivatives, each of which counts as two network calls, for networks that have them.
        step: one step for forward differences in all of theta. By default each parameter gets a step
            and sides of its own, from the rounding noise and curvature that a few rollouts show.
        shrinkage: final penalty over the initial loss, times the number of pairs.
        decay: factor of the penalty from one iteration to the next.
        memory: bytes for the Jacobian and the rollouts that make it, besides what the network itself takes;
            more pairs than fit are taken in chunks, of one pair at least.
        minibatch: pairs an iteration, drawn anew each time, by which both step and gain are judged; all of
            them by default.
        seed: seed of the minibatches.

    Raises:
        ValueError: on another ``jacobian``, a minibatch below 1, or a network without the derivatives.
    """

    def __init__(
        self,
        rollout: Rollout,
        family: Family,
        pairs: Pairs,
        loss: LeastSquares,
        *,
        jacobian: Literal["differences", "jvp"] = "differences",
        step: float | None = None,
        shrinkage: float = 0.01,
        decay: float = 0.3,
        memory: int = MEMORY,
        minibatch: int | None = None,
        seed: int = 0,
    ) -> None:
        if jacobian not in ("differences", "jvp"):
            raise ValueError(f"GaussNewton: jacobian must be 'differences' or 'jvp', not {jacobian!r}.")
        if jacobian == "jvp" and step is not None:
            raise ValueError(f"GaussNewton: jacobian='jvp' takes no step; leave step={step} out.")
        if minibatch is not None and minibatch < 1:
            raise ValueError(f"GaussNewton: minibatch must be at least 1 pair, not {minibatch}.")
        self.rollout = rollout
        self.family = family
        self.size = family.size
        self.pairs = pairs
        self.loss = loss
        self.residuals = Residuals(rollout, family, loss)
        self.columns: Columns = (
            Tangents(rollout, family, memory, loss)
            if jacobian == "jvp"
            else Differences(rollout, family, memory, step, loss)
        )
        self.shrinkage = shrinkage
        self.decay = decay
        self.memory = memory
        self.minibatch = minibatch if minibatch is not None and minibatch < len(pairs) else None
        self.seed = seed

    def __call__(self, iterations: int) -> Iterator[Iterate]:
        """Yield the start and then an iterate a step, until no step improves the penalised training loss.

        With minibatches the loss of an iterate is that of its minibatch, and a minibatch without a better
        step is passed over.
        """
        theta = torch.zeros(self.size, dtype=torch.float64)
        generator = torch.Generator().manual_seed(self.seed)
        damping, growth = 1e-2, 2.0
        pairs = self._subset(generator)
        loss = first = self._loss(theta, pairs)
        yield Iterate(theta, loss)
        for iteration in range(iterations):
            if self.minibatch and iteration:
                pairs = self._subset(generator)
                loss = self._loss(theta, pairs)
            mu = (abs(first) or 1.0) * max(self.shrinkage / len(self.pairs), 0.1 * self.decay**iteration)
            A, g = self._normal_equations(theta, pairs)
            A, g = A + mu * torch.eye(len(A), dtype=A.dtype), g + mu * theta
            objective = loss + mu * float(theta @ theta)
            for _ in range(8):
                delta = -torch.linalg.solve(A + damping * torch.diag(A.diag()), g)
                predicted = -float(2 * g @ delta + delta @ A @ delta)
                trial = theta + delta
                trial_loss = self._loss(trial, pairs)
                actual = objective - trial_loss - mu * float(trial @ trial)
                gain = actual / max(predicted, torch.finfo(torch.float64).tiny)
                if gain > 0:
                    break
                damping, growth = damping * growth, 2 * growth
            else:
                if self.minibatch:
                    growth = 2.0
                    continue
                return
            # Nielsen (1999): trust the model more the better it predicted the gain.
            damping, growth = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
            settled = loss - trial_loss < self._negligible(loss) and 0.1 * self.decay**iteration < 1e-6
            theta, loss = trial, trial_loss
            yield Iterate(theta, loss)
            if settled and not self.minibatch:
                return

    def _negligible(self, loss: float) -> float:
        """The gain in a step under which a fit has settled: a thousandth of its loss."""
        return 1e-3 * abs(loss)

    def _subset(self, generator: torch.Generator) -> Pairs:
        if self.minibatch is None:
            return self.pairs
        index = torch.randperm(len(self.pairs), generator=generator)[: self.minibatch]
        return self.pairs[index.to(self.pairs.x0.device)]

    @torch.no_grad()
    def _loss(self, theta: Tensor, pairs: Pairs) -> float:
        value = float(self.loss(self.residuals.squared(theta, pairs)))
        return value if value == value else float("inf")

    @torch.no_grad()
    def _normal_equations(self, theta: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """``J^T W J`` and ``J^T W r`` a residual and dimension, accumulated over chunks of pairs."""
        size = self.family.size
        A, g = theta.new_zeros(size, size), theta.new_zeros(size)
        linearise, within = self.columns.at(theta, pairs)
        for part in chunks(pairs, within.pairs):
            self._accumulate(A, g, *linearise(part))
        count = len(pairs) * self.loss.numbers(self.family, pairs)
        return A / count, g / count

    def _accumulate(self, A: Tensor, g: Tensor, residual: Tensor, J: Tensor) -> None:
        """Add a chunk, with float64 copies of a few rows at a time instead of a second Jacobian."""
        residual = residual.double().flatten(1)
        weight = self.loss.slope(residual.square().mean(1))
        weights = weight[:, None].expand_as(residual).flatten()
        width = max(1, self.memory // 8 // (8 * len(A)))
        parts = (J.flatten(1).split(width, 1), residual.flatten().split(width), weights.split(width))
        for block, r, w in zip(*parts, strict=True):
            rows = block.double() * w.sqrt()
            A += (rows @ rows.T).cpu()
            g += (rows @ (w.sqrt() * r)).cpu()
