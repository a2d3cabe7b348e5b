"""``fewstep reflow``: straighten a flow by training on its own pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..flows import Settings, reflow
from . import _training as training
from ._common import MODEL, choose_solver, report, watched
from ._options import Positive, helped
from ._places import named_after

__all__ = ["command"]


@helped(model=MODEL)
def command(
    model: str,
    *,
    solver: str = "midpoint:32",
    pairs: Positive = 10_000,
    rounds: Positive = 1,
    out: Path | None = None,
    settings: Settings = training.SETTINGS,
    rtol: float | None = None,
    atol: float | None = None,
    method: str | None = None,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Straighten a flow: make pairs with it, train it on them, and again for each round.

    Args:
        solver: solver of the pairs: a file, a classical solver such as midpoint:32, or adaptive.
        pairs: pairs per round.
        rounds: number of rounds.
        out: folder of the run, runs/MODEL-SOLVER-reflowed by default; an interrupted run is resumed there.
        rtol: relative tolerance of adaptive.
        atol: absolute tolerance of adaptive.
        method: Runge-Kutta pair of adaptive, dopri5 by default.
    """
    field = training.load_trainable(model, device)
    out = out or Path("runs") / f"{named_after(model, solver)}-reflowed"
    maker = choose_solver(solver, field, rtol=rtol, atol=atol, method=method)
    done = reflow(
        field, maker, pairs=pairs, out=out, rounds=rounds, settings=settings, progress=watched(as_json)
    )
    files = training.written(out / f"round-{rounds}")
    steps, straightness = settings.steps, done.straightness
    result = {"flow": files["flow"], "pairs": pairs, "steps": steps, "straightness": straightness}
    report(as_json, result, lambda: _in_words(result, files))


def _in_words(result: dict[str, Any], files: dict[str, str]) -> str:
    lines = ["round  curvature  RMSE of 4 Euler steps"]
    for k, figures in enumerate(result["straightness"]):
        lines.append(f"{k:5}  {figures['curvature']:9.4f}  {figures['truncation_rmse_4']:.4f}")
    wrote, flow = ", ".join(files.values()), files["flow"]
    return "\n".join([*lines, f"wrote {wrote}", f"next: fewstep sample {flow} euler:4"])
