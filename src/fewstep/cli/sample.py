"""``fewstep sample``: sample a model with a solver."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import typer

from ..data import is_picture
from ..generation import FORMATS, generate
from ._common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    choose_solver,
    load_model,
    parse_numbers,
    report,
    sample_shape,
    watched,
)

__all__ = ["command"]


def command(
    model: ModelArgument,
    solver: Annotated[
        str, typer.Argument(help="A solver file, a classical solver such as midpoint:8, or adaptive.")
    ],
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="How many samples; 64 by default.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option("--seeds", help="Numbers of the samples, such as 0-49999, instead of --count."),
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Samples at once; they do not depend on it.")
    ] = 256,
    out: Annotated[
        Path, typer.Option("--out", help="Folder to write to; an interrupted run goes on there.")
    ] = Path("samples"),
    format: Annotated[
        str, typer.Option("--format", help=f"What to write: some of {', '.join(FORMATS[:-1])}, with commas.")
    ] = "safetensors",
    shard: Annotated[
        int, typer.Option("--shard", min=1, help="Samples a file, and between two saves.")
    ] = 1000,
    save_noise: Annotated[bool, typer.Option("--save-noise", help="Write the noises too.")] = False,
    save_trajectory: Annotated[
        int, typer.Option("--save-trajectory", min=0, help="Write the paths of the first so many samples.")
    ] = 0,
    rtol: Annotated[float | None, typer.Option("--rtol", help="Relative tolerance of adaptive.")] = None,
    atol: Annotated[float | None, typer.Option("--atol", help="Absolute tolerance of adaptive.")] = None,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Sample a model; sample k depends only on the seed and k.

    Under torchrun the processes share the work.
    """
    if count is not None and seeds is not None:
        raise ValueError("--seeds: cannot go with --count, as it says how many samples there are; give one.")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "cuda" and "LOCAL_RANK" in os.environ:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
    field = load_model(model, device)
    chosen = choose_solver(solver, rtol, atol, field)
    sheet = ["sheet"] if is_picture(sample_shape(field)) else []
    result = generate(
        field,
        chosen,
        range(count or 64) if seeds is None else parse_numbers(seeds, "--seeds", least=0),
        out,
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
        provenance=_provenance(solver),
    )
    if result["complete"]:
        calls = f"{result['nfe']['mean']:g}"
        # Names and numbers as they stand in the metadata of the files.
        labels = {"model": field.name, "solver": chosen.name, "nfe": calls, "seed": str(seed)}
        totals = {key: result[key] for key in ("count", "network_calls", "files")}
        report(as_json, {**labels, **totals, "result": result}, lambda: _in_words(result, calls))
    elif not as_json:
        typer.echo(f"process {rank} of {world} made {result['count']} samples; the others are at work")


def _provenance(spec: str) -> dict[str, Any]:
    path = Path(spec)
    return (
        {"solver_file": {"path": spec, "sha256": sha256(path.read_bytes()).hexdigest()}}
        if path.is_file()
        else {}
    )


def _in_words(result: dict[str, Any], calls: str) -> str:
    return f"{result['count']} samples with {calls} network calls each\nwrote " + ", ".join(
        result["files"].values()
    )
