"""``fewstep sample``: sample a model with a solver."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from .._files import write_safetensors
from .._progress import progress_bar
from ..pairs import noise
from ..report import save_pictures
from ..report.pictures import is_picture
from ._common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    load_model,
    load_solvers,
    report,
    sample_shape,
    watched,
)

__all__ = ["command"]


def command(
    model: ModelArgument,
    solver: Annotated[str, typer.Argument(help="A solver file, or a classical solver such as midpoint:8.")],
    count: Annotated[int, typer.Option("--count", min=1, help="How many samples.")] = 64,
    batch: Annotated[
        int, typer.Option("--batch", min=1, help="Samples at once; they do not depend on it.")
    ] = 256,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")] = Path("samples"),
    config: ConfigOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Sample a model; sample k depends only on the seed and k."""
    field = load_model(model, device)
    found = load_solvers([solver], [8], field)
    chosen = next(iter(found.values()))[0]
    shape = sample_shape(field)
    parts = []
    with progress_bar(watched(as_json), total=count, desc="sampling", unit="sample") as bar:
        for start in range(0, count, batch):
            x0 = noise(min(batch, count - start), shape, seed=seed, start=start, device=device)
            parts.append(chosen.sample(field, x0).cpu())
            bar.update(len(x0))
    samples = torch.cat(parts)
    files = {"samples": str(out / "samples.safetensors")}
    facts = {"model": field.name, "solver": chosen.name, "nfe": str(chosen.nfe), "seed": str(seed)}
    write_safetensors(files["samples"], {"samples": samples}, facts)
    if is_picture(shape):
        files["picture"] = str(out / "samples.png")
        save_pictures(files["picture"], samples)
    result = {**facts, "count": count, "network_calls": count * chosen.nfe, "files": files}
    report(
        as_json,
        result,
        lambda: f"{count} samples with {chosen.nfe} network calls each\nwrote " + ", ".join(files.values()),
    )
