"""``fewstep fit``: fit solvers to a model and write them to files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Annotated, Any

from .._files import replacing, write_text
from .._names import check_name
from .._processes import join_torchrun, place
from ..families import FAMILIES
from ..fitting import LOSSES, OPTIMIZERS, Fit, Reference, Search, fit, search
from ..fitting.losses import LeastSquares
from ..report import front
from ._common import PREFIX, parse_numbers, report, watched
from ._options import AtLeast, Positive, helped
from ._pipelines import MODEL_OR_PIPELINE, Loaded, Pipeline, load_with_conditions

__all__ = ["command"]

#: Pairs of a fit that is told neither their number nor how many calls it may make.
_PAIRS = 64
#: Families with one theta for all numbers of calls.
_SHARED = ("smooth_corrections",)
_ADAM_ONLY = [name for name, loss in LOSSES.items() if not isinstance(loss, LeastSquares)]


@helped(
    model=MODEL_OR_PIPELINE,
    family=f"One of {', '.join(FAMILIES)}; {' and '.join(_SHARED)} fit all numbers of calls at once; auto "
    "tries the best of the others.",
    loss=f"One of {', '.join(LOSSES)}; {', '.join(_ADAM_ONLY)} only with adam.",
    optimizer=f"One of {', '.join(OPTIMIZERS)}.",
)
def command(
    model: str,
    *,
    nfe: str = "8",
    guidance: tuple[float, ...] | None = None,
    family: str = "non_stationary",
    init: str | None = None,
    loss: str = "rmse",
    optimizer: str = "gauss_newton",
    iterations: Positive | None = None,
    pairs: Annotated[int | None, AtLeast(4)] = None,
    max_calls: int | None = None,
    reference: Reference = Reference(),  # noqa: B008 -- frozen
    conditions: Path | None = None,
    per_sample: Path | None = None,
    pipeline: Pipeline = Pipeline(),  # noqa: B008 -- frozen
    batch: Positive | None = None,
    out: Path = Path("solvers"),
    seed: int = 0,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Fit solvers to a model, one for each number of calls.

    Under torchrun the processes share the pairs.

    Args:
        nfe: network calls: 8, or several as 4,6,8 or 4-8.
        guidance: guidance scale of a guided model, or several for one fit, as 1,2,5.
        init: classical solver to start from, such as ab2, or auto.
        iterations: most iterations; 40 for gauss_newton and 1500 for adam by default.
        pairs: reference pairs, a quarter of them for validation: as many as --per-sample has rows, else 64,
            or with --max-calls as many as allow twenty iterations. For a pipeline with several prompts 64,
            or one for each prompt if there are more.
        max_calls: most network calls, reference included.
        batch: most samples per network call; 4096 by default, and for a pipeline what is fast and has memory,
            found by trying.
        out: folder of the files.
    """
    device = join_torchrun(device)
    main = place()[0] == 0
    check_name("--optimizer:", optimizer, OPTIMIZERS)
    loaded = load_with_conditions(model, pipeline, conditions, per_sample, device)
    budgets = parse_numbers(nfe)
    if pairs is None:
        pairs = _pairs(loaded, max_calls)
    batch = batch or loaded.batch(4096)
    loaded = loaded.of(pairs)
    field = loaded.field
    chosen: dict[str, Any] = {} if iterations is None else {"iterations": iterations}
    options: dict[str, Any] = {
        "loss": loss,
        "optimizer": OPTIMIZERS[optimizer](**chosen),
        "max_calls": max_calls,
        "reference": reference,
        "seed": seed,
        "batch": batch,
        "device": device,
        "progress": watched(as_json),
        **loaded.given,
    }
    if family == "auto":
        if init is not None or guidance is not None:
            raise ValueError(
                "--family auto: starts from its own solvers, at the scale of the model; leave "
                "--init and --guidance out."
            )
        found = search(field, budgets, pairs=pairs or _PAIRS, **options)
        if main:
            _write_search(loaded.name, found, out, model, as_json)
        return
    fits: dict[str, Fit] = {}
    for calls in [tuple(budgets)] if family in _SHARED else budgets:
        made = fit(field, calls, guidance=guidance, family=family, init=init, pairs=pairs, **options)
        path = _path(out, loaded.name, made)
        if main:
            (made if made.any_nfe or len(guidance or ()) > 1 else made.solver).save(path)
        fits[str(path)] = made
    if not main:
        return
    solvers = [{"file": file, "report": made.report.to_dict()} for file, made in fits.items()]
    words = [f"{made}\nwrote {file}\n" for file, made in fits.items()]
    words.append(_next(model, list(fits), nfe))
    report(as_json, {"model": loaded.name, "solvers": solvers}, lambda: "\n".join(words))


def _next(model: str, files: list[str], nfe: str) -> str:
    if model.startswith(PREFIX):
        folder = model.removeprefix(PREFIX)
        words = ["export", "diffusers", *files, "--scheduler", folder, "--out", "scheduler"]
    else:
        words = ["compare", model, *files, "midpoint", "dpmpp_2m", "--nfe", nfe]
    return f"next: fewstep {shlex.join(words)}"


def _pairs(loaded: Loaded, max_calls: int | None) -> int | None:
    """Return the number of pairs; ``None`` if the fit itself must choose."""
    if loaded.pipeline and loaded.task.rows:
        return max(_PAIRS, loaded.task.rows)
    return None if max_calls or loaded.task.per_sample else _PAIRS


def _write_search(name: str, found: Search, out: Path, model: str, as_json: bool) -> None:
    """Write the best solver at each number of calls, and print which to use."""
    files = []
    for made in found.fits.values():
        files.append(str(_path(out, name, made)))
        made.solver.save(files[-1])
    # In a separate folder, so that *.json here are solvers.
    write_text(out / "front" / "search.json", found.to_json())
    with replacing(out / "front" / "front.png") as temporary:
        front(found).savefig(temporary, dpi=130)
    total = f"{sum(found.calls.values()):,} network calls"
    wrote = ", ".join([*files, *(str(out / "front" / name) for name in ("search.json", "front.png"))])
    words = f"{found}\n{total}\nwrote {wrote}\nnext: fewstep recommend {model} {' '.join(files)} --psnr 35"
    report(as_json, {"model": name, "files": files, **found.to_dict()}, lambda: words)


def _path(out: Path, name: str, made: Fit) -> Path:
    """Return the file of a fit, named by the model, family and, if there is one, number of calls."""
    nfes = sorted({row["nfe"] for row in made.report.rows if row["trained"]})
    calls = "" if made.any_nfe else f"-{nfes[0]}"
    stem = re.sub(r"[/\s]+", "-", name)
    return out / f"{stem}-{made.report.family}{calls}.json"
