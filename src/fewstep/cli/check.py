"""``fewstep check``: whether a model is wired as it was trained."""

from __future__ import annotations

from typing import Annotated

import torch
import typer

from .. import data as datasets
from ..checking import check
from ._common import (
    ConfigOption,
    DeviceOption,
    JsonOption,
    ModelArgument,
    SeedOption,
    load_model,
    report,
    sample_shape,
    watched,
)

__all__ = ["command"]

#: How many data are read, to know their mean and variance by.
_DATA = 2048


def command(
    model: ModelArgument,
    source: Annotated[
        str | None,
        typer.Option("--data", help=f"What it was trained on: {', '.join(datasets.NAMES)}, or a path."),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=16, help="Samples a network call.")] = 128,
    config: ConfigOption = None,
    seed: SeedOption = 0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Look for a wrong prediction, time or schedule; exit status 1 if there is one."""
    field = load_model(model, device)
    data = None
    if source is not None:
        dataset = datasets.load(source)
        rows = torch.linspace(0, len(dataset) - 1, min(_DATA, len(dataset))).long().tolist()
        data = datasets.scale(torch.as_tensor(dataset[rows]))
    else:
        sample_shape(field)
    found = check(field, data, samples=samples, seed=seed, progress=watched(as_json))
    report(as_json, found.to_dict(), lambda: str(found))
    if not found.ok:
        raise typer.Exit(1)
