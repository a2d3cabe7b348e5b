"""Forward-only Gauss-Newton, without backpropagation through the network.

Theta has tens of numbers and the losses are sums of squares (Levenberg 1944, Marquardt 1963). The
Jacobian of the residuals is made from differences of calls, so that the network may be a black box, or
from its forward-mode derivatives.

Several tasks (numbers of calls, guidance scales, fields) that share a theta are fitted together: the loss is
then the mean over tasks of the logarithm of each task's loss. As errors fall by orders of magnitude with more
calls, a mean of errors would depend on the fewest calls only; in a mean of logarithms, relative changes count
equally in all tasks. With the link ``P`` of a task, its Jacobian in theta is ``J P``; its normal equations
``A = J^T W J``, ``g = J^T W r`` in its own parameters become ``P^T A P`` and ``P^T g`` in theta.

On a network that is rough, as with fast Fourier features of time, derivatives at a point hold over shorter
ways than a step takes: the quadratic model promises ``g^T A^-1 g``, but damping grows until nothing is
gained. Where a step gains little of what was promised, derivatives along directions of each call are given up
for differences of whole rollouts, whose steps are measured anew, from the ends of rollouts, and are longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .._device import widest
from ..pairs import Pairs
from ._directions import Directions
from ._jacobian import Columns, Differences, Tangents
from ._residuals import Residuals
from ._rollout import chunks
from ._settings import GaussNewton
from ._task import Task
from .losses import Features, LeastSquares

__all__ = ["Iterate", "Linearised", "System", "gauss_newton"]

#: Most trials of a step, each with more damping.
TRIALS = 8
#: Gain, as a share of the loss, below which a fit has settled, and the gain promised then by the model of a
#: rough network: .1 to .26 on a flow with Fourier features, .01 on a smooth flow.
SETTLED, ROUGH = 1e-3, 0.05
#: Damping at the start.
DAMPING = 1e-2


class Iterate(NamedTuple):
    """One state of an optimiser: parameters, the training loss there, and whether the network is rough."""

    theta: Tensor
    loss: float
    rough: bool = False


def gauss_newton(
    tasks: Sequence[Task],
    loss: LeastSquares,
    settings: GaussNewton,
    seed: int = 0,
    after: tuple[Tensor, int] | None = None,
) -> Iterator[Iterate]:
    """Minimise ``loss + mu |theta|^2`` with a penalty ``mu`` that decays (see :class:`.GaussNewton`).

    Yields the start and then one iterate per step, until no step improves the penalised training loss. With
    minibatches, the loss of an iterate is that of its minibatch, and a minibatch without a better step is
    skipped. The tasks have equal numbers of prepared pairs; the slope of the loss weights the residuals
    (reweighted least squares).

    With ``after``, an iterate and its number, of a fit to other pairs, that is where it starts, and the
    penalty stays what it was there.
    """
    system = System(tasks, loss, settings)
    pairs, generator = len(tasks[0].pairs), torch.Generator().manual_seed(seed)
    batch = settings.minibatch if settings.minibatch and settings.minibatch < pairs else None

    def subset() -> Tensor | None:
        return None if batch is None else torch.randperm(pairs, generator=generator)[:batch]

    theta, done = torch.zeros(tasks[0].solvers.size, dtype=torch.float64), None
    damping, growth, index, rough = DAMPING, 2.0, subset(), False
    current = first = system.loss(theta, index)
    if after is not None:
        theta, done = after
        current = system.loss(theta, index)
    yield Iterate(theta, current)
    for iteration in range(settings.iterations):
        if batch and iteration:
            index = subset()
            current = system.loss(theta, index)
        prior = 0.1 * settings.decay ** (iteration if done is None else done)
        mu = (abs(first) or 1.0) * max(settings.shrinkage / pairs, prior)
        A, g = system.normal_equations(theta, index)
        A, g = A + mu * torch.eye(len(A), dtype=A.dtype), g + mu * theta
        objective = current + mu * float(theta @ theta)
        # Not finite where the network is not, or where nothing is left to gain.
        gain = float(g @ torch.linalg.solve_ex(A, g).result)
        promised = ROUGH * system.scale(current) < gain < math.inf
        for _ in range(TRIALS):
            delta = -torch.linalg.solve(A + damping * torch.diag(A.diag()), g)
            predicted = -float(2 * g @ delta + delta @ A @ delta)
            trial = theta + delta
            trial_loss = system.loss(trial, index)
            actual = objective - trial_loss - mu * float(trial @ trial)
            gain = actual / max(predicted, torch.finfo(torch.float64).tiny)
            if gain > 0:
                break
            damping, growth = damping * growth, 2 * growth
        else:
            if promised and not batch and system.widen():
                damping, rough = DAMPING, True
            elif not (batch or system.stale):
                return
            system.forget()
            growth = 2.0
            continue
        # Nielsen (1999): the better the predicted gain, the less damping.
        damping, growth = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
        little = current - trial_loss < SETTLED * system.scale(current)
        theta, current = trial, trial_loss
        yield Iterate(theta, current, rough)
        if little and promised and not batch and system.widen():
            damping, rough = DAMPING, True
        elif little and prior < 1e-6 and system.stale:
            system.forget()
        elif little and prior < 1e-6 and not batch:
            return


class System:
    """Joint loss and normal equations of the tasks of a fit."""

    def __init__(self, tasks: Sequence[Task], loss: LeastSquares, settings: GaussNewton) -> None:
        team, pairs = tasks[0].rollout.team, len(tasks[0].pairs)
        together = min(settings.minibatch or pairs, pairs)
        if together < team.world:
            raise ValueError(
                f"GaussNewton: {team.world} processes cannot share {together} training pairs; pass "
                "more pairs, or start fewer processes."
            )
        # A Jacobian of all pairs is kept, for a single task only.
        reuse = settings.reuse if len(tasks) == 1 and together == pairs else 0
        self.members = [Linearised(task, loss, settings, reuse) for task in tasks]
        self._latest: tuple[Tensor, list[float]] | None = None

    def loss(self, theta: Tensor, index: Tensor | None = None) -> float:
        """Return the loss of a single task, or the mean logarithm of several, on all or some pairs."""
        self._latest = theta, [member.loss(theta, index) for member in self.members]
        losses = self._latest[1]
        return losses[0] if len(losses) == 1 else sum(map(_log, losses)) / len(losses)

    def normal_equations(self, theta: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``A`` and ``g`` in theta; twice ``g`` is the gradient of the loss."""
        if len(self.members) == 1:
            return self.members[0].normal_equations(theta, index)
        if self._latest is None or not torch.equal(self._latest[0], theta):
            self.loss(theta, index)
        assert self._latest is not None
        A, g = theta.new_zeros(len(theta), len(theta)), torch.zeros_like(theta)
        for member, its_loss in zip(self.members, self._latest[1], strict=True):
            # The derivative of the logarithm is one over the loss.
            weight = 1 / (len(self.members) * its_loss)
            its_A, its_g = member.normal_equations(theta, index)
            A += weight * its_A
            g += weight * its_g
        return A, g

    def scale(self, loss: float) -> float:
        """Return what gains are measured by: the loss, or for several tasks, whose logarithms count, 1."""
        return abs(loss) if len(self.members) == 1 else 1.0

    def widen(self) -> bool:
        """Take differences of whole rollouts from now on; false if they are taken already."""
        near = [member for member in self.members if isinstance(member.columns, Directions)]
        for member in near:
            member.columns = Differences(member.residuals, member.memory)
        self.forget()
        return bool(near)

    @property
    def stale(self) -> bool:
        """True if the last step used a Jacobian from an earlier theta."""
        kept = self.members[0].kept
        return kept is not None and kept.served > 0

    def forget(self) -> None:
        """Drop the Jacobian, so that the next one is computed."""
        self.members[0].kept = None


