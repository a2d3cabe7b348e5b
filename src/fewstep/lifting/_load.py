"""Reading of solvers of any kind."""

from __future__ import annotations

import os
from pathlib import Path

from .._hub_files import CORRECTOR, FIT, SOLVER
from .._json_file import read_format
from ..fitting import Fit
from ..lifted import Lifted
from ..solver import Solver

__all__ = ["load"]


def load(path: str | os.PathLike[str]) -> Solver | Fit:
    """Read what :meth:`fewstep.Solver.save`, :meth:`fewstep.Fit.save` or :meth:`fewstep.Lifted.save` wrote.

    Args:
        path: the file, or a folder of a lifted solver or of ``save_pretrained``. A ``solver.json`` beside
            corrections is a lifted solver; :meth:`fewstep.Solver.load` reads its table alone.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is truncated, newer than this version, or neither a solver nor a fit; or
            when a folder of ``save_pretrained`` holds both.
    """
    path = Path(path)
    if path.is_dir():
        found = [name for name in (SOLVER, FIT) if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"{path}: a folder without {SOLVER} or {FIT}, which save_pretrained writes; name a file."
            )
        if len(found) > 1:
            raise ValueError(f"{path}: a folder with both {SOLVER} and {FIT}; name one of these files.")
        path = path / found[0]
    if path.name == SOLVER and (path.parent / CORRECTOR).is_file():
        return Lifted.load(path.parent)
    return Fit.load(path) if read_format(path) == Fit.FORMAT else Solver.load(path)
