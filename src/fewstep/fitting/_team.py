"""The processes that share a fit: slices of the pairs, and meetings where results are put together."""

from __future__ import annotations

import atexit
import math
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from .._processes import exchange, place
from ..pairs import Pairs

__all__ = ["BudgetSpentError", "Team", "join_torchrun"]

#: How a process comes to a meeting.
_WELL, _SPENT, _FAILED = range(3)


class BudgetSpentError(RuntimeError):
    """The next network call would be one more than allowed.

    Args:
        calls: at a meeting, the network calls of all processes since the one before.
    """

    def __init__(self, calls: int = 0) -> None:
        super().__init__("the budget of network calls is spent")
        self.calls = calls


@dataclass(frozen=True)
class Team:
    """Processes that all run the same fit and each do their slice of it.

    Every process comes to every meeting, even where its own work failed: then all of them raise. Results are
    added in the order of the processes, everywhere alike, so that all go on with the same bits.

    Args:
        rank: number of this process, from 0.
        world: number of processes.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def current(cls) -> Team:
        """The processes of ``torch.distributed``, where it is initialised; else this one alone."""
        return cls(*place())

    @property
    def main(self) -> bool:
        """Whether this process speaks for all of them."""
        return self.rank == 0

    def slice(self, count: int) -> slice:
        """This process's part of ``count`` items; parts differ by one item at most."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def own(self, pairs: Pairs) -> Pairs:
        """This process's pairs."""
        return pairs if self.world == 1 else pairs[self.slice(len(pairs))]

    def largest(self, count: int) -> int:
        """Items of the largest part."""
        return math.ceil(count / self.world)

    def gather(self, work: Callable[[], Tensor], calls: Callable[[], int]) -> tuple[list[Tensor], int]:
        """The results of all processes in their order, and the network calls of all since the last meeting.

        Args:
            work: makes this process's result, of a shape that differs in the first dimension only.
            calls: network calls of this process, asked for after the work.

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


def join_torchrun(device: str) -> tuple[Team, str]:
    """Initialise ``torch.distributed`` where ``torchrun`` started this process, on a device of its own.

    Args:
        device: ``"cpu"``, for which the backend is gloo, or ``"cuda"``, for which it is nccl.

    Returns:
        The processes, and the device of this one.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        return Team.current(), device
    if device == "cuda":
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    atexit.register(dist.destroy_process_group)
    return Team.current(), device
