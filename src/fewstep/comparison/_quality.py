"""Quality in the features of a network: what samples are like, whatever noises they come from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._hashing import fingerprint
from ..metrics import Moments, frechet_distance, precision_recall, squared_mmd
from ..metrics.features import ROUNDING, FeatureNetwork, quantize

__all__ = ["FeatureQuality"]

#: Pictures that the feature network sees at once, which may be much larger than what is sampled.
_BATCH = 64


class FeatureQuality:
    """Distances of samples to real pictures in the features of a network, for :func:`fewstep.compare`.

    Samples are rounded to 8 bits first, as in a file.

    Args:
        network: the feature network.
        real: moments of the real pictures' features; enough for the Fréchet distance.
        features: those of some real pictures one by one, ``(N, d)``, if the kernel distance (of all samples,
            without bias), precision, recall, density and coverage are wanted too. All but the first depend on
            how many there are: take as many as samples. Distances are taken on their device.
    """

    def __init__(self, network: FeatureNetwork, real: Moments, features: Tensor | None = None) -> None:
        self.network, self.real, self.features = network, real, features

    @property
    def names(self) -> tuple[str, ...]:
        """``fid`` for the standard Inception network alone, ``frechet_<network>`` for all others."""
        inception = self.network.distance_name == "FID"
        first = "fid" if inception else f"frechet_{self.network.name}"
        if self.features is None:
            return (first,)
        second = "kid" if inception else f"kernel_{self.network.name}"
        return (first, second, "precision", "recall", "density", "coverage")

    def describe(self) -> dict[str, Any]:
        """The network, and what is known of the real pictures."""
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
        """A meter that has seen nothing."""
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
            shares = precision_recall(quality.features, own)
            found += [
                squared_mmd(quality.features, own),
                shares.precision,
                shares.recall,
                shares.density,
                shares.coverage,
            ]
        return dict(zip(quality.names, found, strict=True))
