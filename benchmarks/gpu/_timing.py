"""Times of alternating blocks: CUDA events on a GPU, the clock on a CPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch

__all__ = ["Plan", "Spread", "alternate", "ratio", "seconds", "spread", "without_tf32"]

Block = Callable[[], object]


class Spread(NamedTuple):
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


def seconds(block: Block, device: torch.device, repeats: int = 1) -> float:
    """Return the seconds that a block takes, the mean of ``repeats`` in a row."""
    if device.type != "cuda":
        started = time.perf_counter()
        for _ in range(repeats):
            block()
        return (time.perf_counter() - started) / repeats
    torch.cuda.synchronize(device)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        block()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


class Plan(NamedTuple):
    """Lengths of a timing.

    Args:
        budget: seconds for all rounds together, if these are no fewer than allowed.
        shortest: a block is repeated until it takes about these seconds.
        rounds: least and greatest number of rounds.
    """

    budget: float
    shortest: float = 0.01
    rounds: tuple[int, int] = (3, 25)


def alternate(blocks: Mapping[str, Block], device: torch.device, plan: Plan) -> dict[str, list[float]]:
    """Time blocks in turn, so that all of them meet the same clock rates and the same other work.

    The order is reversed from one round to the next.

    Args:
        blocks: the blocks by name, each of which has run once before.
        device: their device.
        plan: lengths.

    Returns:
        Seconds of each block, one entry per round.
    """
    repeats: dict[str, int] = {}
    length = 0.0
    for name, block in blocks.items():
        once = seconds(block, device)
        repeats[name] = max(1, math.ceil(plan.shortest / max(once, 1e-7)))
        length += once * repeats[name]
    least, most = plan.rounds
    found: dict[str, list[float]] = {name: [] for name in blocks}
    for k in range(min(max(least, int(plan.budget / length)), most)):
        for name in reversed(blocks) if k % 2 else blocks:
            found[name].append(seconds(blocks[name], device, repeats[name]))
    return found


def ratio(times: list[float], base: list[float]) -> Spread:
    """Return the spread over rounds of the ratio of two blocks that alternated."""
    return spread([mine / other for mine, other in zip(times, base, strict=True)])


def spread(values: list[float]) -> Spread:
    """Return the median and the quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high)


@contextmanager
def without_tf32() -> Iterator[None]:
    """Compute convolutions in float32, not in TF32, where a GPU has it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
