"""Measurements on disk, one file for each model and solver, so that an interrupted comparison goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from .._files import write_safetensors
from .._hashing import fingerprint
from .._json import finite
from ..field import Field
from ..generation import describe_solver
from ..pairs import Pairs
from ..solver import Solver
from ._measure import Measured, Quality

__all__ = ["Cells"]

#: The key under which a file keeps what is no tensor.
_FACTS = "fewstep.measured"


class Cells:
    """What was measured of solvers on given pairs of one model.

    Args:
        folder: where the files are, or ``None`` to keep nothing.
        field: the model.
        pairs: noises and their reference.
        keep: how many samples are kept.
        quality: the figures of all samples together.

    Raises:
        ValueError: when the model cannot be told from another; see :meth:`fewstep.Field.fingerprint`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None,
        field: Field,
        pairs: Pairs,
        keep: int,
        quality: Quality | None,
    ) -> None:
        self._folder = None if folder is None else Path(folder)
        if folder is None:
            return
        self._common: list[Any] = [
            field.fingerprint(),
            fingerprint([pairs.x0, pairs.x1, pairs.conditions]),
            keep,
            None if quality is None else quality.describe(),
        ]

    def load(self, solver: Solver) -> Measured | None:
        """What was measured of a solver before, if it was."""
        path = self._path(solver)
        if path is None or not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                facts: Mapping[str, Any] = json.loads(file.metadata()[_FACTS])
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            figures = {name: float("nan") if y is None else y for name, y in facts["figures"].items()}
            return Measured(
                tensors["mse"], facts["seconds"], figures, tensors["samples"], tensors.get("path")
            )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not a complete measurement ({error}); remove it, and compare again."
            ) from error

    def save(self, solver: Solver, found: Measured) -> None:
        """Keep what was measured."""
        path = self._path(solver)
        if path is None:
            return
        tensors = {"mse": found.mse, "samples": found.samples}
        if found.path is not None:
            tensors["path"] = found.path
        facts = {"seconds": found.seconds, "figures": finite(found.figures)}
        write_safetensors(path, tensors, {_FACTS: json.dumps(facts)})

    def _path(self, solver: Solver) -> Path | None:
        if self._folder is None:
            return None
        key = fingerprint([*self._common, describe_solver(solver)["fingerprint"]])
        return self._folder / f"{key}.safetensors"
