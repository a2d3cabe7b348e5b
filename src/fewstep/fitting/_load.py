"""Reading of files of solvers and fits."""

from __future__ import annotations

import os

from .._json_file import read_format
from ..solver import Solver
from ._result import FORMAT, Fit

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> Solver | Fit:
    """Read a file of :meth:`fewstep.Solver.save` or :meth:`fewstep.Fit.save`.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is truncated, newer than this version, or neither a solver nor a fit.
    """
    return Fit.load(path) if read_format(path) == FORMAT else Solver.load(path)
