"""Moment files in the format of EDM's reference statistics: an npz with ``mu`` and ``sigma``."""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._files import replacing

__all__ = ["read", "write"]

#: Exceptions that the reader raises on a damaged archive.
_DAMAGE = (EOFError, ValueError, zlib.error, zipfile.BadZipFile)


def write(
    path: str | os.PathLike[str],
    mu: NDArray[np.float64],
    sigma: NDArray[np.float64],
    facts: Mapping[str, Any],
) -> None:
    """Write mean and covariance, and facts as JSON, atomically."""
    text = json.dumps(facts, allow_nan=False)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, mu=mu, sigma=sigma, facts=np.array(text))


def read(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], NDArray[np.float64], dict[str, Any]]:
    """Read mean, covariance, and facts, which may be empty.

    Raises:
        ValueError: naming the file and its fault.
    """
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path}: is not a complete npz file; make or download it again.")
        file.seek(0)
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in ("mu", "sigma", "facts") if key in archive.files}
                names = ", ".join(archive.files) or "nothing"
        except _DAMAGE as error:
            raise ValueError(f"{path}: cannot be read as arrays ({error}).") from error
    if not {"mu", "sigma"} <= arrays.keys():
        raise ValueError(f"{path}: holds {names}, but a file of moments holds mu and sigma.")
    mu, sigma = (_float64(path, key, arrays[key]) for key in ("mu", "sigma"))
    if mu.ndim != 1 or not len(mu) or sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"{path}: mu must be (d,) and sigma (d, d), not {mu.shape} and {sigma.shape}.")
    return mu, sigma, _facts(path, arrays["facts"]) if "facts" in arrays else {}


def _float64(path: str | os.PathLike[str], key: str, x: NDArray[Any]) -> NDArray[np.float64]:
    if not np.issubdtype(x.dtype, np.floating) or not np.isfinite(x).all():
        raise ValueError(f"{path}: {key} must be finite floating-point numbers; make or download it again.")
    return x.astype(np.float64)


def _facts(path: str | os.PathLike[str], text: NDArray[Any]) -> dict[str, Any]:
    try:
        facts = json.loads(str(text))
        count, protocol = facts["count"], facts["protocol"]
        if not isinstance(protocol, dict) or not (count is None or (type(count) is int and count > 1)):
            raise ValueError("count must be an integer above 1 or null, and protocol an object")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: its facts cannot be read ({error}); make it again.") from error
    return {"count": count, "protocol": protocol}
