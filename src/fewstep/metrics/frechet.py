"""The Fréchet distance between two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from .moments import Moments

__all__ = ["frechet_distance"]


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Wasserstein-2 distance between the Gaussians with these moments.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)``: Dowson and Landau, *The Fréchet
    distance between multivariate normal distributions* (1982). With features of the Inception network it is
    the FID of Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
    Equilibrium* (NeurIPS 2017); with other features it is not comparable to FID.

    The estimate is biased upwards: between two sets of one distribution it falls as ``1 / count``, and is not
    zero. Compare only values of equal counts, usually 50,000. With fewer samples than dimensions, use
    :func:`fewstep.metrics.kernel_distance`, which is unbiased.

    Args:
        a: moments of one set; the order of the sets does not matter.
        b: moments of the other set.

    Returns:
        The distance, 0 or more, in squared units of the features.

    Raises:
        ValueError: when the dimensions differ, a set has fewer than two vectors, or features were NaN or
            infinite.
    """
    if a.dimensions != b.dimensions:
        raise ValueError(
            f"frechet_distance: both must have the same number of dimensions, not {a.dimensions} and "
            f"{b.dimensions}; use the same feature network."
        )
    (mean, S), (other, T) = ((x.mean, x.covariance) for x in (a, b))
    other, T = other.to(mean), T.to(S)
    for name, covariance in (("a", S), ("b", T)):
        if not torch.isfinite(covariance).all():
            raise ValueError(f"frechet_distance: the features of {name} hold NaN or infinity; check them.")
    if _rank(b) < _rank(a):
        S, T = T, S
    gap = (mean - other).square().sum() + S.trace() + T.trace()
    overlap = _trace_of_root(_factor(S, min(_rank(a), _rank(b))), T)
    return max(0.0, float(gap - 2 * overlap))  # rounding can make that of equal moments negative


def _rank(moments: Moments) -> int:
    """Return an upper bound of the covariance's rank: centred vectors sum to zero."""
    d = moments.dimensions
    return d if moments.count is None else min(d, moments.count - 1)


def _factor(S: Tensor, rank: int) -> Tensor:
    """Return ``L`` of shape ``(d, rank)`` with ``S = L L^T``, for a covariance of at most that rank."""
    values, vectors = torch.linalg.eigh(S)
    L: Tensor = vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()
    return L


def _trace_of_root(L: Tensor, T: Tensor) -> Tensor:
    """Return ``tr (S^1/2 T S^1/2)^1/2`` with ``S = L L^T``: ``L^T T L`` has the same nonzero eigenvalues."""
    values: Tensor = torch.linalg.eigvalsh(L.T @ T @ L)
    return values.clamp(min=0).sqrt().sum()
