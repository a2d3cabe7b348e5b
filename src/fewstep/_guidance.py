"""The two network calls of guidance, apart or as one of a doubled batch, and its scale at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._broadcast import factor
from ._conditions import row_count
from ._network import call_network

__all__ = ["doubled_conditions", "guided_pair", "mixed", "scale_at"]

Network = Callable[..., Tensor]


def mixed(m: Tensor, away: Tensor, scale: Tensor | float, rescale: float | str) -> Tensor:
    """Return ``c = away + scale (m - away)``, or ``c`` of another size; see :class:`fewstep.Field`.

    Args:
        m: the prediction to guide to, ``(B, ...)``.
        away: that to guide away from.
        scale: a number, or one for each sample.
        rescale: ``"norm"``, or a number.

    Raises:
        ValueError: when samples of one number are to be of another size.
    """
    if rescale != 0 and m.shape[1:].numel() < 2:
        raise ValueError(
            f"Field: guidance_rescale={rescale!r} measures the size of a sample over its numbers, of which "
            f"one of shape {tuple(m.shape[1:])} has too few; leave it out."
        )
    c = away + scale * (m - away)
    if isinstance(rescale, str):
        return c * _ratio(m.norm(dim=-1, keepdim=True), c.norm(dim=-1, keepdim=True))
    if rescale == 0:
        return c
    over = tuple(range(1, c.ndim))
    return c * (1 + rescale * (_ratio(m.std(over, keepdim=True), c.std(over, keepdim=True)) - 1))


def _ratio(wanted: Tensor, size: Tensor) -> Tensor:
    return wanted / size.clamp(min=torch.finfo(size.dtype).tiny)


def guided_pair(
    networks: tuple[Network, Network],
    x: Tensor,
    time: Callable[[Tensor, torch.dtype], Tensor],
    conditions: tuple[Mapping[str, Any], Mapping[str, Any]],
    doubled: Mapping[str, Any] | None,
) -> tuple[Tensor, Tensor]:
    """Return two predictions for the same states.

    Args:
        networks: the network of each.
        x: states, ``(B, ...)``.
        time: returns the network's time for some states, in a given type.
        conditions: the conditions of each.
        doubled: both conditions, for ``2 B`` states of the first network; ``None`` for two calls.
    """
    if doubled is not None:

        def twice(dtype: torch.dtype) -> Tensor:
            t = time(x, dtype)
            return torch.cat([t, t]) if t.ndim else t

        first, second = call_network(networks[0], torch.cat([x, x]), twice, doubled).chunk(2)
        return first, second
    told = partial(time, x)
    first, second = (call_network(n, x, told, c) for n, c in zip(networks, conditions, strict=True))
    return first, second


def doubled_conditions(
    first: Mapping[str, Any], second: Mapping[str, Any], per_sample: Collection[str] | None, count: int
) -> dict[str, Any] | None:
    """Return conditions for ``count`` states twice, with ``first`` and then with ``second``.

    Args:
        first: conditions of the states the first time.
        second: those the second time.
        per_sample: names of the conditions with one row per sample; ``None`` if that is not known.
        count: number of states.

    Returns:
        The conditions; ``None`` if a name is missing on one side, if two values differ and have not one row
        for each state, or if one value has ``count`` rows that may or may not belong to the states.
    """
    if first.keys() != second.keys():
        return None
    doubled = {}
    for name, value in first.items():
        own = per_sample is not None and name in per_sample
        if value is second[name] and not own:
            if per_sample is None and row_count(value) == count:
                return None
            doubled[name] = value
            continue
        doubled[name] = _joined(value, second[name], count)
        if doubled[name] is None:
            return None
    return doubled


def _joined(first: Any, second: Any, count: int) -> Any:
    """Return the rows of both values, or ``None`` if they do not have ``count`` each."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return doubled_conditions(first, second, first.keys(), count)
    if row_count(first) != count or row_count(second) != count or type(first) is not type(second):
        return None
    if isinstance(first, Tensor):
        return torch.cat([first, second]) if first.shape == second.shape else None
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second]) if first.shape == second.shape else None
    return first + second


def scale_at(
    t: Tensor | float, guidance: float | None, interval: tuple[float, float], like: Tensor
) -> Tensor | float | None:
    """Return the guidance scale at ``t``, for all samples or for each; ``None`` outside the interval."""
    if guidance is None:
        return None
    first, last = interval
    if not isinstance(t, Tensor):
        return guidance if first <= t <= last else None
    if (first, last) == (0, 1):
        return guidance
    inside = (t >= first) & (t <= last)
    return factor(torch.where(inside, guidance, 1.0), t, like)
