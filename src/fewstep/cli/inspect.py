"""``fewstep inspect``: what is in a solver file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .._files import replacing
from ..report import coefficients, describe
from ..solver import Solver
from ._common import ConfigOption, JsonOption, report

__all__ = ["command"]


def command(
    file: Annotated[Path, typer.Argument(help="A solver file.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Write a PNG of times and coefficients.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a solver's times, coefficients, origin and warnings."""
    solver = Solver.load(file)
    if plot is not None:
        with replacing(plot) as temporary:
            coefficients(solver).savefig(temporary, dpi=130)
    facts = {
        "name": solver.name,
        "nfe": solver.nfe,
        "times": list(solver.times),
        "prediction": solver.prediction,
        "family": solver.family,
        "fitted_for": solver.fitted_for,
        "scores": solver.scores,
        "plot": None if plot is None else str(plot),
    }
    report(as_json, facts, lambda: describe(solver) + (f"\nwrote {plot}" if plot else ""))
