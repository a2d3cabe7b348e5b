"""The pairs of a fit: made, or taken as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .. import reference
from .._device import check_device
from ..field import Field
from ..pairs import Pairs, noise
from ._arguments import at_least_four, sample_shape

__all__ = ["held_back", "reference_pairs"]


def reference_pairs(
    field: Field,
    pairs: int | Pairs,
    shape: Sequence[int] | None,
    seed: int,
    batch: int,
    device: torch.device | str,
    conditions: Mapping[str, Any],
    **options: Any,
) -> Pairs:
    """The pairs given, or as many new ones as asked for, with ``options`` for :func:`reference.pairs`."""
    if isinstance(pairs, int):
        x0 = noise(at_least_four(pairs), sample_shape(field, shape), seed=seed, device=check_device(device))
        facts = {"seed": seed}
        return reference.pairs(field, x0, provenance=facts, batch=min(batch, 256), **options, **conditions)
    if conditions:
        raise ValueError(
            f"fit: the pairs given carry their own conditions, but {', '.join(conditions)} came besides; "
            "pass them to fewstep.reference.pairs, or let fit make the pairs."
        )
    if not isinstance(pairs, Pairs):
        raise ValueError(f"fit: pairs must be a number of pairs or Pairs, not {pairs!r}.")
    at_least_four(len(pairs))
    return pairs


def held_back(pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
    """Pairs to train on and, at least two of them, to validate with."""
    return pairs.split(min(max(2, round(share * len(pairs))), len(pairs) - 2))