class _Kept(NamedTuple):
    """A Jacobian of all pairs, ``(P, K B, ...)``, with its theta, residuals and number of uses."""

    theta: Tensor
    residual: Tensor
    J: Tensor
    served: int


class Linearised:
    """Loss and normal equations of one task at any theta; a Jacobian serves ``reuse`` more iterations."""

    def __init__(self, task: Task, loss: LeastSquares, settings: GaussNewton, reuse: int = 0) -> None:
        self.rollout, self.family, self.link = task.rollout, task.solvers.own, task.solvers.link
        self.pairs, self.loss_of, self.memory, self.reuse = task.pairs, loss, settings.memory, reuse
        self.residuals = Residuals(self.rollout, self.family, loss)
        jacobian = settings.jacobian or ("differences" if isinstance(loss, Features) else "directions")
        self.columns: Columns
        if jacobian == "jvp":
            self.columns = Tangents(self.residuals, self.memory)
        else:
            differences = Directions if jacobian == "directions" else Differences
            self.columns = differences(self.residuals, self.memory, settings.step)
        self.kept: _Kept | None = None

    @torch.no_grad()
    def loss(self, theta: Tensor, index: Tensor | None = None) -> float:
        """Return the loss on all or some pairs, infinity instead of NaN."""
        own = self.rollout.team.own(self._some(index))
        parts = self.rollout.together(lambda: self.residuals.squared(self.link @ theta, own))
        value = float(self.loss_of(torch.cat(parts)))
        return math.inf if math.isnan(value) else value

    @torch.no_grad()
    def normal_equations(self, theta: Tensor, index: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``P^T J^T W J P`` and ``P^T J^T W r`` per residual and dimension, over all processes."""
        pairs, own = self._some(index), self.link @ theta
        parts = self.rollout.together(lambda: self._summed(own, pairs).cpu().double())
        count = len(pairs) * self.loss_of.numbers(self.family, pairs)
        total = torch.stack(parts).sum(0) / count
        return self.link.T @ total[:, :-1] @ self.link, self.link.T @ total[:, -1]

    def _some(self, index: Tensor | None) -> Pairs:
        return self.pairs if index is None else self.pairs[index]

    def _summed(self, theta: Tensor, pairs: Pairs) -> Tensor:
        """Return ``J^T W J`` and, as a column, ``J^T W r`` of this process's pairs, summed over chunks.

        The sums are on the device of the pairs: the host need not wait for it at every chunk.
        """
        size, own, device = self.family.size, self.rollout.team.own(pairs), pairs.x0.device
        sums = torch.zeros(size, size + 1, dtype=widest(device), device=device)
        if self.kept is not None and self.kept.served < self.reuse:
            self.kept = self._updated(self.kept, theta, own)
            self._accumulate(sums, self.kept.residual, self.kept.J)
            return sums
        self.kept = None  # free its memory before the next one
        linearise, within = self.columns.at(theta, own)
        for part in chunks(own, within.pairs):
            residual, J = linearise(part)
            self._accumulate(sums, residual, J)
        if self.reuse and within.pairs >= self.rollout.team.largest(len(pairs)):
            self.kept = _Kept(theta, residual, J, 0)
        return sums

    def _updated(self, kept: _Kept, theta: Tensor, pairs: Pairs) -> _Kept:
        """Apply Broyden's update ``J + (dr - J dtheta) dtheta^T / |dtheta|^2`` to each residual, in place."""
        residual = self.residuals.at(theta, pairs)
        step = (theta - kept.theta).to(residual)
        rows = kept.J.flatten(1)
        missed = (residual - kept.residual).flatten() - step @ rows
        J = rows.addr_(step / (step @ step), missed).reshape(kept.J.shape)
        return _Kept(theta, residual, J, kept.served + 1)

    def _accumulate(self, sums: Tensor, residual: Tensor, J: Tensor) -> None:
        """Add a chunk, with wide copies of a few rows at a time instead of a second Jacobian."""
        residual = residual.to(sums).flatten(1)
        weight = self.loss_of.slope(residual.square().mean(1))
        weights = weight[:, None].expand_as(residual).flatten()
        width = max(1, self.memory // 8 // (8 * len(sums)))
        parts = (J.flatten(1).split(width, 1), residual.flatten().split(width), weights.split(width))
        for block, r, w in zip(*parts, strict=True):
            rows = block.to(sums) * w.sqrt()
            sums[:, :-1] += rows @ rows.T
            sums[:, -1] += rows @ (w.sqrt() * r)


def _log(loss: float) -> float:
    """Return the logarithm, finite for a task that is solved exactly."""
    return math.log(max(loss, torch.finfo(torch.float64).tiny))
