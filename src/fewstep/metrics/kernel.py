"""The kernel distance between two sets of features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ._features import check_alike, to_float64

__all__ = ["KernelDistance", "kernel_distance", "squared_mmd"]


@dataclass(frozen=True)
class KernelDistance:
    """A kernel distance, averaged over random subsets.

    Args:
        mean: mean over the subsets.
        std: standard deviation over the subsets, not of ``mean``; 0 for a single subset.
        subset: vectors per subset.
        subsets: number of subsets.
    """

    mean: float
    std: float
    subset: int
    subsets: int

    def __str__(self) -> str:
        if self.subsets == 1:
            return f"{self.mean:.4g} (one subset of {self.subset})"
        return f"{self.mean:.4g} ± {self.std:.2g} ({self.subsets} subsets of {self.subset})"


def kernel_distance(
    x: Tensor, y: Tensor, *, subset: int = 1000, subsets: int = 100, seed: int = 0
) -> KernelDistance:
    """Kernel distance averaged over random subsets, as is usual for the KID.

    With features of the Inception network it is the KID of Bińkowski et al., *Demystifying MMD GANs* (ICLR
    2018): the mean over subsets of the unbiased :func:`squared_mmd`. Its expectation does not depend on the
    number of samples, and it may be negative for similar sets.

    Args:
        x: features of one set, ``(n, d)``.
        y: features of the other set, ``(m, d)``.
        subset: vectors drawn without replacement from each set, for each subset.
        subsets: number of subsets.
        seed: seed of the draws.

    Raises:
        ValueError: when a set has fewer than ``subset`` vectors, or the sets do not match.
    """
    check_alike("kernel_distance", x=x, y=y)
    if not 2 <= subset <= min(len(x), len(y)) or subsets < 1:
        raise ValueError(
            f"kernel_distance: subset must be from 2 to {min(len(x), len(y))}, the vectors of the smaller "
            f"set, and subsets 1 or more, not {subset} and {subsets}."
        )
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        rows = (torch.randperm(len(z), generator=generator)[:subset].to(z.device) for z in (x, y))
        values.append(squared_mmd(*(z[index] for z, index in zip((x, y), rows, strict=True))))
    spread = torch.tensor(values, dtype=torch.float64)
    return KernelDistance(float(spread.mean()), float(spread.std(correction=0)), subset, subsets)


def squared_mmd(x: Tensor, y: Tensor, *, block: int = 4096) -> float:
    """Unbiased squared maximum mean discrepancy with the kernel ``k(x, y) = (x.y / d + 1)^3``.

    The sum over both sets of the mean of ``k`` over pairs of different vectors in the set, minus twice its
    mean over pairs across the sets: Gretton et al., *A Kernel Two-Sample Test* (JMLR 2012), Lemma 6, with the
    kernel of Bińkowski et al. (2018). Its expectation is zero if both sets have the same distribution. Time
    is quadratic in the number of samples, memory constant.

    Args:
        x: features of one set, ``(n, d)``, ``n >= 2``.
        y: features of the other set, ``(m, d)``, ``m >= 2``.
        block: vectors at a time; ``block^2`` numbers are in memory.

    Raises:
        ValueError: when a set has fewer than two vectors, or the sets do not match.
    """
    check_alike("squared_mmd", x=x, y=y)
    n, m = len(x), len(y)
    if min(n, m) < 2 or block < 1:
        raise ValueError(
            "squared_mmd: each set must have at least two vectors, and block must be at least 1, "
            f"not {n} and {m} vectors, and {block}."
        )
    within = (_sum(z, z, block) - _sum_with_itself(z, block) for z in (x, y))
    xx, yy = (total / (len(z) * (len(z) - 1)) for total, z in zip(within, (x, y), strict=True))
    return float(xx + yy - 2 * _sum(x, y, block) / (n * m))


def _sum(x: Tensor, y: Tensor, block: int) -> Tensor:
    """Return the sum of the kernel over all pairs."""
    sums = [
        _kernel(to_float64(a) @ to_float64(b).T, x.shape[1]).sum()
        for a in x.split(block)
        for b in y.split(block)
    ]
    return torch.stack(sums).sum()


def _sum_with_itself(x: Tensor, block: int) -> Tensor:
    """Return the sum of the kernel over pairs of a vector with itself."""
    sums = [_kernel(to_float64(a).square().sum(dim=1), x.shape[1]).sum() for a in x.split(block)]
    return torch.stack(sums).sum()


def _kernel(product: Tensor, d: int) -> Tensor:
    return (product / d + 1) ** 3
