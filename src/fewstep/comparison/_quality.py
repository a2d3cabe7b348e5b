"""Quality of a set of samples in the features of a network."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

from .._hashing import fingerprint
from ..metrics import Moments, frechet_distance, precision_recall, squared_mmd
from ..metrics.features import ROUNDING, FeatureNetwork, quantize

__all__ = ["FeatureQuality"]

#: Batch size of the feature network, whose inputs may be much larger than the samples.
_BATCH = 64


class FeatureQuality:
    """Distances between samples and real pictures in the features of a network, for :func:`fewstep.compare`.

    Samples are rounded to 8 bits first, as in a file.

    Args:
        network: the feature network.
        real: moments of the real pictures' features, for the Fréchet distance.
        features: features of some real pictures, ``(N, d)``, to add the kernel distance (of all samples,
            unbiased), precision, recall, density and coverage. All but the first of these depend on ``N``:
            take as many as samples. Distances are computed on the device of the features.
    """

    def __init__(self, network: FeatureNetwork, real: Moments, features: Tensor | None = None) -> None:
        self.network, self.real, self.features = network, real, features

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics: ``fid`` for the standard Inception network, else ``frechet_<network>``."""
        inception = self.network.distance_name == "FID"
        first = "fid" if inception else f"frechet_{self.network.name}"
        if self.features is None:
            return (first,)
        second = "kid" if inception else f"kernel_{self.network.name}"
        return (first, second, "precision", "recall", "density", "coverage")

    def describe(self) -> dict[str, Any]:
        """Return facts of the network and the real pictures."""
        return {
            "distance": self.network.distance_name,
            "features": self.network.describe(),
            "rounding": ROUNDING,
            "real": {
                "count": self.real.count,
                "fingerprint": fingerprint([self.real.mean, self.real.covariance, self.features]),
                "one_by_one": 0 if self.features is None else len(self.features),
                "pictures": self.real.protocol.get("pictures"),
            },
            "figures": list(self.names),
        }

    def meter(self) -> _Meter:
        """Return a new meter."""
        return _Meter(self)


class _Meter:
    def __init__(self, quality: FeatureQuality) -> None:
        self._quality, self._moments = quality, Moments()
        self._seen: list[Tensor] = []

    def update(self, x1: Tensor) -> None:
        for part in x1.split(_BATCH):
            features = self._quality.network(quantize(part))
            self._moments.update(features)
            if self._quality.features is not None:
                self._seen.append(features.cpu())

    def figures(self) -> dict[str, float]:
        quality = self._quality
        found = [frechet_distance(self._moments, quality.real)]
        if quality.features is not None:
            own = torch.cat(self._seen).to(quality.features.device)
            found += [squared_mmd(quality.features, own), *astuple(precision_recall(quality.features, own))]
        return dict(zip(quality.names, found, strict=True))
