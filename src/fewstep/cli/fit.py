"""``fewstep fit``: fit a solver to a model and write it to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import fitting
from ..fitting import FitReport
from ._common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    draw_pairs,
    load_model,
    parse_numbers,
    report,
    watched,
)

__all__ = ["command"]


def command(
    model: ModelArgument,
    nfe: Annotated[str, typer.Option("--nfe", help="Network calls: 8, or several as 4,6,8 or 4-8.")] = "8",
    family: Annotated[
        str, typer.Option("--family", help="non_stationary, timesteps, scale_time or scale_time_rk1.")
    ] = "non_stationary",
    pairs: Annotated[
        int, typer.Option("--pairs", help="Reference pairs, a quarter of them for validation.")
    ] = 64,
    optimizer: Annotated[str, typer.Option("--optimizer", help="gauss_newton or adam.")] = "gauss_newton",
    loss: Annotated[
        str, typer.Option("--loss", help="rmse, log_mse, mse; with adam also bound, local.")
    ] = "rmse",
    init: Annotated[
        str | None, typer.Option("--init", help="Classical solver to start from, such as ab2, or auto.")
    ] = None,
    iterations: Annotated[int | None, typer.Option("--iterations", help="Most iterations.")] = None,
    max_calls: Annotated[
        int | None, typer.Option("--max-calls", help="Most network calls, reference included.")
    ] = None,
    rtol: Annotated[float, typer.Option("--rtol", help="Relative tolerance of the reference.")] = 1e-6,
    atol: Annotated[float, typer.Option("--atol", help="Absolute tolerance of the reference.")] = 1e-6,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Most samples given to the network at once.")
    ] = 4096,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Folder to keep reference samples in.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the solver files.")] = Path("solvers"),
    config: ConfigOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Fit solvers to a model, one for each number of calls."""
    field, budgets = load_model(model, device), parse_numbers(nfe)
    reference_pairs = draw_pairs(
        field, pairs, seed, device, as_json, rtol=rtol, atol=atol, cache=cache, batch=min(batch, 256)
    )
    fits: dict[str, FitReport] = {}
    for calls in budgets:
        fitted = fitting.fit(
            field,
            calls,
            family=family,
            pairs=reference_pairs,
            optimizer=optimizer,
            loss=loss,
            init=init,
            iterations=iterations,
            max_calls=max_calls,
            rtol=rtol,
            atol=atol,
            seed=seed,
            batch=batch,
            progress=watched(as_json),
        )
        path = out / f"{field.name.replace('/', '-')}-{family}-{calls}.json"
        fitted.solver.save(path)
        fits[str(path)] = fitted.report
    solvers = [{"file": file, "report": fit.to_dict()} for file, fit in fits.items()]
    words = [f"{fit}\nwrote {file}\n" for file, fit in fits.items()]
    words.append(f"next: fewstep compare {model} {' '.join(fits)} midpoint dpmpp_2m --nfe {nfe}")
    report(as_json, {"model": field.name, "solvers": solvers}, lambda: "\n".join(words))
