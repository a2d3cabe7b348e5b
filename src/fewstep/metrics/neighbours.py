"""Whether samples are copies of training data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._distances import nearest
from ._features import check_alike, to_float64

__all__ = ["NeighbourCheck", "nearest_neighbours"]


@dataclass(frozen=True)
class NeighbourCheck:
    """How near samples come to the training data, beside how near data come that were not trained on.

    A model that learned the law of the data and copies none of them has samples at the distances of held-out
    data; smaller ones speak of memorisation, larger ones of samples unlike the data.

    Args:
        distances: of each sample to its nearest training vector, float64 ``(n,)``.
        indices: which training vector that is, ``(n,)``.
        held_out: distances of each held-out vector to its nearest training vector, float64 ``(h,)``.
        quantile: which share of the held-out distances counts as near.
    """

    distances: Tensor
    indices: Tensor
    held_out: Tensor
    quantile: float = 0.01

    @property
    def ratio(self) -> float:
        """Median distance of the samples over that of the held-out data: 1 where nothing is memorised."""
        return float(self.distances.median() / self.held_out.median())

    @property
    def threshold(self) -> float:
        """The distance below which a ``quantile`` of the held-out data lie."""
        return float(self.held_out.sort().values[int(self.quantile * len(self.held_out))])

    @property
    def share_near(self) -> float:
        """Share of the samples below the threshold: ``quantile`` where nothing is memorised."""
        return float((self.distances < self.threshold).double().mean())

    @property
    def copies(self) -> int:
        """Samples whose features are exactly those of a training vector."""
        return int((self.distances == 0).sum())

    def nearest(self, count: int = 10) -> Tensor:
        """The numbers of the samples nearest to the training data, nearest first, to look at."""
        return self.distances.argsort()[:count]

    def __str__(self) -> str:
        return (
            f"median distance to the training data {float(self.distances.median()):.4g}, "
            f"{self.ratio:.3f} of that of held-out data; "
            f"{self.share_near:.1%} of the samples are nearer than {self.quantile:.0%} of the held-out data "
            f"are; {self.copies} exact {'copy' if self.copies == 1 else 'copies'}"
        )


def nearest_neighbours(
    generated: Tensor, training: Tensor, held_out: Tensor, *, quantile: float = 0.01, block: int = 2048
) -> NeighbourCheck:
    """Look for each sample's nearest training vector, and compare with held-out data.

    Vectors are features, or pictures flattened to ``(n, d)``: in pixels a copy that is shifted by one is far
    away, in features it is near. The held-out data must be of the law of the training data and not among
    them. Neighbours are found a block at a time, their distances then taken exactly.

    Args:
        generated: samples, ``(n, d)``.
        training: what the model was trained on, all of it, ``(m, d)``.
        held_out: data it was not trained on, ``(h, d)``; 1,000 or more for a quantile of 0.01.
        quantile: which share of the held-out distances counts as near, in (0, 1).
        block: vectors at a time; the memory is that of a few ``block^2`` numbers.

    Raises:
        ValueError: when a set is empty, the sets do not fit each other, or the quantile is no share.
    """
    check_alike("nearest_neighbours", generated=generated, training=training, held_out=held_out)
    if not (0 < quantile < 1 and block > 0 and min(map(len, (generated, training, held_out))) > 0):
        raise ValueError(
            "nearest_neighbours: needs vectors in each set, a quantile in (0, 1) and a block of 1 or more, "
            f"not {len(generated)}, {len(training)} and {len(held_out)} vectors, {quantile} and {block}."
        )
    distances, indices = _nearest(generated, training, block)
    return NeighbourCheck(distances, indices, _nearest(held_out, training, block)[0], quantile)


def _nearest(x: Tensor, training: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Distances and indices of the nearest, without the rounding of products."""
    indices = nearest(x, training, 1, block)[1].squeeze(1)
    pairs = zip(x.split(block), indices.split(block), strict=True)
    gaps = [(to_float64(part) - to_float64(training[at.to(x.device)])).norm(dim=1) for part, at in pairs]
    return torch.cat(gaps), indices
