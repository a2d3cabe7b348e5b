"""The Jacobian of residuals in theta from difference quotients along a few directions per call.

A solver in reduced form, and its derivative d in one parameter of theta, by the chain rule:

    x_i  = a_i x_0 + sum_{j<i} b_ij u_j,      u_j = u(x_j, t_j)                         (1)
    dx_i = da_i x_0 + sum_{j<i} (db_ij u_j + b_ij du_j)                                 (2)
    du_j = D_x u_j dx_j + D_t u_j dt_j                                                  (3)

The table's derivatives ``da, db, dt`` come from autograd through the family, without the network. Only (3)
involves the network, through ``D_x u_j``, which is linear, and ``D_t u_j``. For ``P`` parameters it would
take ``P`` derivatives at each call.

The ``P`` columns ``dx_j`` of a sample span few dimensions, though: by (2) and (3) they are combinations of
``x_0``, of the velocities ``u_0 .. u_{j-1}``, which vary little along a smooth path, and of derivatives along
such vectors. Pivoted Gram-Schmidt (QR with column pivoting; Businger and Golub 1965) yields ``r`` orthonormal
axes ``V_j`` with

    dx_j = W_j V_j + e_j,    W_j = dx_j V_j^T,    |e_j| <= tolerance * longest column   (4)
    du_j = W_j F_j + dt_j f_j,    F_j = D_x u_j V_j,    f_j = D_t u_j                   (5)

for each sample. The derivatives are difference quotients of calls at moved states and times,

    D_x u_j v = (u(x_j + h v, t_j) - u(x_j, t_j)) / h,   or central;   likewise f_j     (6)

with steps that balance rounding and truncation (:mod:`fewstep.fitting._perturbations`). A Jacobian costs
``r + 1`` calls, or up to twice as many with central differences, at each ``j`` in place of ``P``.

The terms ``da_i x_0 + sum_j db_ij u_j`` of (2) are exact, and so are the columns of parameters that change
the last row of the table alone. The error is that of (6), and ``D_x u_j e_j`` from (4), carried on by (2).
Gauss-Newton tolerates it as an inexact Newton method (Dembo, Eisenstat and Steihaug 1982): it slows
convergence, while the loss that decides about a step is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._table import Reduced
from ..pairs import Pairs
from ._jacobian import Columns, Linearisation, table_derivative
from ._perturbations import PROBED, Perturbations, agreed, probed
from ._residuals import Residuals, Room
from ._rollout import Rollout, joined

__all__ = ["Directions", "axes"]

#: Largest part of a column outside the axes at a call, relative to the longest column there.
TOLERANCE = 0.02


class Directions(Columns):
    """Columns from differences along a few axes per call, eq. (2)-(6) of this module; for black boxes.

    ``step`` is relative to the state's RMS, and a time; with ``None`` the best step, forward or central, is
    measured at each call, once, at the first ``theta``. ``tolerance`` is that of eq. (4).
    """

    def __init__(
        self,
        residuals: Residuals,
        memory: int,
        step: float | None = None,
        tolerance: float = TOLERANCE,
    ) -> None:
        super().__init__(residuals, memory)
        self.tolerance = tolerance
        # First the steps along states, one per call, then those in time.
        self.steps = None if step is None else Perturbations.forward(step, 2 * self.family.nfe)

    def at(self, theta: Tensor, pairs: Pairs) -> tuple[Linearisation, Room]:
        """Return the Jacobian at ``theta`` as a function of some of the pairs, and how many it may take."""
        table, change = self.family.table(theta).unroll(), table_derivative(self.family, theta)
        if self.steps is None:
            self.steps = agreed(self.rollout, lambda: self._measured(table, change, pairs[:PROBED]))
        points, times = self.residuals.points, self.residuals.loss.times(self.family, theta)
        late = self.residuals.late(theta)
        # In memory: columns, their remainders outside the axes, and the axes with their derivatives.
        within = self.residuals.room(self.memory, 3 * self.family.size + 2 * self.family.nfe, pairs)

        def columns(part: Pairs) -> tuple[Tensor, Tensor]:
            path = _Path(self.rollout, table, change, part)
            for j in range(self.family.nfe):
                path.respond(*self._asked(path, j))
            there = joined([path.states[i] for i in points], 0)
            dx = joined([path.columns(i).transpose(0, 1) for i in points], 1)
            dx = dx.contiguous().unflatten(2, there.shape[1:])
            residual = self.residuals.of(there, times, part)
            return residual, self.residuals.derivative(there, dx, times, late, part)

        return columns, within

    def _asked(self, path: _Path, j: int) -> tuple[Tensor, Tensor]:
        """Return ``weights``, ``(B, P, r)``, and ``F``, ``(B, r, D)``, of ``du_j = weights @ F``, eq. (5)."""
        V, weights = axes(path.columns(j), self.tolerance)
        F = torch.zeros_like(V)
        sample, axis = (V != 0).any(dim=2).nonzero(as_tuple=True)
        if len(sample):
            F[sample, axis] = path.along(j, sample, V[sample, axis], *self._step(j))
        if path.late[j]:
            h, central = self._step(self.family.nfe + j)
            F = torch.cat([F, path.in_time(j, h, central, self.family.end)[:, None]], dim=1)
            weights = torch.cat([weights, path.dt[:, j, None].expand(len(V), -1, 1)], dim=2)
        return weights, F

    def _step(self, probe: int) -> tuple[float, bool]:
        assert self.steps is not None
        return float(self.steps.step[probe]), bool(self.steps.central[probe])

    def _measured(self, table: Reduced, change: Reduced, pairs: Pairs) -> Perturbations:
        """Measure the steps for the longest column at each call, and for its time."""
        path, N = _Path(self.rollout, table, change, pairs), self.family.nfe
        every = torch.arange(len(pairs), device=pairs.x0.device)
        longest = []
        for j in range(N):  # columns without du: only a direction of realistic size is needed
            dx = path.columns(j)
            V = dx[every, dx.square().sum(2).argmax(1)]
            longest.append(V / V.norm(dim=1, keepdim=True).clamp(min=torch.finfo(V.dtype).tiny))
            path.respond(dx[..., :0], dx[:, :0])

        def moved(probe: int, h: float) -> Tensor:
            j, in_time = probe % N, probe >= N
            t = float(table.times[j])
            middle = min(max(t, 2 * h), self.family.end - 2 * h) if in_time else t
            dx, dt = (0 * longest[j], 1.0) if in_time else (path.scale[every, j, None] * longest[j], 0.0)
            u = [path.call(j, every, m * h * dx, middle + m * h * dt - t) for m in (-2, -1, 0, 1, 2)]
            return torch.stack([u[k] - u[2] for k in (0, 1, 3, 4)])

        return probed(2 * N, lambda h, free: torch.stack([moved(p, h) for p in free.tolist()], dim=1))


class _Path:
    """The rollout of a table on some pairs, with flat states, and its derivatives in theta.

    Attributes:
        dt: derivatives of the times, ``(P, N)``; ``late`` says of each call whether it has some.
        scale: root mean square of each state passed to the network, ``(B, N)``.
    """

    def __init__(self, rollout: Rollout, table: Reduced, change: Reduced, pairs: Pairs) -> None:
        self.end, states, predictions = rollout.history(table, pairs)
        self.rollout, self.pairs, self.states = rollout, pairs, states
        self.times, self.late = table.times.tolist(), (change.times != 0).any(0).tolist()
        self.da, self.db, self.dt, self.b = (
            part.to(self.end) for part in (change.a, change.b, change.times, table.b)
        )
        order = range(len(self.times))
        self.x0 = states[0].flatten(1)
        self.u = torch.stack([predictions[j].flatten(1) for j in order], dim=1)
        self.scale = torch.stack([states[j].flatten(1).square().mean(1).sqrt() for j in order], dim=1)
        self.responses: list[tuple[Tensor, Tensor]] = []

    def columns(self, i: int) -> Tensor:
        """Return ``dx_i`` of all parameters, ``(B, P, D)``, by eq. (2); needs ``du_j`` of all ``j < i``."""
        if i == 0:
            return self.x0.new_zeros(len(self.x0), len(self.da), self.x0.shape[1])
        own = torch.cat([self.da[:, i - 1, None], self.db[:, i - 1, :i]], dim=1)
        along = [self.x0[:, None], self.u[:, :i]]
        weights = [own.expand(len(self.x0), -1, -1)]
        for j, (answer, F) in enumerate(self.responses[:i]):
            weights.append(self.b[i - 1, j] * answer)
            along.append(F)
        return torch.cat(weights, dim=2) @ torch.cat(along, dim=1)

    def respond(self, weights: Tensor, F: Tensor) -> None:
        """Add ``du`` of the next call, in the form of eq. (5)."""
        self.responses.append((weights, F))

    def along(self, j: int, sample: Tensor, V: Tensor, h: float, central: bool) -> Tensor:
        """Return ``D_x u_j V`` for unit vectors ``(K, D)`` at some samples; ``h`` is a share of the state."""
        h_x: Tensor = h * self.scale[sample, j, None] * V.shape[1] ** 0.5
        above = self.call(j, sample, h_x * V, 0.0)
        if central:
            below, width = self.call(j, sample, -h_x * V, 0.0), 2 * h_x
        else:
            below, width = self.u[sample, j], h_x
        return (above - below) / width

    def in_time(self, j: int, h: float, central: bool, end: float) -> Tensor:
        """Return ``D_t u_j`` of every sample, from calls at times in [0, end]."""
        t, every = self.times[j], torch.arange(len(self.x0), device=self.x0.device)
        still = torch.zeros_like(self.x0)
        if central and h <= t <= end - h:
            return (self.call(j, every, still, h) - self.call(j, every, still, -h)) / (2 * h)
        h = h if t + h <= end else -h
        return (self.call(j, every, still, h) - self.u[:, j]) / h

    def call(self, j: int, sample: Tensor, dx: Tensor, dt: float) -> Tensor:
        """Return the velocity, ``(K, D)``, of some samples ``(K,)`` at ``(x_j + dx, t_j + dt)``."""
        x = self.states[j][sample] + dx.unflatten(1, self.end.shape[1:])
        return self.rollout.some(self.pairs, sample, x, self.times[j] + dt).flatten(1)


def axes(columns: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Find orthonormal axes that nearly span the columns of each sample, by pivoted Gram-Schmidt: eq. (4).

    Each axis is the remainder of the column with the longest one, until no remainder is longer than
    ``tolerance`` times the longest column. Of columns ``(B, P, D)``, returns the axes ``V``, ``(B, r, D)``,
    zero where a sample needs fewer than others, and ``columns @ V^T``, ``(B, P, r)``.
    """
    rest, every = columns, torch.arange(len(columns), device=columns.device)
    found, weights = [columns[:, :0]], [columns[..., :0]]
    enough = tolerance**2 * columns.square().sum(2).amax(1)
    for _ in range(min(columns.shape[1:])):
        squared, longest = rest.square().sum(2).max(1)
        wanted = squared > enough
        if not bool(wanted.any()):
            break
        axis = torch.where(wanted, squared.rsqrt(), 0)[:, None] * rest[every, longest]
        weight = rest @ axis[..., None]
        rest = rest - weight * axis[:, None]
        found.append(axis[:, None])
        weights.append(weight)
    return torch.cat(found, dim=1), torch.cat(weights, dim=2)
