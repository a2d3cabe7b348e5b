"""Streaming mean and covariance of features."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._archives import array_names, read_arrays
from .._files import replacing
from .._processes import exchange, total
from .._reading import check, excerpt, parse_json, reading
from ._features import check_features, to_float64

__all__ = ["Moments"]

#: Stands for an unknown count in a tensor of integers.
_UNKNOWN = -1

#: Vectors converted to float64 at a time.
_ROWS = 1024

_SOURCE = ({"name": str, "sha256": (str, None)}, None)
#: Kinds of the facts in a file.
_KINDS = {"count": (int, None), "protocol": {"features": _SOURCE}}

#: Rounding of a covariance over its norm: some files are in float32.
_ROUNDING = 1e-6


class Moments:
    """Mean and covariance of feature vectors, in constant memory.

    Batches are merged by the update of Chan, Golub and LeVeque (*Updating formulae and a pairwise algorithm
    for computing sample variances*, 1979), in float64: with ``m`` more vectors of mean ``b`` the scatter
    ``S = sum (x - mean)(x - mean)^T`` of ``n`` vectors of mean ``a`` becomes

        ``S + sum (x - b)(x - b)^T + n m / (n + m) (b - a)(b - a)^T``,

    without cancellation, however large the mean.

    Args:
        protocol: how the features were made, ready for JSON: the images, the network, the rounding. It is
            saved in the file, and only moments with equal protocols can be added.
    """

    def __init__(self, protocol: Mapping[str, Any] | None = None) -> None:
        self.protocol: dict[str, Any] = dict(protocol or {})
        self._count: int | None = 0
        self._mean = self._scatter = torch.empty(0, dtype=torch.float64)

    @classmethod
    def of(cls, features: Tensor, protocol: Mapping[str, Any] | None = None) -> Moments:
        """Return the moments of one set of features, ``(n, d)``."""
        moments = cls(protocol)
        moments.update(features)
        return moments

    @property
    def count(self) -> int | None:
        """Number of vectors; ``None`` for moments from a file without it."""
        return self._count

    @property
    def dimensions(self) -> int:
        """Length ``d`` of a vector; 0 before the first batch."""
        return len(self._mean)

    @property
    def mean(self) -> Tensor:
        """Mean, float64 of shape ``(d,)``.

        Raises:
            ValueError: when there are no vectors.
        """
        self._need(1, "mean")
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance, divided by ``count - 1``: float64 of shape ``(d, d)``.

        Raises:
            ValueError: when there are fewer than two vectors.
        """
        self._need(2, "covariance")
        return self._scatter if self._count is None else self._scatter / (self._count - 1)

    def update(self, features: Tensor) -> None:
        """Add a batch.

        Shape:
            ``features``: ``(n, d)``, of any floating-point type; ``d`` must equal that of the first batch.

        Raises:
            ValueError: when the features do not match, or the moments come from a file without a count.
        """
        check_features("update", features=features)
        self._fit(features.shape[1], to_float64(features[:0]).device)
        for part in features.split(_ROWS):
            if len(part):
                x = to_float64(part).to(self._mean.device)
                mean = x.mean(dim=0)
                self._take(len(x), mean, x - mean)

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of the union of both sets.

        Raises:
            ValueError: when their dimensions or protocols differ, or a count is unknown.
        """
        if not isinstance(other, Moments):
            return NotImplemented
        if self.protocol != other.protocol:
            raise ValueError(
                f"Moments: only features of the same protocol can be added, not {self.protocol} and "
                f"{other.protocol}; make both in the same way."
            )
        both = Moments(self.protocol)
        for part in (self, other):
            part._need_count()
            if part.dimensions:
                both._fit(part.dimensions, part._mean.device)
            if part._count:
                both._take(part._count, part._mean)
                both._scatter += part._scatter.to(both._scatter.device)
        return both

    def over_processes(self) -> Moments:
        """Return the moments of all vectors over the processes of ``torch.distributed``, the same in each.

        Every process must call it, with its own moments of the same protocol, which may be empty. Without
        ``torch.distributed`` the result is a copy.

        Raises:
            ValueError: in every process, when dimensions differ or a count is unknown.
        """
        own = torch.tensor([_UNKNOWN if self._count is None else self._count, self.dimensions])
        counts, lengths = torch.stack(exchange(own)).T.tolist()
        if _UNKNOWN in counts:
            self._refuse_unknown(f" (in process {counts.index(_UNKNOWN)})")
        if len(set(lengths) - {0}) > 1:
            raise ValueError(
                f"Moments: all processes must have features of the same length, not of {lengths} dimensions."
            )
        merged = Moments(self.protocol)
        if sum(counts):
            merged._fit(max(lengths), self._mean.device)
            n = self._count or 0
            mean = self._mean if n else merged._mean
            merged._count, merged._mean = sum(counts), total(n * mean) / sum(counts)
            scatter = self._scatter if n else merged._scatter
            shift = mean - merged._mean
            merged._scatter = total(torch.addr(scatter, shift, shift, alpha=n))
        return merged

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file in the format of EDM's reference statistics, atomically.

        It holds ``mu`` and ``sigma``, float64, and ``facts``: JSON with the count and the protocol, ignored
        by other readers.
        """
        facts = json.dumps({"count": self._count, "protocol": self.protocol}, allow_nan=False)
        mu, sigma = self.mean.cpu().numpy(), self.covariance.cpu().numpy()
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, mu=mu, sigma=sigma, facts=np.array(facts))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Moments:
        """Read a file written by :meth:`save`, EDM, or any program that writes ``mu`` and ``sigma``.

        Nothing can be added to moments from a file without their count.

        Raises:
            ValueError: naming the file and its fault.
        """
        mu, sigma, facts = _read(path)
        _check_covariance(path, sigma)
        moments = cls(facts.get("protocol"))
        moments._count, moments._mean, moments._scatter = facts.get("count"), mu, sigma
        if moments._count is not None:
            moments._scatter *= moments._count - 1
        return moments

    def __repr__(self) -> str:
        return f"Moments(count={self._count}, dimensions={self.dimensions}, protocol={self.protocol})"

    def _fit(self, d: int, device: torch.device) -> None:
        """Allocate for vectors of ``d`` dimensions, or raise if the moments have others."""
        self._need_count()
        if not self.dimensions:
            self._mean = torch.zeros(d, dtype=torch.float64, device=device)
            self._scatter = torch.zeros(d, d, dtype=torch.float64, device=device)
        elif d != self.dimensions:
            raise ValueError(
                f"Moments: features must have {self.dimensions} dimensions, as the first ones, not {d}."
            )

    def _take(self, m: int, mean: Tensor, centred: Tensor | None = None) -> None:
        """Add ``m`` vectors with this mean; ``centred``, minus their mean, if they add to the scatter."""
        n = self._count or 0
        shift = mean.to(self._mean) - self._mean
        # The term of the two means is one more row.
        rows = shift[None] * (n * m / (n + m)) ** 0.5
        rows = rows if centred is None else torch.cat([centred, rows])
        self._scatter.addmm_(rows.T, rows)
        self._mean = self._mean + shift * (m / (n + m))  # not in place: callers may hold the old mean
        self._count = n + m

    def _need(self, least: int, what: str) -> None:
        if self._count is not None and self._count < least:
            raise ValueError(
                f"Moments: a {what} needs at least {least} feature vectors, not {self._count}; "
                "update with more."
            )

    def _need_count(self) -> None:
        if self._count is None:
            self._refuse_unknown("")

    @staticmethod
    def _refuse_unknown(where: str) -> None:
        raise ValueError(
            f"Moments: nothing can be added to moments whose file has no count{where}; "
            "make them again from the features."
        )


