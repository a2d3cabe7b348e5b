"""Separate measures of fidelity and diversity: precision and recall, density and coverage."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._features import check_alike, nearest, squared_distances

__all__ = ["Fidelity", "precision_recall"]

#: Relative tolerance for rounding of squared distances, so that a point on a sphere lies in its closed ball.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Fidelity:
    """The shares of samples close to data and of data close to samples.

    Args:
        precision: share of the samples in some ball of the data, in [0, 1].
        recall: share of the data in some ball of the samples, in [0, 1].
        density: mean number of the data's balls that contain a sample, divided by ``k``; about 1 for equal
            distributions, more if the samples concentrate where the data are dense.
        coverage: share of the data with a sample in their ball, in [0, 1].
    """

    precision: float
    recall: float
    density: float
    coverage: float

    def __str__(self) -> str:
        names = ("precision", "recall", "density", "coverage")
        return ", ".join(f"{name} {getattr(self, name):.3f}" for name in names)


def precision_recall(
    real: Tensor, generated: Tensor, *, k: int = 3, density_k: int = 5, block: int = 2048
) -> Fidelity:
    """Compare two sets of features by their nearest-neighbour balls.

    The ball of a vector is closed and reaches to the ``k``-th nearest *other* vector of its own set.
    Precision and recall are those of Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing
    Generative Models* (NeurIPS 2019), eq. 1 and 2, with their ``k = 3``; density and coverage those of Naeem
    et al., *Reliable Fidelity and Diversity Metrics for Generative Models* (ICML 2020), with their ``k = 5``.

    All four depend on the numbers of vectors: compare only values of equal counts, usually 10,000 or 50,000
    of each. An outlier has a large ball, which raises precision and recall; density and coverage are less
    sensitive to that. Distances are computed in blocks.

    Args:
        real: features of data, ``(n, d)``.
        generated: features of samples, ``(m, d)``.
        k: number of neighbours for precision and recall.
        density_k: number of neighbours for density and coverage.
        block: vectors at a time; a few times ``block^2`` numbers are in memory.

    Raises:
        ValueError: when a set has too few vectors for its neighbours, or the sets do not match.
    """
    check_alike("precision_recall", real=real, generated=generated)
    if min(k, density_k, block) < 1 or len(real) <= max(k, density_k) or len(generated) <= k:
        raise ValueError(
            "precision_recall: k, density_k and block must be 1 or more, and each set larger than the number "
            f"of neighbours, not k={k}, density_k={density_k}, block={block} with {len(real)} real and "
            f"{len(generated)} generated vectors."
        )
    squares = nearest(real, real, max(k, density_k), block, others=True)[0]
    real_ball, dense_ball = squares[:, k - 1], squares[:, density_k - 1]
    generated_ball = nearest(generated, generated, k, block, others=True)[0][:, k - 1]

    precise, recalled, covered = (
        torch.zeros(len(x), dtype=torch.bool, device=squares.device) for x in (generated, real, real)
    )
    inside = torch.zeros((), dtype=torch.int64, device=squares.device)
    for row, column, distances in squared_distances(generated, real, block):
        samples = slice(row, row + len(distances))
        data = slice(column, column + distances.shape[1])
        distances = distances / (1 + _ROUNDING)
        precise[samples] |= (distances <= real_ball[data]).any(dim=1)
        recalled[data] |= (distances <= generated_ball[samples, None]).any(dim=0)
        in_dense_ball = distances <= dense_ball[data]
        covered[data] |= in_dense_ball.any(dim=0)
        inside += in_dense_ball.sum()
    shares = (float(x.double().mean()) for x in (precise, recalled, covered))
    precision, recall, coverage = shares
    return Fidelity(precision, recall, int(inside) / (density_k * len(generated)), coverage)
