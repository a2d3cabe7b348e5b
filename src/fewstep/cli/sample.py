"""``fewstep sample``: sample a model with a solver."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

from ..data import is_picture
from ..generation import FORMATS, generate
from ._common import (
    choose_solver,
    parse_numbers,
    report,
    sample_shape,
    watched,
)
from ._options import AtLeast, Positive, helped
from ._pipelines import MODEL_OR_PIPELINE, Pipeline, load_with_conditions
from ._places import named_after

__all__ = ["command"]


@helped(model=MODEL_OR_PIPELINE, format=f"What to write: some of {', '.join(FORMATS[:-1])}, with commas.")
def command(
    model: str,
    solver: str,
    *,
    count: Annotated[int | None, AtLeast(1)] = None,
    seeds: str | None = None,
    batch: Positive | None = None,
    out: Path | None = None,
    format: str = "safetensors",
    shard: Positive = 1000,
    save_noise: bool = False,
    save_trajectory: Annotated[int, AtLeast(0)] = 0,
    rtol: float | None = None,
    atol: float | None = None,
    method: str | None = None,
    conditions: Path | None = None,
    per_sample: Path | None = None,
    pipeline: Pipeline = Pipeline(),  # noqa: B008 -- frozen
    seed: int = 0,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Sample a model; sample k is made from noise k of the seed. Those of a pipeline are latents.

    Under torchrun the processes share the work.

    Args:
        solver: a solver file, a classical solver such as midpoint:8, or adaptive.
        count: number of samples; 64 by default.
        seeds: numbers of the samples, such as 0-49999, instead of --count.
        batch: samples per batch; 256 by default, and for a pipeline as for fewstep fit. They depend on it by
            rounding alone; with 1 they are the same to the bit in any run.
        out: folder of the samples, samples/MODEL-SOLVER by default; an interrupted run is resumed there.
        shard: samples per file, saved together.
        save_noise: write the noises too.
        save_trajectory: number of samples, the first ones, whose paths are written.
        rtol: relative tolerance of adaptive.
        atol: absolute tolerance of adaptive.
        method: Runge-Kutta pair of adaptive, dopri5 by default.
    """
    if count is not None and seeds is not None:
        raise ValueError("--seeds: cannot go with --count, as it says how many samples there are; give one.")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    loaded = load_with_conditions(model, pipeline, conditions, per_sample, device)
    batch = batch or loaded.batch(256)
    numbers = range(count or 64) if seeds is None else parse_numbers(seeds, "--seeds", least=0)
    loaded = loaded.of(numbers)
    field = loaded.field
    chosen = choose_solver(solver, field, rtol=rtol, atol=atol, method=method)
    path, provenance = Path(solver), {}
    if path.is_file():
        provenance = {"solver_file": {"path": solver, "sha256": sha256(path.read_bytes()).hexdigest()}}
    sheet = ["sheet"] if is_picture(sample_shape(field)) else []
    result = generate(
        field,
        chosen,
        numbers,
        out or Path("samples") / named_after(model, solver),
        seed=seed,
        formats=[*format.split(","), *sheet],
        batch=batch,
        shard=shard,
        save_noise=save_noise,
        save_trajectory=save_trajectory,
        device=device,
        rank=rank,
        world=world,
        progress=watched(as_json) and rank == 0,
        provenance=provenance,
        **loaded.given,
    )
    if result["complete"]:
        calls = f"{result['nfe']['mean']:g}"
        # Names and numbers for the metadata of the files.
        labels = {"model": field.name, "solver": chosen.name, "nfe": calls, "seed": str(seed)}
        totals = {key: result[key] for key in ("count", "network_calls", "files")}
        report(as_json, {**labels, **totals, "result": result}, lambda: _in_words(result, calls))
    elif not as_json:
        print(f"process {rank} of {world} made {result['count']} samples; the others are at work")


def _in_words(result: dict[str, Any], calls: str) -> str:
    return f"{result['count']} samples with {calls} network calls each\nwrote " + ", ".join(
        result["files"].values()
    )
