"""Pairs of a fit, new or given, and their split into training and validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .. import reference
from .._conditions import cut, refuse_conditions
from .._device import check_device
from .._noises import noise
from ..field import Field
from ..pairs import Pairs
from ._settings import Reference
from ._team import Team

__all__ = ["Maker", "held_back", "joined", "noise_shape"]

#: Share of the pairs for validation.
VALIDATION = 0.25
#: Most samples that the reference solves together, with one step size.
TOGETHER = 256


@dataclass(frozen=True)
class Maker:
    """Makes the pairs of a fit, from its arguments; those of a batch are at most 256 in the reference."""

    conditions: Mapping[str, Any] | None
    per_sample: Mapping[str, Any] | None
    reference: Reference
    seed: int
    device: torch.device | str | None
    batch: int
    progress: bool

    def __call__(self, field: Field, pairs: int | Pairs, start: int = 0) -> Pairs:
        """Return the given pairs, or new ones from noise number ``start`` on."""
        if isinstance(pairs, Pairs):
            pairs.warn_of_another(field, "fit")
            refuse_conditions("fit", self.conditions, self.per_sample)
            at_least_four(len(pairs))
            return pairs
        if isinstance(pairs, bool) or not isinstance(pairs, Integral):
            raise ValueError(f"fit: pairs must be a number of pairs or Pairs, not {pairs!r}.")
        at_least_four(start + pairs)
        device = field.device if self.device is None else check_device(self.device)
        x0 = noise(pairs, noise_shape(field), seed=self.seed, start=start, device=device)
        return self.solve(field, x0, self.conditions, self.per_sample)

    def solve(
        self,
        field: Field,
        x0: Tensor,
        conditions: Mapping[str, Any] | None,
        per_sample: Mapping[str, Any] | None,
    ) -> Pairs:
        """Make reference pairs; each process makes a slice, and gets all."""
        team = Team.current()
        options = {**vars(self.reference), **self.reference.tolerances(field)}
        options |= {"progress": self.progress and team.main}
        options |= {"batch": min(self.batch, TOGETHER)}
        options |= {"provenance": {"seed": self.seed}, "conditions": conditions}
        if team.world == 1:
            return reference.pairs(field, x0, per_sample=per_sample, **options)
        if len(x0) < team.world:
            raise ValueError(
                f"fit: {team.world} processes cannot share {len(x0)} pairs; pass more pairs, or start fewer."
            )
        field.bind(conditions, per_sample, len(x0), "pairs")  # check the rows of all pairs, not of a slice
        own, made = team.slice(len(x0)), []

        def work() -> Tensor:
            made.append(reference.pairs(field, x0[own], per_sample=cut(per_sample or {}, own), **options))
            return made[0].x1

        x1, calls = team.gather(work, lambda: made[0].calls if made else 0)
        steps = made[0].provenance.get("steps", 0)
        facts, _ = team.gather(
            lambda: torch.tensor([[made[0].nfe, made[0].error, steps]]).double(), lambda: 0
        )
        nfe, error, steps = torch.cat(facts).T
        provenance = dict(made[0].provenance)
        if steps.any():
            provenance["steps"] = int(steps.max())
        return replace(
            made[0],
            x0=x0,
            x1=torch.cat(x1),
            nfe=int(nfe.max()),
            calls=calls,
            error=float(error.square().mean().sqrt()),
            per_sample=per_sample or {},
            provenance=provenance,
        )


def noise_shape(field: Field) -> tuple[int, ...]:
    """Return the shape of the noises, which the field must have."""
    if field.shape is None:
        raise ValueError(
            "fit: to draw noise the shape of one sample must be known; give it to the Field, as in "
            "Field(..., shape=(channels, height, width)), or pass pairs=fewstep.reference.pairs(field, x0)."
        )
    return field.shape


def at_least_four(count: int) -> None:
    """Raise a ``ValueError`` unless there are enough pairs to split."""
    if count < 4:
        raise ValueError(
            f"fit: needs at least 4 pairs, two of them for validation, not {count}; pass pairs=64, and "
            "per_sample with as many rows, which those of a pipeline get by task.of(64)."
        )


def joined(first: Pairs, rest: Pairs) -> Pairs:
    """Concatenate two sets of pairs of one reference, with the sum of their calls and the joint error."""
    return replace(
        first,
        x0=torch.cat([first.x0, rest.x0]),
        x1=torch.cat([first.x1, rest.x1]),
        nfe=max(first.nfe, rest.nfe),
        calls=first.calls + rest.calls,
        error=((first.error**2 + rest.error**2) / 2) ** 0.5,
        provenance={**rest.provenance, **first.provenance},
    )


def held_back(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """Split pairs into training pairs and a quarter, at least two, for validation."""
    return pairs.split(min(max(2, round(VALIDATION * len(pairs))), len(pairs) - 2))
