"""Reference statistics of data."""

from __future__ import annotations

import os
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from ..moments import Moments
from ._network import FeatureNetwork

__all__ = ["REFERENCES", "Reference", "load_reference"]

#: Bundled statistics by name.
REFERENCES = ("mnist",)

#: Dimensions by which statistics without facts, as published by EDM, are recognised as Inception's.
_INCEPTION_DIMS = 2048


class Reference(NamedTuple):
    """Moments of data, with the feature network that they belong to.

    Attributes:
        moments: mean and covariance, with their protocol.
        features: the network's ``name``, ``sha256`` (or ``None``) and ``dims``.
        assumed: whether Inception is assumed from the number of features, as the file does not say.
        sha256: sha256 of the file.
        source: its name or path.
    """

    moments: Moments
    features: dict[str, Any]
    assumed: bool
    sha256: str
    source: str

    def check(self, network: FeatureNetwork) -> None:
        """Raise a ``ValueError`` unless the statistics were made with this network."""
        made, used = (
            {key: facts[key] for key in ("name", "sha256") if not (self.assumed and key == "sha256")}
            for facts in (self.features, network.describe())
        )
        if made != used:
            raise ValueError(
                f"ref: {self.source} was made with the features {_words(self.features)}, not "
                f"{_words(network.describe())}; measure with those, or make the statistics again with "
                "fewstep fid ref."
            )


def load_reference(source: str | os.PathLike[str]) -> Reference:
    """Open statistics by name or path.

    Args:
        source: ``mnist``, the 60,000 training images in the features ``mnist``; or an npz file of
            ``fewstep fid ref`` or in EDM's format (``mu`` and ``sigma``), which is assumed to be Inception's
            if it has 2048 dimensions.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, or its features are unknown.
    """
    name = os.fspath(source)
    weights = Path(str(files("fewstep.metrics.features") / "weights"))
    path = weights / f"{name}-train.npz" if name in REFERENCES else Path(name).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"ref: there is no file {name}; give {', '.join(REFERENCES)}, or a file that fewstep fid "
            "ref wrote."
        )
    moments = Moments.load(path)
    features = moments.protocol.get("features")
    assumed = features is None and moments.dimensions == _INCEPTION_DIMS
    if assumed:
        features = {"name": "inception", "sha256": None, "dims": _INCEPTION_DIMS}
    if not isinstance(features, dict) or not {"name", "sha256"} <= features.keys():
        raise ValueError(
            f"ref: {path} does not say with which features it was made, and its {moments.dimensions} "
            f"dimensions are not the {_INCEPTION_DIMS} of Inception; make it again with fewstep fid ref."
        )
    return Reference(moments, features, assumed, sha256(path.read_bytes()).hexdigest(), name)


def _words(features: dict[str, Any]) -> str:
    return f"{features['name']} (sha256 {(features['sha256'] or 'unknown')[:8]})"
