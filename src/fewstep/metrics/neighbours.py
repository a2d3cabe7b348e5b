"""Detection of memorised training data by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._features import check_alike, nearest, to_float64

__all__ = ["NeighbourCheck", "nearest_neighbours"]


@dataclass(frozen=True)
class NeighbourCheck:
    """Distances of samples and of held-out data to the training data.

    The samples of a model that learned the distribution of the data without copying have the same distances
    as held-out data; smaller ones indicate memorisation, larger ones samples unlike the data.

    Args:
        distances: distance of each sample to its nearest training vector, float64 ``(n,)``.
        indices: index of that training vector, ``(n,)``.
        held_out: distance of each held-out vector to its nearest training vector, float64 ``(h,)``.
        quantile: share of the held-out distances that counts as near.
    """

    distances: Tensor
    indices: Tensor
    held_out: Tensor
    quantile: float = 0.01

    @property
    def ratio(self) -> float:
        """Median distance of the samples, relative to that of the held-out data: 1 without memorisation."""
        return float(self.distances.median() / self.held_out.median())

    @property
    def threshold(self) -> float:
        """The ``quantile`` of the held-out distances."""
        return float(self.held_out.sort().values[int(self.quantile * len(self.held_out))])

    @property
    def share_near(self) -> float:
        """Share of the samples below the threshold: ``quantile`` without memorisation."""
        return float((self.distances < self.threshold).double().mean())

    @property
    def copies(self) -> int:
        """Number of samples equal to a training vector."""
        return int((self.distances == 0).sum())

    def nearest(self, count: int = 10) -> Tensor:
        """Return the indices of the samples nearest to the training data, nearest first."""
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
    """Find each sample's nearest training vector, and compare its distance with those of held-out data.

    Vectors are features, or images flattened to ``(n, d)``: a copy shifted by one pixel is far away in pixels
    and near in features. The held-out data must have the distribution of the training data and not be among
    them. Neighbours are searched in blocks; their distances are then computed exactly.

    Args:
        generated: samples, ``(n, d)``.
        training: all training data, ``(m, d)``.
        held_out: data not trained on, ``(h, d)``; 1,000 or more for a quantile of 0.01.
        quantile: share of the held-out distances that counts as near, in (0, 1).
        block: vectors at a time; a few times ``block^2`` numbers are in memory.

    Raises:
        ValueError: when a set is empty, the sets do not match, or the quantile is not in (0, 1).
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
    """Return distances and indices of the nearest, the distances without the rounding of inner products."""
    indices = nearest(x, training, 1, block)[1].squeeze(1)
    pairs = zip(x.split(block), indices.split(block), strict=True)
    gaps = [(to_float64(part) - to_float64(training[at.to(x.device)])).norm(dim=1) for part, at in pairs]
    return torch.cat(gaps), indices
