"""Measurements on disk, one file per model and solver, so that a comparison can be resumed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .._files import write_safetensors
from .._hashing import fingerprint
from .._json import finite
from ..field import Field
from ..pairs import Pairs
from ..solver import Solver
from ._measure import Measured, Quality
from ._reference import OfReference

__all__ = ["Cells"]

_Found = TypeVar("_Found")

#: Key of the reference, in place of a solver's hash.
_REFERENCE = "paths of the reference"

#: Metadata key of everything that is not a tensor.
_FACTS = "fewstep.measured"

#: Incremented when the measurements change, so that older files are not reused.
_SCHEMA = 2


class Cells:
    """Measurements of solvers on given pairs of one model.

    Args:
        folder: folder of the files, or ``None`` to keep nothing.
        field: the model.
        pairs: noises and their reference.
        keep: number of samples that are kept.
        quality: metrics of all samples together.
        settings: everything else that a measurement depends on: batch, device, threads and tolerances.

    Raises:
        ValueError: when the model has neither weights nor a name; see :meth:`fewstep.Field.fingerprint`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        field: Field,
        pairs: Pairs,
        keep: int,
        quality: Quality | None,
        settings: Mapping[str, Any],
    ) -> None:
        self._folder = None if folder is None else Path(folder)
        if folder is None:
            return
        self._common: list[Any] = [
            _SCHEMA,
            field.fingerprint(),
            fingerprint([pairs.x0, pairs.x1, pairs.conditions, pairs.per_sample]),
            keep,
            None if quality is None else quality.describe(),
            settings,
        ]

    def load(self, solver: Solver) -> Measured | None:
        """Return the saved measurements of a solver, or ``None``."""

        def measured(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Measured:
            figures = {name: math.nan if y is None else y for name, y in facts["figures"].items()}
            return Measured(
                tensors["mse"], facts["seconds"], figures, tensors["samples"], tensors.get("path")
            )

        return self._read(_solver_key(solver), measured)

    def save(self, solver: Solver, found: Measured) -> None:
        """Save the measurements of a solver."""
        tensors = {"mse": found.mse, "samples": found.samples}
        if found.path is not None:
            tensors["path"] = found.path
        facts = {"seconds": found.seconds, "figures": finite(found.figures)}
        self._write(_solver_key(solver), tensors, facts)

    def load_reference(self) -> OfReference | None:
        """Return the saved measurements of the reference, or ``None``."""

        def of_reference(tensors: dict[str, Tensor], figures: dict[str, Any]) -> OfReference:
            return OfReference(tensors["curvature"], tensors["displacement"], figures, tensors.get("path"))

        return self._read(_REFERENCE, of_reference)

    def save_reference(self, found: OfReference) -> None:
        """Save the measurements of the reference."""
        tensors = {"curvature": found.curvature, "displacement": found.displacement}
        if found.path is not None:
            tensors["path"] = found.path
        self._write(_REFERENCE, tensors, finite(found.figures))

    def _read(self, key: str, make: Callable[[dict[str, Tensor], dict[str, Any]], _Found]) -> _Found | None:
        path = self._path(key)
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}
                return make(tensors, json.loads(file.metadata()[_FACTS]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not a complete measurement ({error}); remove it, and compare again."
            ) from error

    def _write(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        path = self._path(key)
        if path is not None:
            write_safetensors(path, tensors, {_FACTS: json.dumps(facts)})

    def _path(self, key: str) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{fingerprint([*self._common, key])}.safetensors"


def _solver_key(solver: Solver) -> str:
    return str(solver.describe()["fingerprint"])
