"""``fewstep reflow``: straighten a flow by training it on its own pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..flows import Settings, reflow
from . import _training as training
from ._common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    choose_solver,
    report,
    watched,
)

__all__ = ["command"]


def command(
    model: ModelArgument,
    solver: Annotated[
        str, typer.Option("--solver", help="Makes the pairs: a file, midpoint:32 or such, or adaptive.")
    ] = "midpoint:32",
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Pairs a round.")] = 10_000,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How often to make pairs and train.")] = 1,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write to; an interrupted run goes on there.")
    ] = Path("runs/reflowed"),
    steps: training.StepsOption = 20_000,
    batch: training.BatchOption = 256,
    lr: training.LrOption = 1e-4,
    warmup: training.WarmupOption = 500,
    clip: training.ClipOption = None,
    ema: training.EmaOption = 500_000,
    precision: training.PrecisionOption = "no",
    workers: training.WorkersOption = 0,
    checkpoint_every: training.CheckpointOption = 1000,
    rtol: Annotated[float | None, typer.Option("--rtol", help="Relative tolerance of adaptive.")] = None,
    atol: Annotated[float | None, typer.Option("--atol", help="Absolute tolerance of adaptive.")] = None,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Straighten a flow: make pairs with it, train it on them, and again for each round."""
    field = training.load_trainable(model, device)
    maker = choose_solver(solver, rtol, atol, field)
    settings = Settings(
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=warmup,
        clip=clip,
        ema=(ema,),
        precision=precision,  # type: ignore[arg-type]  # a word, which Settings checks
        seed=seed,
        workers=workers,
        checkpoint_every=checkpoint_every,
    )
    done = reflow(
        field, maker, pairs=pairs, out=out, rounds=rounds, settings=settings, progress=watched(as_json)
    )
    files = training.written(out / f"round-{rounds}")
    result = {"flow": files["flow"], "pairs": pairs, "steps": steps, "straightness": done.straightness}
    report(as_json, result, lambda: _in_words(result, files))


def _in_words(result: dict[str, Any], files: dict[str, str]) -> str:
    lines = ["round  curvature  RMSE of 4 Euler steps"]
    for k, figures in enumerate(result["straightness"]):
        lines.append(f"{k:5}  {figures['curvature']:9.4f}  {figures['truncation_rmse_4']:.4f}")
    wrote, flow = ", ".join(files.values()), files["flow"]
    return "\n".join([*lines, f"wrote {wrote}", f"next: fewstep sample {flow} euler:4"])
