"""Pairs: noises with the reference samples they lead to."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ._files import write_safetensors
from ._json import finite

__all__ = ["Pairs", "noise", "take"]

#: The key under which a safetensors file of pairs keeps its facts.
_FACTS = "fewstep.pairs"
#: What its names of conditions begin with.
_CONDITION = "condition."


def noise(
    count: int,
    shape: Sequence[int],
    *,
    seed: int = 0,
    start: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal noises number ``start`` to ``start + count - 1`` of a seed.

    Noise ``k`` comes from a counter-based generator of its own, keyed by ``(seed, k)``: it is the
    same whatever the batch it is drawn in.

    Args:
        count: how many, at least 1.
        shape: shape of one sample.
        seed: which stream, 0 or more.
        start: number of the first.
        dtype: floating-point type of the result; drawn in float64 and rounded.
        device: where to put it.

    Returns:
        Tensor of shape ``(count, *shape)``.
    """
    if count < 1 or start < 0 or seed < 0:
        raise ValueError(
            "noise: needs count >= 1, start >= 0 and seed >= 0, "
            f"not count={count}, start={start}, seed={seed}."
        )
    keys = (np.array([seed, k], dtype=np.uint64) for k in range(start, start + count))
    draws = [np.random.Generator(np.random.Philox(key=key)).standard_normal(tuple(shape)) for key in keys]
    return torch.from_numpy(np.stack(draws)).to(dtype).to(device)  # some devices have no float64


@dataclass(frozen=True)
class Pairs:
    """Noises ``x0`` and their reference samples ``x1``.

    Args:
        x0: noises, ``(B, ...)``.
        x1: the (nearly) exact solutions at ``t = 1``, like ``x0``.
        nfe: network calls that the reference needed a sample; the largest over batches.
        calls: network calls in all, one for each sample and evaluation, error estimate included.
        error: RMSE of ``x1`` as estimated with ten times tighter tolerances; NaN when not estimated.
        conditions: keyword arguments of the network; tensors with first dimension ``B`` belong to
            the samples one by one, everything else to all of them.
        provenance: how the pairs were made.
        per_sample: names of the conditions that belong to the samples one by one, where tensors with
            first dimension ``B`` would not tell; parts of the pairs keep those of the whole.
        seeds: the numbers of the noises in their stream, int64 of shape ``(B,)``, where they are known.
    """

    x0: Tensor
    x1: Tensor
    nfe: int = 0
    calls: int = 0
    error: float = float("nan")
    conditions: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    per_sample: Collection[str] | None = None
    seeds: Tensor | None = None

    def __post_init__(self) -> None:
        if self.x0.shape != self.x1.shape:
            raise ValueError(
                "Pairs: x0 and x1 must have one shape, "
                f"not {tuple(self.x0.shape)} and {tuple(self.x1.shape)}."
            )
        if self.per_sample is None:
            names = [key for key, value in self.conditions.items() if _has_rows(value, len(self))]
            object.__setattr__(self, "per_sample", names)

    def __len__(self) -> int:
        return len(self.x0)

    def __getitem__(self, index: slice | Tensor) -> Pairs:
        """Some of the pairs; the counts and the provenance stay those of the whole."""
        seeds = None if self.seeds is None else self.seeds[index]
        own = self.conditions_of(index)
        return replace(self, x0=self.x0[index], x1=self.x1[index], conditions=own, seeds=seeds)

    def conditions_of(self, index: slice | Tensor) -> dict[str, Any]:
        """The conditions of some of the samples."""
        own = self.per_sample or ()
        return {key: value[index] if key in own else value for key, value in self.conditions.items()}

    def split(self, last: int) -> tuple[Pairs, Pairs]:
        """All but the ``last`` pairs, and those."""
        cut = len(self) - last
        return self[:cut], self[cut:]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pairs to a safetensors file; conditions must be tensors."""
        odd = [key for key, value in self.conditions.items() if not isinstance(value, Tensor)]
        if odd:
            raise ValueError(f"Pairs: only tensor conditions can be saved, not {', '.join(odd)}.")
        facts = {
            "nfe": self.nfe,
            "calls": self.calls,
            "error": finite(self.error),
            "provenance": dict(self.provenance),
            "per_sample": list(self.per_sample or ()),
        }
        tensors = {"x0": self.x0, "x1": self.x1, **{_CONDITION + k: v for k, v in self.conditions.items()}}
        if self.seeds is not None:
            tensors["seeds"] = self.seeds
        write_safetensors(path, tensors, {_FACTS: json.dumps(facts)})

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Pairs:
        """Read a file written by :meth:`save`.

        Raises:
            ValueError: when the file is damaged or holds no pairs.
        """
        try:
            with safe_open(path, "pt", device=str(device)) as file:
                facts = json.loads(file.metadata()[_FACTS])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            x0, x1, seeds = tensors.pop("x0"), tensors.pop("x1"), tensors.pop("seeds", None)
            facts["error"] = math.nan if facts["error"] is None else facts["error"]
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not a complete file of pairs ({error}); make it again.") from error
        conditions = {key.removeprefix(_CONDITION): value for key, value in tensors.items()}
        return cls(x0, x1, conditions=conditions, seeds=seeds, **facts)


def take(conditions: Mapping[str, Any], index: slice | Tensor, count: int) -> dict[str, Any]:
    """The conditions of some samples: per-sample tensors are indexed, the rest passes through."""
    return {key: value[index] if _has_rows(value, count) else value for key, value in conditions.items()}


def _has_rows(value: object, count: int) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == count
