"""The solvers that adapters run in the loops of other frameworks."""

from __future__ import annotations

import os

from ..fitting import Fit
from ..lifting import load
from ..solver import Solver

__all__ = ["checked_solver", "choose", "read"]


def checked_solver(solver: object, function: str) -> Solver:
    """Return a solver; raise a ``ValueError`` for anything else, such as a fit of several."""
    if not isinstance(solver, Solver):
        raise ValueError(
            f"{function}: solver is a {type(solver).__name__}, but must be a fewstep.Solver, such as "
            "fit.solver, fit.at(nfe=8) or fewstep.classical.midpoint(4)."
        )
    return solver


def read(path: str | os.PathLike[str], nfe: int | None = None, guidance: float | None = None) -> Solver:
    """Read a solver of :meth:`fewstep.Solver.save`, or one of the solvers of :meth:`fewstep.Fit.save`.

    Args:
        path: the file.
        nfe: number of network calls; needed if the file has solvers for several.
        guidance: guidance scale; needed if the file has solvers for several.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no solver file, or has no solver, or several, for ``nfe`` and ``guidance``.
    """
    made = load(path)
    try:
        return choose(made, nfe, guidance)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def choose(made: Solver | Fit, nfe: int | None = None, guidance: float | None = None) -> Solver:
    """Return the solver for a number of calls and a guidance scale; see :func:`read`."""
    if isinstance(made, Solver):
        scale = (made.fitted_for or {}).get("guidance") or 1
        for name, asked, own in (("nfe", nfe, made.nfe), ("guidance", guidance, scale)):
            if asked not in (None, own):
                raise ValueError(f"solver {made.name!r}: {name} is {own:g}, not {asked:g}; leave {name} out.")
        return made
    trained = [row for row in made.report.rows if row["trained"]]
    counts, scales = ({row[key] for row in trained} for key in ("nfe", "guidance"))
    if nfe is None and len(counts) > 1:
        raise ValueError(
            f"fit: there are solvers of {' and '.join(map(str, sorted(counts)))} calls; choose with nfe."
        )
    if guidance is None and len(scales) > 1:
        raise ValueError(
            f"fit: there are solvers for the guidance scales {min(scales):g} to {max(scales):g}; choose with "
            "guidance."
        )
    return made.at(*counts if nfe is None else (nfe,), *scales if guidance is None else (guidance,))
