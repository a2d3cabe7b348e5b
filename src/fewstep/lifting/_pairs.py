"""Pairs to train corrections on: of the reference, or of a solver of more calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from .. import reference as references
from .._hashing import fingerprint
from .._noises import noise
from .._progress import progress_bar
from ..field import Field
from ..fitting import Reference
from ..pairs import Pairs
from ..solver import Solver

__all__ = ["make"]


def make(
    field: Field,
    count: int,
    teacher: Solver | None,
    conditions: Mapping[str, Any] | None,
    per_sample: Mapping[str, Any] | None,
    reference: Reference,
    *,
    seed: int,
    folder: Path | None,
    batch: int,
    progress: bool,
) -> Pairs:
    """Make pairs with new noises; those that a folder holds are not made again."""
    if isinstance(count, bool) or not isinstance(count, Integral):
        raise ValueError(f"lift: pairs must be a number of pairs or Pairs, not {count!r}.")
    if field.shape is None:
        raise ValueError(
            "lift: to draw noise the shape of one sample must be known; give it to the Field, as in "
            "Field(..., shape=(3, 32, 32)), or pass pairs=fewstep.reference.pairs(field, x0)."
        )
    x0 = noise(int(count), field.shape, seed=seed, device=field.device)
    if teacher is None:
        options = {**vars(reference), **reference.tolerances(field)}
        if folder is not None:
            options["cache"] = folder / "pairs"
        return references.pairs(
            field, x0, **options, batch=batch, progress=progress, provenance={"seed": seed},
            conditions=conditions, per_sample=per_sample,
        )  # fmt: skip
    facts = {"method": teacher.name, "solver": teacher.describe(), "seed": seed, "field": field.describe()}
    whole = Pairs(
        x0, torch.zeros_like(x0), conditions=conditions or {}, per_sample=per_sample or {}, provenance=facts
    )
    bound, parts = whole.bind(field), list[Pairs]()
    with progress_bar(progress, total=len(x0), desc=f"targets by {teacher.name}", unit="sample") as bar:
        for first in range(0, len(x0), batch):
            index = slice(first, first + batch)
            file = (
                None if folder is None else folder / "pairs" / f"{_identity(field, whole[index])}.safetensors"
            )
            if file is not None and file.exists():
                parts.append(Pairs.load(file, device=x0.device))
            else:
                parts.append(replace(whole[index], x1=teacher.sample(bound.rows(index), x0[index])))
                if file is not None:
                    parts[-1].save(file)
            bar.update(len(parts[-1]))
    x1 = torch.cat([part.x1 for part in parts])
    return replace(whole, x1=x1, nfe=teacher.nfe, calls=teacher.nfe * len(x0))


def _identity(field: Field, part: Pairs) -> str:
    """What the samples of a teacher depend on."""
    return fingerprint(
        [field.fingerprint(), part.provenance["solver"], part.x0, part.conditions, part.per_sample]
    )
