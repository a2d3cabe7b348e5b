"""The Jacobian of the endpoint in theta, from perturbed rollouts or from forward-mode derivatives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.functional import jacobian

from .._table import Reduced
from ..families import Family
from ..pairs import Pairs
from ._perturbations import Perturbations, agreed, measure
from ._rollout import BudgetSpentError, Rollout, first_change

__all__ = ["Columns", "Differences", "Linearisation", "Room", "Tangents", "room", "table_derivative"]

#: ``x_N`` of some pairs, ``(B, ...)``, and its Jacobian, ``(P, B, ...)``, which the caller may overwrite.
Linearisation = Callable[[Pairs], tuple[Tensor, Tensor]]


class Room(NamedTuple):
    """How many pairs, and how many perturbations of them, are held at once."""

    pairs: int
    together: int


def room(memory: int, columns: int, nfe: int, sample: Tensor, max_batch: int) -> Room:
    """Chunk sizes that keep a Jacobian within ``memory`` bytes.

    Half is for what stays: ``columns`` moved endpoints a pair, the ``2 N + 1`` states and predictions of the
    unperturbed rollout, and some copies of the endpoint in float64. A quarter is for the rollouts of one
    chunk of perturbations: ``N`` predictions, and eight states that sums and calls pass through. The rest
    is the caller's. What the network itself needs comes on top, for at most ``max_batch`` samples; and one
    pair with one perturbation is always made.

    Args:
        memory: bytes.
        columns: rows of the moved tensor: parameters, and once more those with central differences.
        nfe: ``N``.
        sample: one sample.
        max_batch: most samples that the network is given at once.
    """
    state = sample.numel() * sample.element_size()
    kept = (columns + 2 * nfe + 1) * state + 4 * 8 * sample.numel()
    pairs = max(1, min(memory // 2 // kept, max_batch))
    together = max(1, min(memory // 4 // ((nfe + 8) * state * pairs), max_batch // pairs))
    return Room(pairs, together)


def table_derivative(family: Family, theta: Tensor) -> Reduced:
    """The derivative of the reduced form in each parameter, which come first: ``(P, ...)``."""
    with torch.enable_grad():
        change = jacobian(lambda free: tuple(family.table(free).unroll()), theta, vectorize=True)
    return Reduced(*(part.movedim(-1, 0) for part in change))


class Columns(Protocol):
    """A way to find the Jacobian."""

    def at(self, theta: Tensor, pairs: Pairs) -> tuple[Linearisation, Room]:
        """The Jacobian at ``theta`` as a function of a part of the pairs, and how large that may be."""


class Differences:
    """Columns from perturbed rollouts, each from the row on that its parameter changes; for black boxes.

    Args:
        rollout: the field.
        family: the solvers.
        memory: bytes for a chunk of the Jacobian.
        step: one step for forward differences in every parameter, or ``None`` to measure where the steps
            and sides should be (once, at the first ``theta``).
    """

    def __init__(self, rollout: Rollout, family: Family, memory: int, step: float | None = None) -> None:
        self.rollout = rollout
        self.family = family
        self.memory = memory
        self.perturbations = None if step is None else Perturbations.forward(step, family.size)

    def at(self, theta: Tensor, pairs: Pairs) -> tuple[Linearisation, Room]:
        if self.perturbations is None:
            self.perturbations = agreed(
                self.rollout, lambda: measure(self.rollout, self.family, theta, pairs)
            )
        step, central = self.perturbations
        sides = torch.cat([torch.diag(step), -torch.diag(step)[central]])
        table = self.family.table(theta).unroll()
        tables = [self.family.table(theta + side).unroll() for side in sides]
        within = room(self.memory, len(tables), self.family.nfe, pairs.x0[0], self.rollout.max_batch)

        def columns(part: Pairs) -> tuple[Tensor, Tensor]:
            end, moved = self.rollout.differences(table, tables, part, within.together)
            J = moved[: len(step)]
            for p, minus in zip(central.nonzero().flatten().tolist(), moved[len(step) :], strict=True):
                J[p] -= minus
            J /= torch.where(central, 2 * step, step).to(J).reshape(-1, *[1] * end.ndim)
            return end, J

        return columns, within


class Tangents:
    """Columns by forward-mode differentiation: exact, and no step to choose.

    With dots for derivatives in one parameter,

        dx_i = da_i x_0 + sum_j (db_ij u_j + b_ij du_j),      du_j = D_x u(x_j, t_j) dx_j + D_t u dt_j,

    where ``du_j`` is a ``torch.func.jvp``, taken for all parameters at once by ``vmap`` where the network
    allows that, and one by one elsewhere. Calls before the first that depends on a parameter are left out.
    A derivative along one direction counts as two network calls.

    Args:
        rollout: the field.
        family: the solvers.
        memory: bytes for a chunk of the Jacobian.
    """

    def __init__(self, rollout: Rollout, family: Family, memory: int) -> None:
        self.rollout = rollout
        self.family = family
        self.memory = memory
        self.batched: bool | None = None

    def at(self, theta: Tensor, pairs: Pairs) -> tuple[Linearisation, Room]:
        if self.batched is None:
            self.batched = self._supported(pairs[:1])
        table = self.family.table(theta).unroll()
        change = table_derivative(self.family, theta)
        within = room(self.memory, self.family.size, self.family.nfe, pairs.x0[0], self.rollout.max_batch)
        starts: dict[tuple[int, int], list[int]] = {}
        for p, (times, a, b) in enumerate(zip(*change, strict=True)):
            starts.setdefault(first_change((a != 0) | (b != 0).any(dim=1), times != 0), []).append(p)
        groups = [
            (known, members[first : first + within.together])
            for (_, known), members in starts.items()
            for first in range(0, len(members), within.together)
        ]

        def columns(part: Pairs) -> tuple[Tensor, Tensor]:
            end, states, predictions = self.rollout.history(table, part)
            J = torch.empty(self.family.size, *end.shape, dtype=end.dtype, device=end.device)
            for known, group in groups:
                some = Reduced(*(c[group].to(end) for c in change))
                J[group] = self._rolled(table, some, known, part, states, predictions)
            return end, J

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
        """``dx_N`` along some parameters; the calls before number ``known`` do not move."""
        N, x0 = len(table.times), states[0]
        column = (-1, *[1] * x0.ndim)
        dx = torch.zeros(len(change.a), *x0.shape, dtype=x0.dtype, device=x0.device)
        du: dict[int, Tensor] = {}
        for i in range(known + 1, N + 1):
            if i > 1:
                dx = self._sum(table, change, i - 1, column, x0, predictions, du)
            du[i - 1] = self._derivative(pairs, states[i - 1], table.times[i - 1], dx, change.times[:, i - 1])
        return self._sum(table, change, N, column, x0, predictions, du)

    @staticmethod
    def _sum(
        table: Reduced,
        change: Reduced,
        i: int,
        column: tuple[int, ...],
        x0: Tensor,
        predictions: dict[int, Tensor],
        du: dict[int, Tensor],
    ) -> Tensor:
        dx = change.a[:, i - 1].reshape(column) * x0
        for j in range(i):
            dx += change.b[:, i - 1, j].reshape(column) * predictions[j]
        for j, derivative in du.items():
            dx += float(table.b[i - 1, j]) * derivative
        return dx

    def _derivative(self, pairs: Pairs, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor) -> Tensor:
        """``du`` of shape ``(G, B, ...)`` for ``dx`` of that shape and ``dt`` of shape ``(G,)``."""
        self.rollout.spend(2 * len(dx) * len(x))
        return self._jvp(pairs, x, t.to(x), dx, dt.to(x), self.batched is True)

    def _jvp(self, pairs: Pairs, x: Tensor, t: Tensor, dx: Tensor, dt: Tensor, batched: bool) -> Tensor:
        def velocity(x: Tensor, t: Tensor) -> Tensor:
            return self.rollout.field(x, t, **pairs.conditions).to(x.dtype)

        def along(dx: Tensor, dt: Tensor) -> Tensor:
            du: Tensor = torch.func.jvp(velocity, (x, t), (dx, dt))[1]
            return du

        if batched:
            du: Tensor = torch.func.vmap(along)(dx, dt)
            return du
        return torch.stack([along(*one) for one in zip(dx, dt, strict=True)])

    def _supported(self, pairs: Pairs) -> bool:
        """Whether derivatives come batched; raises where they do not come, or are wrong.

        A network that leaves autograd for a while gives no error but a derivative of zero, so that one is
        held against a central difference.
        """
        x = self.rollout.field.initial_state(pairs.x0)
        t, h = torch.tensor(0.5).to(x), 0.01
        dx, dt = x.roll(1, dims=-1)[None], torch.ones(1).to(x)
        refusal: Exception | None = None
        for batched in (True, False):
            try:
                self.rollout.spend(2 * len(x))
                with warnings.catch_warnings():
                    # On first use torch prepares forward mode with a function that it deprecates itself.
                    warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
                    du = self._jvp(pairs, x, t, dx, dt, batched)[0]
            except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
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
