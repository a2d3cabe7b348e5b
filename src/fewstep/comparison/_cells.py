"""Measurements on disk, one file per model and solver, so that a comparison can be resumed."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from .._files import write_safetensors
from .._hashing import fingerprint
from .._json import finite
from .._reading import check, read_tensors, reading
from ..field import Field
from ..pairs import Pairs
from ._measure import Measured, OfReference, Quality

__all__ = ["REFERENCE", "Cells"]

_Found = TypeVar("_Found", "Measured", "OfReference")

#: Key of the reference, in place of a solver's fingerprint.
REFERENCE = "paths of the reference"

#: Metadata key of everything that is not a tensor.
_FACTS = "fewstep.measured"
#: Kinds of these facts.
_KINDS = {"figures": {str: (float, None)}, "seconds": (float, None), "failure": (str, None)}

#: Incremented when the measurements change, so that older files are not reused.
_SCHEMA = 3


class Cells:
    """Measurements of solvers on given pairs of one model, in a folder; without one nothing is saved.

    They depend on all arguments; ``settings`` are batch, device, threads and tolerances.

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

    def load(self, key: str, kind: type[_Found]) -> _Found | None:
        """Return the saved measurements of a solver, by its fingerprint, or of the reference, or ``None``."""
        path = self._path(key)
        if path is None or not path.exists():
            return None
        with reading(path, "measurement", "a comparison, if it is removed"):
            tensors, facts = read_tensors(path, _FACTS)
            check(facts, _KINDS, "")
            figures = {name: math.nan if y is None else y for name, y in facts.pop("figures").items()}
            content: dict[str, Any] = {**tensors, **facts, "figures": figures}
            return kind(**content)

    def save(self, key: str, found: Measured | OfReference) -> None:
        """Save measurements."""
        path = self._path(key)
        if path is not None:
            content = {name: value for name, value in vars(found).items() if value is not None}
            tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
            facts = {name: value for name, value in content.items() if name not in tensors}
            write_safetensors(path, tensors, {_FACTS: json.dumps(finite(facts))})

    def _path(self, key: str) -> Path | None:
        if self._folder is None:
            return None
        return self._folder / f"{fingerprint([*self._common, key])}.safetensors"
