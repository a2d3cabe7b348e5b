"""``fewstep demo``: a complete example on a bundled model, with tables and pictures."""

from __future__ import annotations

import time
from pathlib import Path

from .. import fitting
from .._files import replacing
from ..classical import baselines
from ..comparison import Comparison, compare, shown_name
from ..data import is_picture
from ..models import BUNDLED
from ..report import coefficients, picture_rows
from ..report.comparison import write_comparison
from ..solver import Solver
from ._common import draw_pairs, load_model, parse_numbers, report, watched
from ._options import Positive, helped

__all__ = ["command"]

#: Classical solvers in the tables and pictures, if they allow the NFE.
SHOWN = ("euler", "heun", "midpoint", "dpmpp_2m")


@helped(model=f"A bundled model: {', '.join(BUNDLED)}.")
def command(
    model: str = "mnist",
    *,
    nfe: str = "4,6,8",
    pairs: int = 24,
    count: Positive = 64,
    max_calls: int = 60_000,
    out: Path | None = None,
    seed: int = 0,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Fit solvers to a bundled model, score them on fresh noises, and draw samples.

    Args:
        nfe: numbers of calls of the solvers.
        pairs: reference pairs for the fits.
        count: fresh noises for the scores.
        max_calls: most network calls of one fit.
        out: folder of the results; fewstep-demo by default, fewstep-demo-MODEL for others than mnist.
    """
    started = time.perf_counter()
    out = out or Path("fewstep-demo" if model == "mnist" else f"fewstep-demo-{model}")
    field, budgets = load_model(model, device), parse_numbers(nfe)
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    fit_pairs = draw_pairs(field, pairs, seed, device, as_json, **tolerance)
    fresh = draw_pairs(field, count, seed + 1_000_003, device, as_json, **tolerance)

    groups: dict[str, list[Solver]] = {name: [] for name in SHOWN}
    for calls in budgets:
        classical = baselines(calls, field.schedule)
        for name in SHOWN:
            if name in classical:
                groups[name].append(classical[name])
        fit = fitting.fit(
            field,
            calls,
            pairs=fit_pairs,
            max_calls=max_calls,
            seed=seed,
            progress=watched(as_json),
        )
        fit.solver.save(out / f"{model}-{calls}.json")
        groups.setdefault(shown_name(fit.solver), []).append(fit.solver)
    table = compare(
        field,
        groups,
        noise=fresh,
        metrics=("rmse", "psnr"),
        keep=count if field.shape == (2,) else 12,
        model=model,
    )

    files = [str(out / f"{model}-{calls}.json") for calls in budgets] + write_comparison(
        [table],
        out,
        command=f"fewstep demo {model} --nfe {nfe} --pairs {pairs} --count {count} "
        f"--max-calls {max_calls} --seed {seed} --device {device}",
    )
    files += _draw(table, budgets, out)
    seconds = time.perf_counter() - started
    result = {"seconds": seconds, "rows": list(table.rows), "protocol": table.protocol, "files": files}
    report(as_json, result, lambda: _summary(table, files, seconds, model, out, budgets))


def _draw(table: Comparison, budgets: list[int], out: Path) -> list[str]:
    """Draw samples for each NFE, and plot the fitted solver."""
    kept, files = table.kept, []
    assert kept is not None, "the comparison was to keep samples"
    for calls in budgets:
        at = {k: row for k, row in enumerate(table.rows) if row["nfe"] == calls}
        fitted = next(k for k, row in at.items() if table.is_fitted(row["solver"]))
        files.append(str(out / f"coefficients-{calls}.png"))
        with replacing(files[-1]) as temporary:
            coefficients(kept.solvers[fitted]).savefig(temporary, dpi=130)
        if not is_picture(tuple(kept.reference.shape[1:])):
            continue
        names = {k: f"{row['solver']}, {calls} calls" for k, row in at.items()}
        rows = {name: kept.samples[k] for k, name in names.items()}
        of = f" of {table.protocol['samples']} noises"
        scores = {names[k]: f"RMSE {row['rmse']:.3g}{of}" for k, row in at.items()}
        files.append(str(out / f"samples-{calls}.png"))
        with replacing(files[-1]) as temporary:
            rows[f"reference, {table.protocol['reference']['nfe']} calls"] = kept.reference
            picture_rows(rows, scores).savefig(temporary, dpi=130, bbox_inches="tight")
    return files


def _summary(
    table: Comparison, files: list[str], seconds: float, model: str, out: Path, budgets: list[int]
) -> str:
    facts = table.protocol
    lines = [
        "",
        str(table),
        "",
        f"{facts['samples']} fresh noises; the reference takes {facts['reference']['nfe']} calls; "
        f"{seconds:.0f} s in all",
        "wrote " + "\n      ".join(files),
        f"look at it: open {out / 'index.html'} in a browser",
        f"next: fewstep sample {model} {out}/{model}-{budgets[-1]}.json",
    ]
    return "\n".join(lines)
