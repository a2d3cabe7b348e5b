"""Forward-only Gauss-Newton: no gradient is propagated back through the network, ever.

Theta has tens of numbers and the losses are sums of squares (Levenberg 1944, Marquardt 1963). The
Jacobian of the residuals comes from differences of calls, so that the network may be a black box; where
it knows forward-mode derivatives, those serve as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..families import Family
from ..pairs import Pairs
from ._directions import Directions
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


class _Kept(NamedTuple):
    """A Jacobian of all pairs, ``(P, K B, ...)``, where it holds, residuals there, how often it served."""

    theta: Tensor
    residual: Tensor
    J: Tensor
    served: int


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
        jacobian: ``"directions"``, by differences along the few directions that the columns span at each
            call, or ``"differences"`` of perturbed rollouts, one or two a parameter; both for any network. Or
            ``"jvp"``, exact forward-mode derivatives, each of which counts as two network calls, for networks
            that have them.
        step: one step for all forward differences: in theta, or for directions as a share of the state. By
            default each parameter or call gets a step and sides of its own, from the rounding noise and
            curvature that a few probes show.
        shrinkage: final penalty over the initial loss, times the number of pairs.
        decay: factor of the penalty from one iteration to the next.
        memory: bytes for the Jacobian and the rollouts that make it, besides what the network itself takes;
            more pairs than fit are taken in chunks, of one pair at least.
        minibatch: pairs an iteration, drawn anew each time, by which both step and gain are judged; all of
            them by default.
        seed: seed of the minibatches.
        reuse: iterations that a Jacobian serves besides its own, each after Broyden's update (1965), which
            makes it right along the step just taken and costs one rollout; where it fits in memory as a
            whole.

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
        jacobian: Literal["directions", "differences", "jvp"] = "directions",
        step: float | None = None,
        shrinkage: float = 0.01,
        decay: float = 0.3,
        memory: int = MEMORY,
        minibatch: int | None = None,
        seed: int = 0,
        reuse: int = 1,
    ) -> None:
        if jacobian not in ("directions", "differences", "jvp"):
            raise ValueError(
                f"GaussNewton: jacobian must be 'directions', 'differences' or 'jvp', not {jacobian!r}."
            )
        if jacobian == "jvp" and step is not None:
            raise ValueError(f"GaussNewton: jacobian='jvp' takes no step; leave step={step} out.")
        if minibatch is not None and minibatch < 1:
            raise ValueError(f"GaussNewton: minibatch must be at least 1 pair, not {minibatch}.")
        together = min(minibatch or len(pairs), len(pairs))
        if together < rollout.team.world:
            raise ValueError(
                f"GaussNewton: {rollout.team.world} processes cannot share {together} training pairs; pass "
                "more pairs, or start fewer processes."
            )
        self.rollout = rollout
        self.family = family
        self.size = family.size
        self.pairs = pairs
        self.loss = loss
        self.residuals = Residuals(rollout, family, loss)
        self.columns: Columns
        if jacobian == "jvp":
            self.columns = Tangents(self.residuals, memory)
        else:
            differences = Directions if jacobian == "directions" else Differences
            self.columns = differences(self.residuals, memory, step)
        self.shrinkage = shrinkage
        self.decay = decay
        self.memory = memory
        self.minibatch = minibatch if minibatch is not None and minibatch < len(pairs) else None
        self.seed = seed
        self.reuse = 0 if self.minibatch else reuse
        self._kept: _Kept | None = None

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
                if self.minibatch or self._stale:
                    self._kept, growth = None, 2.0
                    continue
                return
            # Nielsen (1999): trust the model more the better it predicted the gain.
            damping, growth = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
            settled = loss - trial_loss < self._negligible(loss) and 0.1 * self.decay**iteration < 1e-6
            theta, loss = trial, trial_loss
            yield Iterate(theta, loss)
            if settled and self._stale:
                self._kept = None
            elif settled and not self.minibatch:
                return

    def _negligible(self, loss: float) -> float:
        """The gain in a step under which a fit has settled: a thousandth of its loss."""
        return 1e-3 * abs(loss)

    @property
    def _stale(self) -> bool:
        """Whether the last step came from a Jacobian that was taken elsewhere."""
        return self._kept is not None and self._kept.served > 0

    def _subset(self, generator: torch.Generator) -> Pairs:
        if self.minibatch is None:
            return self.pairs
        index = torch.randperm(len(self.pairs), generator=generator)[: self.minibatch]
        return self.pairs[index.to(self.pairs.x0.device)]

    @torch.no_grad()
    def _loss(self, theta: Tensor, pairs: Pairs) -> float:
        own = self.rollout.team.own(pairs)
        parts = self.rollout.together(lambda: self.residuals.squared(theta, own))
        value = float(self.loss(torch.cat(parts)))
        return value if value == value else float("inf")

    @torch.no_grad()
    def _normal_equations(self, theta: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """``J^T W J`` and ``J^T W r`` a residual and dimension, summed over the processes."""
        parts = self.rollout.together(lambda: torch.cat(self._summed(theta, pairs), dim=1))
        count = len(pairs) * self.loss.numbers(self.family, pairs)
        total = torch.stack(parts).sum(0) / count
        return total[:, :-1], total[:, -1]

    def _summed(self, theta: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """``J^T W J`` and, as a column, ``J^T W r`` of this process's pairs, over chunks of them."""
        size, own = self.family.size, self.rollout.team.own(pairs)
        A, g = theta.new_zeros(size, size), theta.new_zeros(size)
        if self._kept is not None and self._kept.served < self.reuse:
            self._kept = self._updated(self._kept, theta, own)
            self._accumulate(A, g, self._kept.residual, self._kept.J)
            return A, g[:, None]
        self._kept = None  # before the next one takes its place
        linearise, within = self.columns.at(theta, own)
        for part in chunks(own, within.pairs):
            residual, J = linearise(part)
            self._accumulate(A, g, residual, J)
        if self.reuse and within.pairs >= self.rollout.team.largest(len(pairs)):
            self._kept = _Kept(theta, residual, J, 0)
        return A, g[:, None]

    def _updated(self, kept: _Kept, theta: Tensor, pairs: Pairs) -> _Kept:
        """Broyden's update ``J + (dr - J dtheta) dtheta^T / |dtheta|^2``, residual by residual, in place."""
        residual = self.residuals.at(theta, pairs)
        step = (theta - kept.theta).to(residual)
        rows = kept.J.flatten(1)
        missed = (residual - kept.residual).flatten() - step @ rows
        J = rows.addr_(step / (step @ step), missed).reshape(kept.J.shape)
        return _Kept(theta, residual, J, kept.served + 1)

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
