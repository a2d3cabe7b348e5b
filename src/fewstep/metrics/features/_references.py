"""Reference statistics of data."""

from __future__ import annotations

import os
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..._download import download
from ..._names import guess
from ..moments import Moments
from ._network import FeatureNetwork

__all__ = ["REFERENCES", "Reference", "load_reference"]

#: Bundled statistics by name.
REFERENCES = ("mnist",)

#: Most bytes of statistics to download; those of 2048 dimensions have 34 million.
_MOST = 100_000_000

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
            if it has 2048 dimensions. A file may be named by its ``https`` address; it is downloaded once,
            to a folder of ``torch.hub``.

    Raises:
        FileNotFoundError: when there is no such file.
        OSError: when it cannot be downloaded.
        ValueError: when it is damaged, or its features are unknown.
    """
    name = os.fspath(source)
    weights = Path(str(files("fewstep.metrics.features") / "weights"))
    if "://" in name:
        path = _downloaded(name)
    else:
        path = weights / f"{name}-train.npz" if name in REFERENCES else Path(name).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"ref: there is no file {name}{guess(name, REFERENCES)}; give {', '.join(REFERENCES)}, a file "
            "that fewstep fid ref wrote, or the https address of one."
        )
    try:
        moments = Moments.load(path)
    except ValueError as error:
        if "://" not in name:
            raise
        path.unlink()  # so that it is fetched again
        raise ValueError(f"ref: what {name} sent was not kept: {error}") from None
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


def _downloaded(address: str) -> Path:
    """Return the file of an address, downloaded on first use."""
    if not address.startswith("https://"):
        raise ValueError(f"ref: {address} must begin with https://, or be the path of a file.")
    name = f"{sha256(address.encode()).hexdigest()[:16]}.npz"
    path = Path(torch.hub.get_dir()) / "fewstep" / "references" / name
    if not path.exists():
        try:
            download(address, path, most=_MOST, title="statistics")
        except OSError as error:
            raise OSError(
                f"ref: {address} cannot be downloaded ({str(error).rstrip('.')}); give the path of a copy."
            ) from None
    return path


def _words(features: dict[str, Any]) -> str:
    return f"{features['name']} (sha256 {(features['sha256'] or 'unknown')[:8]})"
