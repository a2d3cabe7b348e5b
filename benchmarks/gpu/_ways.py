"""Rows of ways that alternate in one run: time, its ratio to the bare calls, and memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ._loops import NFE, Way
from ._record import Record
from ._timing import Plan, alternate, ratio

__all__ = ["measure"]

MIB = 2**20
#: Seconds of timing for each way.
BUDGET = 0.5


def measure(
    record: Record,
    part: str,
    facts: Mapping[str, Any],
    ways: Mapping[str, Way],
    base: str,
    device: torch.device,
) -> None:
    """Make ways, time them in turn, and add a row of each.

    A way that cannot be made is left out, with its error; without the base all are.

    Args:
        record: the record.
        part: the part of its rows.
        facts: their first columns, ``batch`` among them.
        ways: the ways by name, with the base.
        base: the way whose time the ratios are to.
        device: their device.
    """
    blocks, made = {}, {}
    label = ", ".join(str(value) for value in facts.values())
    for name, way in ways.items():
        try:
            blocks[name], made[name] = _made(way, device)
        except Exception as error:
            if name == base:
                raise
            record.failure(f"{part}: {label}: {name}", error)
    plan = Plan(0, 0, (2, 2)) if record.options.tiny else Plan(BUDGET * len(blocks))
    times = alternate(blocks, device, plan)
    for name, found in times.items():
        sampling = statistics.median(found)
        over = ratio(found, times[base])
        extra = statistics.median(mine - other for mine, other in zip(found, times[base], strict=True))
        record.row(
            part,
            **facts,
            way=name,
            us_per_call=1e6 * sampling / NFE,
            images_per_s=facts["batch"] / sampling,
            ratio=over.median,
            low=over.low,
            high=over.high,
            extra_us_per_call=1e6 * extra / NFE,
            rounds=len(found),
            **made[name],
        )
    record.write()


def _made(way: Way, device: torch.device) -> tuple[Callable[[], Tensor], dict[str, float | None]]:
    """Make a way and run it once; return it, the seconds of both, and the memory that they took besides."""
    cuda = device.type == "cuda"
    before = 0
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
    started = time.perf_counter()
    block = way()
    block()
    if cuda:
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started
    peak = (torch.cuda.max_memory_allocated(device) - before) / MIB if cuda else None
    return block, {"first_s": seconds, "peak_mib": peak}
