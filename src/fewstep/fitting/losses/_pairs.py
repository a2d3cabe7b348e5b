"""Pairs with further targets of a loss besides ``x1``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar, cast

from torch import Tensor

from ..._device import placed
from ...field import Field
from ...pairs import Pairs
from .._dense import DensePath, dense_path

__all__ = ["FeaturePairs", "PathPairs", "carrying"]

Carrying = TypeVar("Carrying", bound=Pairs)


def carrying(kind: type[Carrying], pairs: Pairs, **more: Any) -> Carrying:
    """Return the pairs as another class of pairs with further fields."""
    return kind(**{f.name: getattr(pairs, f.name) for f in fields(Pairs)}, **more)


@dataclass(frozen=True)
class FeaturePairs(Pairs):
    """Pairs with the features of ``x1``, one row per pair."""

    features: Tensor = field(kw_only=True)

    def __getitem__(self, index: slice | Tensor) -> FeaturePairs:
        return replace(
            cast(FeaturePairs, super().__getitem__(index)),
            features=self.features[placed(index, self.features)],
        )


@dataclass(frozen=True)
class PathPairs(Pairs):
    """Pairs with the reference paths from their noises to their samples."""

    path: DensePath = field(kw_only=True)

    def __getitem__(self, index: slice | Tensor) -> PathPairs:
        return replace(
            cast(PathPairs, super().__getitem__(index)), path=self.path.take(placed(index, self.x0))
        )

    @classmethod
    def solved(cls, pairs: Pairs, field: Field, *, rtol: float, atol: float) -> tuple[PathPairs, int]:
        """Return the pairs with their paths, and the number of network calls made for them."""
        path, calls = dense_path(field, pairs, rtol=rtol, atol=atol)
        return carrying(cls, pairs, path=path), calls
