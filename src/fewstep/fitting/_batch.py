"""The batch size of a fit, by trying."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch

from .._conditions import most_rows
from .._noises import noise
from ..field import Field
from ._pairs import noise_shape

__all__ = ["find_batch"]

#: A doubled batch must need at most this share of the time per sample, or it is not worth its memory.
_WORTH = 0.95


def find_batch(
    field: Field,
    *,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
    most: int = 4096,
) -> int:
    """Return a number of samples per network call that the device has memory for, and that is fast.

    Batches of 1, 2, 4 and so on are tried, on the device of the field, until one needs more memory than there
    is, or no longer less time per sample. After a lack of memory it is half of the largest that worked, which
    leaves as much again for the rest of a fit.

    Args:
        field: the field, with its ``shape``.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row per sample; samples beyond them repeat them.
        most: the largest number of samples to try.

    Raises:
        ValueError: when a single sample needs more memory than there is.
    """
    batch, best = 1, 0
    fastest = float("inf")
    while batch <= most:
        try:
            spent = _time(field, batch, conditions, per_sample)
        except RuntimeError as error:
            if not _lacks_memory(error):
                raise
            if best == 0:
                raise ValueError(
                    f"find_batch: one sample of {field.name} needs more memory than {field.device} has; free "
                    "memory, load the network in bfloat16, or take a smaller shape."
                ) from error
            if field.device.type == "cuda":
                torch.cuda.empty_cache()
            return max(1, best // 2)
        if spent > _WORTH * fastest:
            break
        batch, best, fastest = 2 * batch, batch, spent
    return best


def _time(
    field: Field, batch: int, conditions: Mapping[str, Any] | None, per_sample: Mapping[str, Any] | None
) -> float:
    """Return the seconds per sample of a network call, the fastest of three after one to warm up."""
    bound = field.bind(conditions, per_sample, rows := most_rows(per_sample or {}) or batch)
    bound = bound.rows(torch.arange(batch) % rows)
    x, seconds = noise(batch, noise_shape(field), seed=0, device=field.device), []
    for _ in range(4):
        begin = time.perf_counter()
        with torch.no_grad():
            found = bound(x, 0.5)
        found.sum().item()  # waits for the device
        seconds.append((time.perf_counter() - begin) / batch)
    return min(seconds[1:])


def _lacks_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
