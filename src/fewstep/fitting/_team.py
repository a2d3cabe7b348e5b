"""Processes that share a fit: they shard the pairs over ranks and all-gather the results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._processes import exchange, place
from ..pairs import Pairs

__all__ = ["BudgetSpentError", "Team"]

#: Status of a process at a gather.
_WELL, _SPENT, _FAILED = range(3)


class BudgetSpentError(RuntimeError):
    """The next network call would exceed the limit; a gather adds the calls of all since the last one."""

    def __init__(self, calls: int = 0) -> None:
        super().__init__("the budget of network calls is spent")
        self.calls = calls


@dataclass(frozen=True)
class Team:
    """Processes that run the same fit, each on its slice of the pairs.

    Every process takes part in every gather, even if its own work failed; then all of them raise. Results are
    combined in rank order, so that all processes continue with identical bits.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Team:
        """Return the processes of ``torch.distributed``, or this one alone if it is not initialised."""
        return cls(*place())

    @property
    def main(self) -> bool:
        """True in the process with rank 0."""
        return self.rank == 0

    def slice(self, count: int) -> slice:
        """Return this process's part of ``count`` items; parts differ by at most one item."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def own(self, pairs: Pairs) -> Pairs:
        """Return this process's pairs."""
        return pairs if self.world == 1 else pairs[self.slice(len(pairs))]

    def largest(self, count: int) -> int:
        """Return the number of items in the largest part."""
        return math.ceil(count / self.world)

    def gather(self, work: Callable[[], Tensor], calls: Callable[[], int]) -> tuple[list[Tensor], int]:
        """All-gather results, in rank order, and the total network calls since the last gather.

        Shapes of results may differ in the first dimension only.

        Raises:
            BudgetSpentError: in every process, when it was raised in one.
            RuntimeError: when the work of another process failed.
        """
        if self.world == 1:
            return [work()], calls()
        result, problem = torch.zeros(0), None
        try:
            result = work()
        except Exception as error:
            problem = error
        state = _WELL if problem is None else _SPENT if isinstance(problem, BudgetSpentError) else _FAILED
        size = len(result) if result.ndim else 0
        reports = exchange(torch.tensor([state, calls(), size]))
        states, counts, sizes = torch.stack(reports).T.tolist()
        if state == _FAILED and problem is not None:
            raise problem
        if _FAILED in states:
            raise RuntimeError(
                f"fit: process {states.index(_FAILED)} of {self.world} failed; its own message says why."
            )
        if _SPENT in states:
            raise BudgetSpentError(sum(counts)) from problem
        padded = result.new_zeros(max(sizes), *result.shape[1:])
        padded[:size] = result
        parts = exchange(padded)
        return [part[:n].to(result.device) for part, n in zip(parts, sizes, strict=True)], sum(counts)
