"""Rollouts of tables on pairs: states, and their changes when a table is perturbed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._execute import Row, execute, plan
from .._table import Reduced
from ..field import Field
from ..metrics import per_sample_mse
from ..pairs import Pairs
from ._team import BudgetSpentError, Team

__all__ = ["BudgetSpentError", "Rollout", "chunks", "grouped", "joined", "members"]


class _Budget:
    """Network calls made so far, those up to the last exchange between processes, and their limit."""

    def __init__(self, limit: float) -> None:
        self.calls, self.met, self.limit = 0, 0, limit


class Rollout:
    """A field for sampling many slightly different tables from the same noises.

    A network call has at most ``max_batch`` samples; one beyond the limit raises :class:`BudgetSpentError`.
    """

    def __init__(self, field: Field, max_batch: int, limit: float = math.inf) -> None:
        self.field = field
        self.max_batch = max_batch
        self.team = Team.current()
        self._budget = _Budget(limit)

    def sharing(self, field: Field) -> Rollout:
        """Return a rollout of another field with the same call count and limit."""
        other = copy(self)
        other.field = field
        return other

    @property
    def calls(self) -> int:
        """Network calls so far, one per sample and evaluation.

        With several processes: those of all processes up to the last exchange, and this one's since.
        """
        return self._budget.calls

    @property
    def limit(self) -> float:
        """Most network calls."""
        return self._budget.limit

    @limit.setter
    def limit(self, limit: float) -> None:
        self._budget.limit = limit

    def endpoint(self, table: Reduced, pairs: Pairs, *, checkpointed: bool = False) -> Tensor:
        """Return ``x_N`` of every pair, ``(B, ...)``; differentiable in the table."""
        return self.states(table, pairs, (len(table.times),), checkpointed=checkpointed)

    def states(
        self,
        table: Reduced,
        pairs: Pairs,
        points: Sequence[int],
        *,
        checkpointed: bool = False,
        predictions: dict[int, Tensor] | None = None,
    ) -> Tensor:
        """Return ``K`` states of every pair, ``(K B, ...)``: the first for all pairs, then the second.

        It is differentiable in the table. With ``checkpointed`` the backward pass recomputes the network's
        activations instead of storing them. ``predictions`` receives those of all calls.
        """
        velocity = self.velocity(pairs)

        def call(j: int, x: Tensor, t: Tensor) -> Tensor:
            if checkpointed:
                u: Tensor = checkpoint(velocity, x, t, use_reentrant=False)
                return u
            return velocity(x, t)

        with torch.set_grad_enabled(any(part.requires_grad for part in table)):
            numbers = Reduced(*(part.to(pairs.x0) for part in table))
            states = {0: self.field.initial_state(pairs.x0)}
            rows = _rows(numbers, points, predictions is not None)
            execute(call, list(numbers.times), rows, states, {} if predictions is None else predictions)
            return joined([states[i] for i in points], 0)

    @torch.no_grad()
    def squared_error(self, table: Reduced, pairs: Pairs) -> Tensor:
        """Return the mean square of ``x_N - x_1`` per pair, ``(B,)``, float64; processes share the work."""

        def work() -> Tensor:
            parts = chunks(self.team.own(pairs), self.max_batch)
            errors = [per_sample_mse(self.endpoint(table, part), part.x1) for part in parts]
            return torch.cat([torch.zeros(0, dtype=torch.float64, device=pairs.x0.device), *errors])

        return torch.cat(self.together(work))

    @torch.no_grad()
    def differences(
        self,
        table: Reduced,
        perturbed: Sequence[Reduced],
        pairs: Pairs,
        together: int | None = None,
        points: Sequence[int] | None = None,
        read: Callable[[Tensor], Tensor] = lambda states: states,
    ) -> tuple[Tensor, Tensor]:
        """Return a function of some states of ``table``, and its changes for each perturbed table.

        A perturbation that first changes row ``i`` starts there, from the unperturbed history; one of
        the last row needs no call. Tables that start at the same row share their batches, ``together`` at
        most, by default as many as fit ``max_batch``.

        Returns:
            The values, ``(K B, ...)`` as in :meth:`states`, and their changes, ``(P, K B, ...)``.
        """
        points = (len(table.times),) if points is None else points
        _, states, predictions = self.history(table, pairs)
        end = read(joined([states[i] for i in points], 0))
        velocity = self.velocity(pairs)
        moved = torch.empty(len(perturbed), *end.shape, dtype=end.dtype, device=end.device)
        changed = (Reduced(*map(torch.ne, table, other)) for other in perturbed)
        width = max(1, self.max_batch // len(pairs) if together is None else together)
        stacked = Reduced(*(torch.stack(part, dim=-1).to(end) for part in zip(*perturbed, strict=True)))
        groups = grouped(changed, width)
        for (start, known, _), group in zip(groups, members(groups, end.device), strict=True):
            unchanged = dict(list(predictions.items())[:known])
            tables = Reduced(*(part[..., group] for part in stacked))
            there = self._from_row(start, tables, velocity, states, unchanged, points)
            moved[group] = read(there.flatten(0, 1)).unflatten(0, there.shape[:2])
            del there  # free its memory before the next group
        return end, moved.sub_(end)

    def history(self, table: Reduced, pairs: Pairs) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
        """Return ``x_N``, and all states and predictions by index."""
        velocity = self.velocity(pairs)
        states = {0: self.field.initial_state(pairs.x0)}
        predictions: dict[int, Tensor] = {}
        keep = range(len(table.times) + 1)
        rows = plan(table.a[:, None].tolist(), table.b.tolist(), keep, keep_predictions=True)
        end = execute(lambda j, x, t: velocity(x, t), table.times.tolist(), rows, states, predictions)
        return end, states, predictions

    def _from_row(
        self,
        start: int,
        tables: Reduced,
        velocity: Callable[[Tensor, Tensor], Tensor],
        states: Mapping[int, Tensor],
        predictions: dict[int, Tensor],
        points: Sequence[int],
    ) -> Tensor:
        """Roll out ``P`` tables at once from row ``start`` on; return the ``points``, ``(P, K B, ...)``.

        The numbers of the tables have a last dimension of length ``P``.
        """
        x0 = states[0]
        P, B = tables.times.shape[-1], len(x0)
        # Tables come before as many dimensions as the states have.
        stacked = Reduced(*(part.reshape(*part.shape, *[1] * x0.ndim) for part in tables))

        def call(j: int, x: Tensor, t: Tensor) -> Tensor:
            x = x.expand(P, *x0.shape)  # a shared state where only the time is perturbed
            u: Tensor = velocity(x.flatten(0, 1), t.repeat_interleave(B)).unflatten(0, (P, B))
            return u

        known = {j: x for j, x in states.items() if j in (0, start - 1)}
        times = list(stacked.times.flatten(1))
        execute(call, times, _rows(stacked, points), known, predictions, start)
        there = [known[i] if i >= start else states[i] for i in points]
        return joined([x.expand(P, *x0.shape) for x in there], 1)

    def together(self, work: Callable[[], Tensor]) -> list[Tensor]:
        """Return the results of all processes in rank order, and count the calls of all."""
        if self.team.world == 1:
            return [work()]
        try:
            parts, calls = self.team.gather(work, lambda: self.calls - self._budget.met)
        except BudgetSpentError as error:
            self._meet(error.calls)
            raise
        self._meet(calls)
        return parts

    def _meet(self, calls: int) -> None:
        self._budget.met += calls
        self._budget.calls = self._budget.met

    def spend(self, calls: int) -> None:
        """Count network calls before they are made; each process may make its share of the remaining ones."""
        met = self._budget.met
        if self.calls - met + calls > (self.limit - met) / self.team.world:
            raise BudgetSpentError
        self._budget.calls += calls

    @torch.no_grad()
    def some(self, pairs: Pairs, index: Tensor, x: Tensor, t: float) -> Tensor:
        """Return the velocity at states ``(K, ...)`` with the conditions of the pairs ``index``, ``(K,)``."""
        self.spend(len(x))
        field = pairs.bind(self.field)
        parts = zip(x.split(self.max_batch), index.split(self.max_batch), strict=True)
        return torch.cat([field.rows(own)(part, t).to(x.dtype) for part, own in parts])

    def velocity(self, pairs: Pairs) -> Callable[[Tensor, Tensor | float], Tensor]:
        """Return the field as a function of state and time that counts its calls and repeats conditions."""
        B = latest = len(pairs)
        field = own = pairs.bind(self.field)

        def velocity(x: Tensor, t: Tensor | float) -> Tensor:
            nonlocal latest, own
            self.spend(len(x))
            if len(x) != latest:
                latest, own = len(x), field  # free the conditions before others are made
                if len(x) != B:
                    own = field.rows(torch.arange(len(x), device=x.device) % B)
            return own(x, t).to(x.dtype)

        return velocity


def chunks(pairs: Pairs, size: int) -> Iterator[Pairs]:
    """Yield the pairs in chunks of at most ``size``."""
    for first in range(0, len(pairs), size):
        yield pairs[first : first + size]


def joined(parts: list[Tensor], dim: int) -> Tensor:
    """Concatenate the parts; a single one is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _rows(table: Reduced, points: Sequence[int], keep_predictions: bool = False) -> list[Row]:
    """Return the rows of a table of tensors, without structural zeros, keeping the states at ``points``."""
    b = [list(b_i[: i + 1]) for i, b_i in enumerate(table.b)]
    return plan([[a_i] for a_i in table.a], b, points, keep_predictions)


def grouped(changed: Iterable[Reduced], width: int) -> list[tuple[int, int, list[int]]]:
    """Group perturbations, of which each changes some numbers of a table, by the row where they start.

    Returns:
        The first row that a perturbed rollout must compute, the number of unchanged calls, and the indices
        of at most ``width`` perturbations with these two.
    """
    starts: dict[tuple[int, int], list[int]] = {}
    for p, (times, a, b) in enumerate(changed):
        N, rows = len(times), a | b.any(dim=1)
        row = int(rows.nonzero()[0]) + 1 if rows.any() else N
        call = int(times.nonzero()[0]) if times.any() else N
        starts.setdefault((row, row) if row <= call else (call + 1, call), []).append(p)
    return [
        (row, known, members[first : first + width])
        for (row, known), members in starts.items()
        for first in range(0, len(members), width)
    ]


def members(groups: Sequence[tuple[int, int, list[int]]], device: torch.device) -> tuple[Tensor, ...]:
    """Return the indices of each group on a device, moved there by one copy, for which the host waits."""
    order = torch.tensor([p for *_, group in groups for p in group], device=device)
    parts: tuple[Tensor, ...] = order.split([len(group) for *_, group in groups])
    return parts
