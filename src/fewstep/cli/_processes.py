"""Work shared between the processes of torchrun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

__all__ = ["refuse_sharing", "sharing"]


@contextmanager
def sharing(device: str) -> Iterator[tuple[str, int, int]]:
    """Join the processes of torchrun, if any; yield the device, the rank and the number of processes."""
    world = _world()
    if world == 1:
        yield device, 0, 1
        return
    dist.init_process_group("gloo")
    try:
        own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
        yield own, dist.get_rank(), world
    finally:
        dist.destroy_process_group()


def refuse_sharing(verb: str) -> None:
    """Raise a ``ValueError`` under torchrun, for a verb that every process would repeat."""
    if _world() > 1:
        raise ValueError(f"{verb}: works in one process; start it without torchrun.")


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))
