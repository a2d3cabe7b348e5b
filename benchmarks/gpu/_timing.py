"""Times of alternating blocks: CUDA events on a GPU, the clock on a CPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

__all__ = ["Spread", "alternate", "ratio", "seconds", "spread"]

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


def alternate(
    blocks: Mapping[str, Block],
    device: torch.device,
    budget: float,
    shortest: float = 0.01,
    rounds: tuple[int, int] = (3, 25),
) -> dict[str, list[float]]:
    """Time blocks in turn, so that all of them meet the same clock rates and the same other work.

    Every block first runs twice to warm up. The order is reversed from one round to the next.

    Args:
        blocks: the blocks by name.
        device: their device.
        budget: seconds for all rounds together, if these are no fewer than allowed.
        shortest: a block is repeated until it takes about these seconds.
        rounds: least and greatest number of rounds.

    Returns:
        Seconds of each block, one entry per round.
    """
    repeats: dict[str, int] = {}
    round_time = 0.0
    for name, block in blocks.items():
        block()
        once = seconds(block, device)
        repeats[name] = max(1, math.ceil(shortest / max(once, 1e-7)))
        round_time += once * repeats[name]
    count = min(max(rounds[0], int(budget / round_time)), rounds[1])
    found: dict[str, list[float]] = {name: [] for name in blocks}
    for k in range(count):
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
