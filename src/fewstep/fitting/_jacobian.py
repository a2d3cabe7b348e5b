"""The Jacobian of residuals in theta from perturbed rollouts or forward-mode derivatives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from .._table import Reduced
from ..families import Family
from ..pairs import Pairs
from ._forward_mode import REFUSALS, quiet
from ._perturbations import Perturbations, agreed, measure
from ._residuals import Residuals, Room
from ._rollout import BudgetSpentError, grouped, joined, members

__all__ = ["Columns", "Differences", "Linearisation", "Tangents", "table_derivative"]

#: Maps pairs to their residuals, ``(K B, ...)``, and Jacobian, ``(P, K B, ...)``, which the caller may
#: overwrite.
Linearisation = Callable[[Pairs], tuple[Tensor, Tensor]]


def table_derivative(family: Family, theta: Tensor) -> Reduced:
    """Return the derivative of the reduced form in each parameter, with parameters first: ``(P, ...)``."""
    with torch.enable_grad():
        change = jacobian(lambda free: tuple(family.table(free).unroll()), theta, vectorize=True)
    return Reduced(*(part.movedim(-1, 0) for part in change))


class Columns(ABC):
    """A method to compute the Jacobian of residuals in theta.

    Args:
        residuals: the residuals to differentiate.
        memory: bytes for a chunk of the Jacobian.
    """

    def __init__(self, residuals: Residuals, memory: int) -> None:
        self.residuals, self.memory = residuals, memory
        self.rollout, self.family = residuals.rollout, residuals.family

    @abstractmethod
    def at(self, theta: Tensor, pairs: Pairs) -> tuple[Linearisation, Room]:
        """Return the Jacobian at ``theta`` as a function of some of the pairs, and how many it may take."""


class Differences(Columns):
    """Columns from perturbed rollouts that start at the first row a parameter changes; for black boxes.

    With ``step=None`` the best steps, forward or central, are measured once, at the first ``theta``.
    """

    def __init__(self, residuals: Residuals, memory: int, step: float | None = None) -> None:
        super().__init__(residuals, memory)
        self.perturbations = None if step is None else Perturbations.forward(step, self.family.size)

    def at(self, theta: Tensor, pairs: Pairs) -> tuple[Linearisation, Room]:
        if self.perturbations is None:
            probe = partial(measure, self.residuals, theta, pairs)
            self.perturbations = agreed(self.rollout, probe)
        step, central = self.perturbations
        sides = torch.cat([torch.diag(step), -torch.diag(step)[central]])
        moves = self.residuals.moves(theta, [theta + side for side in sides])
        within = self.residuals.room(self.memory, len(sides), pairs)

        def columns(part: Pairs) -> tuple[Tensor, Tensor]:
            residual, moved = moves(part, within.together)
            J = moved[: len(step)]
            for p, minus in zip(central.nonzero().flatten().tolist(), moved[len(step) :], strict=True):
                J[p] -= minus
            J /= torch.where(central, 2 * step, step).to(J).reshape(-1, *[1] * residual.ndim)
            return residual, J

        return columns, within


class Tangents(Columns):
    """Columns by forward-mode differentiation: exact, without a step size.

    With dots for derivatives in one parameter,

        dx_i = da_i x_0 + sum_j (db_ij u_j + b_ij du_j),      du_j = D_x u(x_j, t_j) dx_j + D_t u dt_j,

    where ``du_j`` is a ``torch.func.jvp``, computed for all parameters at once with ``vmap`` if the network
    supports it, else one by one. Calls before the first one that depends on a parameter are skipped. A
    derivative along one direction counts as two network calls. The loss's reading of the states and its
    targets are differentiated in the same way.
    """

    batched: bool | None = None  #: whether the network supports vmap; unknown before the first pairs

    def at(self, theta: Tensor, pairs: Pairs) -> tuple[Linearisation, Room]:
        if self.batched is None:
            self.batched = self._supported(pairs[:1])
        table = self.family.table(theta).unroll()
        points, times = self.residuals.points, self.residuals.loss.times(self.family, theta)
        change, late = table_derivative(self.family, theta), self.residuals.late(theta)
        within = self.residuals.room(self.memory, self.family.size, pairs)
        changed = (Reduced(*parts) for parts in zip(*(part != 0 for part in change), strict=True))
        groups = grouped(changed, within.together)
        own = members(groups, pairs.x0.device)

        def columns(part: Pairs) -> tuple[Tensor, Tensor]:
            _, states, predictions = self.rollout.history(table, part)
            there = joined([states[i] for i in points], 0)
            moved = Reduced(*(c.to(there) for c in change))
            residual = self.residuals.of(there, times, part)
            J = torch.empty(self.family.size, *residual.shape, dtype=residual.dtype, device=residual.device)
            for (_, known, group), here in zip(groups, own, strict=True):
                some = Reduced(*(c[here] for c in moved))
                dx = self._rolled(table, some, known, part, states, predictions)
                J[here] = self.residuals.derivative(there, dx, times, late[group], part)
            return residual, J

        return columns, within

    def _rolled(
        self,
        table: Reduced,
        change: Reduced,
        known: int,
        pairs: Pairs,
        states: dict[int, Tensor],
        predictions: dict[int, Tensor],
    ) -> Tensor:
        """Return ``dx`` at the points for some parameters; calls before ``known`` do not depend on them."""
        N, x0, points = len(table.times), states[0], self.residuals.points
        column = (-1, *[1] * x0.ndim)
        times = table.times.to(x0)
        du: dict[int, Tensor] = {}

        def moved_state(i: int) -> Tensor:
            dx = change.a[:, i - 1].reshape(column) * x0
            for j in range(i):
                dx += change.b[:, i - 1, j].reshape(column) * predictions[j]
            for j, derivative in du.items():
                dx += float(table.b[i - 1, j]) * derivative
            return dx

        dx = torch.zeros(len(change.a), *x0.shape, dtype=x0.dtype, device=x0.device)
        moved = {i: dx for i in points}  # zero before the first call that changes
        for j in range(known, N):
            if j > 0:
                dx = moved_state(j)
            if j in moved:
                moved[j] = dx
            self.rollout.spend(2 * len(dx) * len(x0))
            du[j] = self._jvp(pairs, states[j], times[j], dx, change.times[:, j], self.batched is True)
        moved[N] = moved_state(N)
        return joined([moved[i] for i in points], 1)

    def _jvp(self, pairs: Pairs, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor, batched: bool) -> Tensor:
        field = pairs.bind(self.rollout.field)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return field(x, t).to(x.dtype)

        def along(dx: Tensor, dt: Tensor) -> Tensor:
            du: Tensor = torch.func.jvp(velocity, (x, t), (dx, dt))[1]
            return du

        if batched:
            du: Tensor = torch.func.vmap(along)(dx, dt)
            return du
        return torch.stack([along(*one) for one in zip(dx, dt, strict=True)])

    def _supported(self, pairs: Pairs) -> bool:
        """True if derivatives work under ``vmap``; raises if they do not work at all, or are wrong.

        A network that leaves autograd gives zero derivatives without an error, so one derivative is compared
        with a central difference.
        """
        x = self.rollout.field.initial_state(pairs.x0)
        t, h = torch.tensor(0.5).to(x), 0.01
        dx, dt = x.roll(1, dims=-1)[None], torch.ones(1).to(x)
        refusal: Exception | None = None
        for batched in (True, False):
            try:
                self.rollout.spend(2 * len(x))
                with quiet():
                    du = self._jvp(pairs, x, t, dx, dt, batched)[0]
            except REFUSALS as error:
                if isinstance(error, BudgetSpentError):
                    raise
                refusal = error
                continue
            velocity = self.rollout.velocity(pairs)
            expected = (velocity(x + h * dx[0], t + h) - velocity(x - h * dx[0], t - h)) / (2 * h)
            if float((du - expected).norm()) <= 0.5 * float(expected.norm()):
                return batched
            refusal = None
        raise ValueError(
            "GaussNewton: jacobian='jvp' needs forward-mode derivatives, which this network "
            + ("gives wrongly, for it leaves autograd on the way" if refusal is None else "does not give")
            + "; use jacobian='differences', which calls it as a black box."
        ) from refusal
