"""The Fréchet distance of two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

from .moments import Moments

__all__ = ["frechet_distance"]


def frechet_distance(a: Moments, b: Moments) -> float:
    """Squared Wasserstein-2 distance of the Gaussians that have these moments.

    ``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)``: Dowson and Landau, *The Fréchet
    distance between multivariate normal distributions* (1982). Of features of the Inception network it is the
    FID of Heusel et al., *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*
    (NeurIPS 2017); of other features it is not FID, and must not be compared with one.

    Samples overestimate it: two sets of the same law are not at distance zero, but at one that falls as
    ``1 / count``. Compare only values of equal counts, usually 50,000; where there are fewer samples than
    dimensions, :func:`fewstep.metrics.kernel_distance` is unbiased.

    Args:
        a: moments of one set; their order does not matter.
        b: moments of the other.

    Returns:
        The distance, 0 or more, in squared units of the features.

    Raises:
        ValueError: when the dimensions differ, a set has fewer than two vectors, or features were NaN or
            infinite.
    """
    if a.dimensions != b.dimensions:
        raise ValueError(
            f"frechet_distance: both must have one number of dimensions, not {a.dimensions} and "
            f"{b.dimensions}; use the same feature network."
        )
    (mean, S), (other, T) = ((x.mean, x.covariance) for x in (a, b))
    other, T = other.to(mean), T.to(S)
    for name, covariance in (("a", S), ("b", T)):
        if not torch.isfinite(covariance).all():
            raise ValueError(f"frechet_distance: the features of {name} hold NaN or infinity; look at them.")
    if _rank(b) < _rank(a):
        S, T = T, S
    gap = (mean - other).square().sum() + S.trace() + T.trace()
    overlap = _trace_of_root(_factor(S, min(_rank(a), _rank(b))), T)
    return max(0.0, float(gap - 2 * overlap))  # rounding leaves equal moments on either side of zero


def _rank(moments: Moments) -> int:
    """What the rank of the covariance cannot exceed: centred vectors sum to zero."""
    d = moments.dimensions
    return d if moments.count is None else min(d, moments.count - 1)


def _factor(S: Tensor, rank: int) -> Tensor:
    """``L`` of shape ``(d, rank)`` with ``S = L L^T``, for a covariance of that rank at most."""
    values, vectors = torch.linalg.eigh(S)
    L: Tensor = vectors[:, -rank:] * values[-rank:].clamp(min=0).sqrt()
    return L


def _trace_of_root(L: Tensor, T: Tensor) -> Tensor:
    """``tr (S^1/2 T S^1/2)^1/2`` with ``S = L L^T``: ``L^T T L`` has the same eigenvalues other than zero."""
    values: Tensor = torch.linalg.eigvalsh(L.T @ T @ L)
    return values.clamp(min=0).sqrt().sum()
