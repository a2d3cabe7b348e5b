"""The pairs of a fit: made, or taken as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .. import reference
from .._conditions import refuse_conditions
from .._device import check_device
from ..field import Field
from ..pairs import Pairs, noise
from ._arguments import at_least_four, sample_shape
from ._team import Team

__all__ = ["held_back", "joined", "reference_pairs"]


def reference_pairs(
    field: Field,
    pairs: int | Pairs,
    shape: Sequence[int] | None,
    seed: int,
    batch: int,
    device: torch.device | str | None,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
    start: int = 0,
    **options: Any,
) -> Pairs:
    """The pairs given, or as many new ones as asked for, with ``options`` for :func:`reference.pairs`.

    New ones are those of the noises from number ``start`` on.
    """
    if isinstance(pairs, int):
        at_least_four(start + pairs)
        size = sample_shape(field, shape)
        device = check_device(field.device if device is None else device)
        x0 = noise(pairs, size, seed=seed, start=start, device=device)
        options = {"provenance": {"seed": seed}, "batch": min(batch, 256), **options}
        return _shared(field, x0, options, conditions, per_sample)
    if not isinstance(pairs, Pairs):
        raise ValueError(f"fit: pairs must be a number of pairs or Pairs, not {pairs!r}.")
    refuse_conditions("fit", conditions, per_sample)
    at_least_four(len(pairs))
    return pairs


def _shared(
    field: Field,
    x0: Tensor,
    options: Mapping[str, Any],
    conditions: Mapping[str, Any] | None,
    per_sample: Mapping[str, Any] | None,
) -> Pairs:
    """Reference pairs, of which each process makes a slice; every process gets all of them."""
    team = Team.current()
    if team.world == 1:
        return reference.pairs(field, x0, conditions=conditions, per_sample=per_sample, **options)
    bound = field.bind(conditions, per_sample, len(x0), "pairs")
    if len(x0) < team.world:
        raise ValueError(
            f"fit: {team.world} processes cannot share {len(x0)} pairs; pass more pairs, or start fewer."
        )
    own, made = team.slice(len(x0)), []

    def work() -> Tensor:
        watched = {**options, "progress": options.get("progress", False) and team.main}
        made.append(reference.pairs(bound.rows(own), x0[own], **watched))
        return made[0].x1

    x1, calls = team.gather(work, lambda: made[0].calls if made else 0)
    facts, _ = team.gather(lambda: torch.tensor([[made[0].nfe, made[0].error]]).double(), lambda: 0)
    nfe, error = torch.cat(facts).T
    return replace(
        made[0],
        x0=x0,
        x1=torch.cat(x1),
        nfe=int(nfe.max()),
        calls=calls,
        error=float(error.square().mean().sqrt()),
        conditions=conditions or {},
        per_sample=per_sample or {},
    )


def joined(first: Pairs, rest: Pairs) -> Pairs:
    """Two lots of pairs from one reference, with all of their calls and the error of both estimates."""
    return replace(
        first,
        x0=torch.cat([first.x0, rest.x0]),
        x1=torch.cat([first.x1, rest.x1]),
        nfe=max(first.nfe, rest.nfe),
        calls=first.calls + rest.calls,
        error=((first.error**2 + rest.error**2) / 2) ** 0.5,
    )


def held_back(pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
    """Pairs to train on and, at least two of them, to validate with."""
    return pairs.split(min(max(2, round(share * len(pairs))), len(pairs) - 2))
