"""Rolling a table out on pairs: endpoints, and how they move when a table is perturbed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._channels import check_channels, factors
from .._execute import Row, bound, execute, plan
from .._table import Reduced
from ..field import Field
from ..metrics import per_sample_mse
from ..pairs import Pairs
from ._team import BudgetSpentError, Team

__all__ = ["BudgetSpentError", "Rollout", "chunks", "first_change", "joined", "moving_rows"]


class _Budget:
    """Network calls made, those of them before the last meeting of processes, and the most that may be."""

    def __init__(self, limit: float) -> None:
        self.calls, self.met, self.limit = 0, 0, limit


class Rollout:
    """A field, prepared for sampling many slightly different tables from the same noises.

    Args:
        field: the field.
        max_batch: most samples that the network is given at once.
        limit: most network calls; the one that would exceed it raises :class:`BudgetSpentError`.

    Attributes:
        team: the processes.
    """

    def __init__(self, field: Field, max_batch: int, limit: float = math.inf) -> None:
        self.field = field
        self.max_batch = max_batch
        self.team = Team.current()
        self._budget = _Budget(limit)

    def sharing(self, field: Field) -> Rollout:
        """Another field, whose calls count together with these."""
        other = copy(self)
        other.field = field
        return other

    @property
    def calls(self) -> int:
        """Network calls so far, one for each sample and evaluation.

        Where several processes share a fit, those of all of them up to their last meeting, and this one's
        since.
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
        """``x_N`` of every pair, ``(B, ...)``; differentiable in the table."""
        return self.states(table, pairs, (len(table.times),), checkpointed=checkpointed)

    def states(
        self, table: Reduced, pairs: Pairs, points: Sequence[int], *, checkpointed: bool = False
    ) -> Tensor:
        """Some states of every pair; differentiable in the table.

        Args:
            table: the solver; a tensor of floats, or one that requires gradients.
            pairs: the noises to start from.
            points: which states, ``K`` of them.
            checkpointed: forget the network's activations, and compute them again backwards.

        Returns:
            Tensor of shape ``(K B, ...)``: the first of the states for all pairs, then the second.
        """
        velocity = self.velocity(pairs)

        def call(j: int, x: Tensor, t: Tensor) -> Tensor:
            if checkpointed:
                u: Tensor = checkpoint(velocity, x, t, use_reentrant=False)
                return u
            return velocity(x, t)

        with torch.set_grad_enabled(any(part.requires_grad for part in table)):
            numbers = Reduced(*(part.to(pairs.x0) for part in table))
            states = {0: self._start(table, pairs)}
            execute(call, list(numbers.times), _rows(numbers, pairs.x0.ndim, points), states, {})
            return joined([states[i] for i in points], 0)

    @torch.no_grad()
    def squared_error(self, table: Reduced, pairs: Pairs) -> Tensor:
        """Mean square of ``x_N - x_1`` for each pair, float64 of shape ``(B,)``; shared by the processes."""

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
        """The endpoint of ``table``, or what is read of other states, and how far each table moves it.

        A perturbation that first changes row ``i`` starts there, from the unperturbed history; one of
        the last row costs no call at all. Tables that start together share their batches.

        Args:
            table: the solver.
            perturbed: solvers near it.
            pairs: the noises to start from.
            together: most tables in one batch, by default as many as fit ``max_batch``.
            points: the ``K`` states to read, by default the last.
            read: what to read of a batch of states.

        Returns:
            What is read, of shape ``(K B, ...)`` as in :meth:`states`, and differences ``(P, K B, ...)``.
        """
        points = (len(table.times),) if points is None else points
        _, states, predictions = self.history(table, pairs)
        end = read(joined([states[i] for i in points], 0))
        velocity = self.velocity(pairs)
        moved = torch.empty(len(perturbed), *end.shape, dtype=end.dtype, device=end.device)
        starts: dict[tuple[int, int], list[int]] = {}
        for p, other in enumerate(perturbed):
            rows = moving_rows(table.a != other.a, table.b != other.b, table.e != other.e)
            starts.setdefault(first_change(rows, table.times != other.times), []).append(p)
        width = max(1, self.max_batch // len(pairs) if together is None else together)
        for (start, known), members in starts.items():
            unchanged = dict(list(predictions.items())[:known])
            for first in range(0, len(members), width):
                group = members[first : first + width]
                tables = [perturbed[p] for p in group]
                there = self._from_row(start, tables, velocity, states, dict(unchanged), points)
                moved[group] = read(there.flatten(0, 1)).unflatten(0, there.shape[:2])
                del there  # before the next ones are made
        return end, moved.sub_(end)

    def history(self, table: Reduced, pairs: Pairs) -> tuple[Tensor, dict[int, Tensor], dict[int, Tensor]]:
        """``x_N``, and every state and prediction on the way to it, by their index."""
        velocity = self.velocity(pairs)
        states = {0: self._start(table, pairs)}
        predictions: dict[int, Tensor] = {}
        keep = range(len(table.times) + 1)
        offsets = table.e.tolist() if table.e.ndim else ()
        rows = plan(table.a[:, None].tolist(), table.b.tolist(), keep, keep_predictions=True, offsets=offsets)
        rows = rows if table.channels is None else bound(rows, pairs.x0)
        end = execute(lambda j, x, t: velocity(x, t), table.times.tolist(), rows, states, predictions)
        return end, states, predictions

    def _from_row(
        self,
        start: int,
        tables: Sequence[Reduced],
        velocity: Callable[[Tensor, Tensor], Tensor],
        states: Mapping[int, Tensor],
        predictions: dict[int, Tensor],
        points: Sequence[int],
    ) -> Tensor:
        """Roll out ``P`` tables at once, as states of shape ``(P, B, ...)``, from a row on.

        Returns:
            The states at ``points``, of shape ``(P, K B, ...)``.
        """
        x0 = states[0]
        B = len(x0)
        # Tables come last, but before the channels.
        numbers = (torch.stack(part).to(x0) for part in zip(*tables, strict=True))
        times, a, b, e = numbers
        stacked = Reduced(times.T, a.movedim(0, 1), b.movedim(0, 2), e if e.ndim == 1 else e.movedim(0, 1))

        def call(j: int, x: Tensor, t: Tensor) -> Tensor:
            x = x.expand(len(tables), *x0.shape)  # still unperturbed where only the time is
            u: Tensor = velocity(x.flatten(0, 1), t.repeat_interleave(B)).unflatten(0, (len(tables), B))
            return u

        known = {j: x for j, x in states.items() if j in (0, start - 1)}
        rows = _rows(stacked, x0.ndim, points, tables=1)
        execute(call, list(stacked.times), rows, known, predictions, start)
        there = [known[i] if i >= start else states[i] for i in points]
        return joined([x.expand(len(tables), *x0.shape) for x in there], 1)

    def _start(self, table: Reduced, pairs: Pairs) -> Tensor:
        check_channels(table.channels, pairs.x0, "the solver")
        return self.field.initial_state(pairs.x0)

    def together(self, work: Callable[[], Tensor]) -> list[Tensor]:
        """What each process makes of its share of the work, in their order; the calls of all are counted."""
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
        """Count network calls that are about to be made; each process may make its share of what is left."""
        met = self._budget.met
        if self.calls - met + calls > (self.limit - met) / self.team.world:
            raise BudgetSpentError
        self._budget.calls += calls

    @torch.no_grad()
    def some(self, pairs: Pairs, index: Tensor, x: Tensor, t: float) -> Tensor:
        """The velocity at states ``(K, ...)`` with the conditions of the pairs ``index``, ``(K,)``."""
        self.spend(len(x))
        field = pairs.bind(self.field)
        parts = zip(x.split(self.max_batch), index.split(self.max_batch), strict=True)
        return torch.cat([field.rows(own)(part, t).to(x.dtype) for part, own in parts])

    def velocity(self, pairs: Pairs) -> Callable[[Tensor, Tensor | float], Tensor]:
        """The field as a function of state and time, counted; conditions repeat with the samples."""
        field, B = pairs.bind(self.field), len(pairs)

        def velocity(x: Tensor, t: Tensor | float) -> Tensor:
            self.spend(len(x))
            own = field if len(x) == B else field.rows(torch.arange(len(x)) % B)
            return own(x, t).to(x.dtype)

        return velocity


def chunks(pairs: Pairs, size: int) -> Iterator[Pairs]:
    """The pairs, at most ``size`` at a time."""
    for first in range(0, len(pairs), size):
        yield pairs[first : first + size]


def joined(parts: list[Tensor], dim: int) -> Tensor:
    """The parts one after another; a single one as it is."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _rows(table: Reduced, ndim: int, points: Sequence[int], tables: int = 0) -> list[Row]:
    """Rows of a table of tensors for states of ``ndim`` dimensions, its structural zeros left out.

    The states at ``points`` are kept. With ``tables = 1`` it is a stack of tables, which go after the rows
    and columns, for as many states.
    """
    a, b = factors(table.a, 1 + tables, ndim), factors(table.b, 2 + tables, ndim)
    e = list(factors(table.e, 1 + tables, ndim)) if table.e.ndim > tables else ()
    return plan([[a_i] for a_i in a], [list(b_i[: i + 1]) for i, b_i in enumerate(b)], points, offsets=e)


def moving_rows(a: Tensor, b: Tensor, e: Tensor) -> Tensor:
    """Which rows change, given which numbers of a reduced table do; bool of shape ``(N,)``."""
    rows = a | b.any(dim=1)
    rows = rows | e if e.ndim else rows
    return rows if rows.ndim == 1 else rows.any(dim=1)


def first_change(rows: Tensor, times: Tensor) -> tuple[int, int]:
    """The row at which a rollout departs, and how many calls are the same till then.

    Args:
        rows: which rows of the table change, bool of shape ``(N,)``.
        times: which times change, likewise.
    """
    N = len(times)
    row = int(rows.nonzero()[0]) + 1 if rows.any() else N
    call = int(times.nonzero()[0]) if times.any() else N
    return (row, row) if row <= call else (call + 1, call)