def _read(path: str | os.PathLike[str]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Read mean, covariance, and facts, which may be empty."""
    with reading(path, "npz file of mu and sigma", "fewstep fid ref"):
        arrays = read_arrays(path, ("mu", "sigma", "facts"))
        if not {"mu", "sigma"} <= arrays.keys():
            names = ", ".join(array_names(path)) or "nothing"
            raise ValueError(f"{path}: holds {excerpt(names)}, but a file of moments holds mu and sigma.")
    mu, sigma = (_float64(path, key, arrays[key]) for key in ("mu", "sigma"))
    if mu.ndim != 1 or not len(mu) or sigma.shape != (len(mu), len(mu)):
        shapes = f"{tuple(mu.shape)} and {tuple(sigma.shape)}"
        raise ValueError(f"{path}: mu must be (d,) and sigma (d, d), not {shapes}.")
    return mu, sigma, _facts(path, arrays["facts"]) if "facts" in arrays else {}


def _check_covariance(path: str | os.PathLike[str], sigma: Tensor) -> None:
    """Raise a ``ValueError`` unless a matrix is symmetric without negative eigenvalues, up to rounding."""
    unit = sigma / sigma.abs().max().clamp(min=torch.finfo(sigma.dtype).tiny)
    rounding = _ROUNDING * (1 + float(unit.norm()))
    skew = float((unit - unit.T).abs().max())
    lifted = unit + rounding * torch.eye(len(unit), dtype=unit.dtype)
    # Eigenvalues take several times as long as a decomposition.
    if skew > rounding or int(torch.linalg.cholesky_ex(lifted).info):
        raise ValueError(
            f"{path}: sigma must be a covariance, symmetric and without negative eigenvalues, but over its "
            f"largest entry the asymmetry is {skew:.2g} and the least eigenvalue "
            f"{float(torch.linalg.eigvalsh(unit)[0]):.2g}; make or download it again."
        )


def _float64(path: str | os.PathLike[str], key: str, x: NDArray[Any]) -> Tensor:
    if not np.issubdtype(x.dtype, np.floating) or not np.isfinite(x).all():
        raise ValueError(f"{path}: {key} must be finite floating-point numbers; make or download it again.")
    return torch.from_numpy(x.astype(np.float64))


def _facts(path: str | os.PathLike[str], text: NDArray[Any]) -> dict[str, Any]:
    with reading(path, "file of moments", "fewstep fid ref"):
        facts = parse_json(str(text))
        check(facts, _KINDS, "")
        count, protocol = facts["count"], facts["protocol"]
        if count is not None and not 1 < count < 1 << 53:
            raise ValueError(f"count must be above 1, not {count}")
    return {"count": count, "protocol": protocol}
