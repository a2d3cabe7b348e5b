"""Features of many images, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..._processes import place
from ..._progress import progress_bar
from ..._ranges import COUNT, check_range
from ...data import ArrayDataset, Dataset
from ..moments import Moments
from ._network import FeatureNetwork, quantize

__all__ = ["ROUNDING", "feature_matrix", "feature_moments"]

#: The conversion of samples that are not 8-bit images.
ROUNDING = "samples in [-1, 1] to the nearest of 256 levels, clamped"


def feature_moments(
    data: Dataset | Tensor,
    network: FeatureNetwork,
    *,
    indices: Sequence[int] | None = None,
    batch: int = 64,
    progress: bool = False,
) -> Moments:
    """Compute mean and covariance of the features of images, in constant memory.

    With ``torch.distributed``, the processes share the batches, and each returns the moments of all images.

    Args:
        data: images: a data set, or a tensor ``(N, C, H, W)``; uint8, or floating-point in [-1, 1], which
            is rounded by :func:`quantize`. Of pairs, the samples are used.
        network: the feature network.
        indices: indices of the images, by default all.
        batch: images per batch.
        progress: show a progress bar.

    Returns:
        The moments; their protocol names the network and the rounding.

    Raises:
        ValueError: when the data are not images, or the network does not accept them.
    """
    moments = Moments({"features": network.describe(), "rounding": ROUNDING})
    for features in _features(data, network, indices, batch, progress):
        moments.update(features)
    return moments.over_processes()


def feature_matrix(
    data: Dataset | Tensor,
    network: FeatureNetwork,
    *,
    indices: Sequence[int] | None = None,
    batch: int = 64,
    progress: bool = False,
) -> Tensor:
    """Compute the features, float32 of shape ``(N, d)`` on the CPU, for distances that need all of them.

    The arguments are those of :func:`feature_moments`; a single process computes all.
    """
    parts = _features(data, network, indices, batch, progress, alone=True)
    return torch.cat([features.cpu() for features in parts])


def _features(
    data: Dataset | Tensor,
    network: FeatureNetwork,
    indices: Sequence[int] | None,
    batch: int,
    progress: bool,
    alone: bool = False,
) -> Iterator[Tensor]:
    """Yield the features of this process's batches, a strided share of all."""
    (batch,) = check_range("features", COUNT, batch=batch)
    source = ArrayDataset(data, "samples") if isinstance(data, Tensor) else data
    numbers = range(len(source)) if indices is None else indices
    rank, world = (0, 1) if alone else place()
    starts = range(rank * batch, len(numbers), world * batch)
    with progress_bar(
        progress and not rank, total=len(numbers), desc=f"features ({network.name})", unit="picture"
    ) as bar:
        for start in starts:
            pictures = source[numbers[start : start + batch]]
            samples = pictures[1] if isinstance(pictures, tuple) else pictures
            yield network(quantize(samples))
            bar.update(min(world * batch, len(numbers) - start))
