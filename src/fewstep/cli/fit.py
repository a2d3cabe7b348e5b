"""``fewstep fit``: fit a solver to a model and write it to a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import fitting
from .._files import replacing, write_text
from ..field import Field
from ..fitting import LOSSES, CurveFit, FitReport, Search
from ..fitting._reference_pairs import reference_pairs as make_pairs
from ..fitting._team import join_torchrun
from ..report import front
from ..solver import Solver
from ._common import MODEL, load_model, parse_numbers, report, sample_shape, watched
from ._options import Positive, helped

__all__ = ["command"]


@helped(model=MODEL, loss=f"One of {', '.join(LOSSES)}; soft, bound and local with adam alone.")
def command(
    model: str,
    *,
    nfe: str = "8",
    family: str = "non_stationary",
    pairs: int | None = None,
    optimizer: str = "gauss_newton",
    loss: str = "rmse",
    init: str | None = None,
    iterations: int | None = None,
    max_calls: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    batch: Positive = 4096,
    cache: Path | None = None,
    out: Path = Path("solvers"),
    seed: int = 0,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Fit solvers to a model, one for each number of calls.

    Under torchrun the processes share the pairs.

    Args:
        nfe: network calls: 8, or several as 4,6,8 or 4-8.
        family: non_stationary, timesteps, scale_time, scale_time_rk1; auto to try what is worth it; or curve,
            one fit for all numbers of calls.
        pairs: reference pairs, a quarter of them for validation: 64, or with --max-calls as many as leave
            room for twenty iterations.
        optimizer: gauss_newton or adam.
        init: classical solver to start from, such as ab2, or auto.
        iterations: most iterations.
        max_calls: most network calls, reference included.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of the reference.
        batch: most samples given to the network at once.
        cache: folder to keep reference samples in.
        out: folder for the solver files.
    """
    team, device = join_torchrun(device)
    field, budgets = load_model(model, device), parse_numbers(nfe)
    reference_pairs = None  # each fit finds out how many its budget allows
    if pairs is not None or max_calls is None or family in ("auto", "curve"):
        made: dict[str, Any] = {"rtol": rtol, "atol": atol, "cache": cache, "progress": watched(as_json)}
        shape = sample_shape(field)
        reference_pairs = make_pairs(field, pairs or 64, shape, seed, batch, device, {}, **made)
    common: dict[str, Any] = {"max_calls": max_calls, "batch": batch, "progress": watched(as_json)}
    if family == "auto" and reference_pairs is not None:
        found = fitting.search(field, budgets, pairs=reference_pairs, device=device, seed=seed, **common)
        if team.main:
            _write_search(field, found, out, model, as_json)
        return
    if family == "curve" and reference_pairs is not None:
        curve = fitting.fit_curve(
            field, budgets, curve=init, pairs=reference_pairs, iterations=iterations, **common
        )
        if team.main:
            _write_curve(field, curve, budgets, out, model, as_json)
        return
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
            shape=sample_shape(field),
            device=device,
            cache=cache,
            progress=watched(as_json),
        )
        path = _path(out, field, fitted.solver)
        if team.main:
            fitted.solver.save(path)
        fits[str(path)] = fitted.report
    if not team.main:
        return
    solvers = [{"file": file, "report": fit.to_dict()} for file, fit in fits.items()]
    words = [f"{fit}\nwrote {file}\n" for file, fit in fits.items()]
    words.append(f"next: fewstep compare {model} {' '.join(fits)} midpoint dpmpp_2m --nfe {nfe}")
    report(as_json, {"model": field.name, "solvers": solvers}, lambda: "\n".join(words))


def _write_curve(
    field: Field, fitted: CurveFit, budgets: list[int], out: Path, model: str, as_json: bool
) -> None:
    """Write one curve through all numbers of calls."""
    path = out / f"{field.name.replace('/', '-')}-curve.json"
    fitted.save(path)
    words = (
        f"{fitted.report}\nwrote {path}\nnext: fewstep compare {model} {path} midpoint dpmpp_2m --nfe "
        f"{','.join(map(str, budgets))}"
    )
    report(as_json, {"model": field.name, "file": str(path), **fitted.report.to_dict()}, lambda: words)


def _write_search(field: Field, found: Search, out: Path, model: str, as_json: bool) -> None:
    """Write the best solver at each number of calls, and say which to take."""
    files = []
    for fitted in found.fits.values():
        files.append(str(_path(out, field, fitted.solver)))
        fitted.solver.save(files[-1])
    # In a folder of their own, so that *.json here are solvers.
    write_text(out / "front" / "search.json", found.to_json())
    with replacing(out / "front" / "front.png") as temporary:
        front(found).savefig(temporary, dpi=130)
    total = f"{sum(found.calls.values()):,} network calls"
    wrote = ", ".join([*files, *(str(out / "front" / name) for name in ("search.json", "front.png"))])
    words = f"{found}\n{total}\nwrote {wrote}\nnext: fewstep recommend {model} {' '.join(files)} --psnr 35"
    report(as_json, {"model": field.name, "files": files, **found.to_dict()}, lambda: words)


def _path(out: Path, field: Field, solver: Solver) -> Path:
    name = solver.family["name"] if solver.family else solver.name
    return out / f"{field.name.replace('/', '-')}-{name}-{solver.nfe}.json"
