"""Pairs of noises and reference samples."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._conditions import bind, cut
from ._device import check_device, placed
from ._files import write_safetensors
from ._fitted_for import differences
from ._json import finite
from ._network import state_type
from ._noises import noise
from ._path import check_noise
from ._reading import check, excerpt, parse_json, read_tensors, reading
from ._solver_file import FITTED_FOR
from .field import Field

__all__ = ["FACTS", "HEADER", "Pairs", "check_file", "field_noise"]

#: Metadata key of the facts in a safetensors file of pairs.
FACTS = "fewstep.pairs"
#: Most bytes of the header, in which prompts are: those that safetensors takes.
HEADER = 100_000_000
#: Kinds of these facts.
_KINDS = {
    "nfe": int,
    "calls": int,
    "error": (float, None),
    "provenance": {"field": (FITTED_FOR, None)},
    "conditions": dict,
    "per_sample": dict,
}


def field_noise(of: Field, count: int, seed: int, device: torch.device | str | None) -> Tensor:
    """Draw noises for a field, by default on the device of its network.

    Raises:
        ValueError: when the field has no shape, or there is no such device.
    """
    if of.shape is None:
        raise ValueError(
            f"noise={count} draws noises, but the field's shape is unknown; pass the noises, or "
            "Field(..., shape=...)."
        )
    return noise(count, of.shape, seed=seed, device=check_device(of.device if device is None else device))


@dataclass(frozen=True)
class Pairs:
    """Noises ``x0`` and their reference samples ``x1``.

    Args:
        x0: noises, ``(B, ...)``; kept in float32 at least.
        x1: the (nearly) exact solutions at ``t = 1``, like ``x0``.
        nfe: network calls of the reference per sample; the largest over batches.
        calls: all network calls, one per sample and evaluation, including the error estimate.
        error: RMSE of ``x1`` as estimated with ten times tighter tolerances; NaN when not estimated.
        conditions: keyword arguments of the network that all pairs share.
        per_sample: those with one row per pair, in tensors, arrays, lists, tuples, and mappings of them; one
            row serves all pairs.
        provenance: how the pairs were made.
        seeds: the numbers of the noises, int64 of shape ``(B,)``, if known.
        origin: for a part of other pairs, their indices in those, and the number of those.

    Raises:
        ValueError: when they are not floating-point batches of one shape, or a condition has a wrong number
            of rows.
    """

    x0: Tensor
    x1: Tensor
    nfe: int = 0
    calls: int = 0
    error: float = float("nan")
    conditions: Mapping[str, Any] = field(default_factory=dict)
    per_sample: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    seeds: Tensor | None = None
    origin: tuple[Tensor, int] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("x0", "x1"):
            check_noise(getattr(self, name), f"Pairs: {name}")
        if self.x0.shape != self.x1.shape:
            raise ValueError(
                "Pairs: x0 and x1 must have one shape, "
                f"not {tuple(self.x0.shape)} and {tuple(self.x1.shape)}."
            )
        bind(self.conditions, self.per_sample, {}, len(self), "pairs")  # raises if rows do not match
        for name in ("x0", "x1"):
            x = getattr(self, name)
            object.__setattr__(self, name, x.to(state_type(x.dtype)))

    def __len__(self) -> int:
        return len(self.x0)

    def __getitem__(self, index: slice | Tensor) -> Pairs:
        """Return some of the pairs, with the call counts and provenance of all."""
        here = placed(index, self.x0)
        seeds = None if self.seeds is None else self.seeds[placed(index, self.seeds)]
        numbers, count = self.origin or (torch.arange(len(self)), len(self))
        return replace(
            self,
            x0=self.x0[here],
            x1=self.x1[here],
            per_sample=cut(self.per_sample, index),
            seeds=seeds,
            origin=(numbers[placed(index, numbers)], count),
        )

    def warn_of_another(self, field: Field, function: str) -> None:
        """Warn where these are pairs of another model, schedule or guidance scale than the field's."""
        made_by = self.provenance.get("field")
        found = differences(made_by, field.describe()) if isinstance(made_by, Mapping) else None
        if found is not None:
            warnings.warn(f"{function}: the pairs given were made by {found}; make them again.", stacklevel=4)

    def bind(self, field: Field) -> Field:
        """Return the field bound to the conditions of these pairs, to be called without any."""
        return field.bind(self.conditions, self.per_sample, len(self), "pairs", self.origin)

    def split(self, last: int) -> tuple[Pairs, Pairs]:
        """Return all but the ``last`` pairs, and the ``last`` pairs."""
        cut = len(self) - last
        return self[:cut], self[cut:]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pairs to a safetensors file.

        Arrays of numbers in the conditions are loaded as tensors, everything else unchanged.

        Raises:
            ValueError: when a condition is neither a tensor, an array nor JSON-serialisable, or the
                conditions are more than :meth:`load` reads.
        """
        tensors = {"x0": self.x0, "x1": self.x1}
        if self.seeds is not None:
            tensors["seeds"] = self.seeds
        facts = {
            "nfe": self.nfe,
            "calls": self.calls,
            "error": finite(self.error),
            "provenance": dict(self.provenance),
            "conditions": _packed(self.conditions, "conditions", tensors)["mapping"],
            "per_sample": _packed(self.per_sample, "per_sample", tensors)["mapping"],
        }
        text = json.dumps(facts, ensure_ascii=False)
        try:
            # The header holds the text as a text of JSON once more, and names, types and shapes of tensors.
            names = [(name, *x.shape, "dtype, shape and data_offsets" * 5) for name, x in tensors.items()]
            size = len(json.dumps([text, names], ensure_ascii=False).encode())
            if size > HEADER:
                raise ValueError(f"they take {size:,} bytes, and may take {HEADER:,}")
            parse_json(text, HEADER)
        except ValueError as error:
            raise ValueError(
                f"{path}: conditions and provenance of these pairs could not be read again ({error}); keep "
                "them as tensors, or shorter."
            ) from None
        write_safetensors(path, tensors, {FACTS: text})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Pairs:
        """Read a file written by :meth:`save`.

        Raises:
            ValueError: when the file is damaged or holds no pairs.
        """
        with reading(path, "file of pairs", "Pairs.save()"):
            tensors, facts = read_tensors(path, FACTS, device=str(device), most=HEADER)
            check_file(tensors, facts)
            given = {key: facts[key] for key in _KINDS if key != "error"}
            for name in ("conditions", "per_sample"):
                given[name] = _unpacked({"mapping": facts[name]}, tensors)
            error = math.nan if facts["error"] is None else float(facts["error"])
            seeds = tensors.get("seeds")
            if seeds is not None and (seeds.dtype != torch.int64 or seeds.shape != (len(tensors["x0"]),)):
                raise ValueError(f"seeds are {seeds.dtype} of {tuple(seeds.shape)}, not int64, one a pair")
            return cls(tensors["x0"], tensors["x1"], error=error, seeds=seeds, **given)


def check_file(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` where the tensors or facts of a file are not those of pairs."""
    check(facts, _KINDS, "")
    if unknown := sorted(facts.keys() - _KINDS.keys()):
        raise ValueError(f"its metadata have unknown keys {excerpt(', '.join(map(repr, unknown)), 100)}")
    for name in ("x0", "x1"):
        if not tensors[name].is_floating_point():
            raise ValueError(f"{name} must be floating-point numbers, not {tensors[name].dtype}")


def _packed(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Return a condition for JSON; its tensors are moved to ``tensors`` and replaced by their keys."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value) if value.dtype.kind in "biuf" else value.tolist()
    if isinstance(value, Tensor):
        while name in tensors:  # a nested value may have the same dotted name
            name += "_"
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"mapping": {key: _packed(inner, f"{name}.{key}", tensors) for key, inner in value.items()}}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(inner, f"{name}.{k}", tensors) for k, inner in enumerate(value)]}
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(
        f"Pairs: {name} holds a {type(value).__name__}, which a file cannot keep; use tensors, arrays, "
        "strings, numbers, and lists and mappings of them."
    )


def _unpacked(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the condition that :func:`_packed` turned into ``value``."""
    if not isinstance(value, dict):
        return value
    ((kind, inner),) = value.items()
    if kind == "tensor":
        return tensors[inner]
    if kind == "mapping":
        return {key: _unpacked(one, tensors) for key, one in inner.items()}
    found = [_unpacked(one, tensors) for one in inner]
    return found if kind == "list" else tuple(found)
