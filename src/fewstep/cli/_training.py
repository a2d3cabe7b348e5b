"""Options of the verbs that train on from a trained flow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import networks
from .._device import check_device
from ..field import Field
from ..flows import Trainer
from ._common import load_model

__all__ = [
    "BatchOption",
    "CheckpointOption",
    "ClipOption",
    "EmaOption",
    "LrOption",
    "PrecisionOption",
    "StepsOption",
    "WarmupOption",
    "WorkersOption",
    "load_trainable",
    "watch",
    "written",
]

StepsOption = Annotated[int, typer.Option("--steps", help="Optimiser steps.")]
BatchOption = Annotated[int, typer.Option("--batch", help="Pairs a step.")]
LrOption = Annotated[float, typer.Option("--lr", help="Learning rate after the warm-up.")]
WarmupOption = Annotated[int, typer.Option("--warmup", help="Steps of linear warm-up.")]
ClipOption = Annotated[float | None, typer.Option("--clip", help="Largest norm of the gradient.")]
EmaOption = Annotated[
    int, typer.Option("--ema", help="Half-life of the average of weights that is written, in samples.")
]
PrecisionOption = Annotated[str, typer.Option("--precision", help="no (float32), bf16 or fp16.")]
WorkersOption = Annotated[int, typer.Option("--workers", help="Processes that load pairs.")]
CheckpointOption = Annotated[
    int, typer.Option("--checkpoint-every", help="Steps between checkpoints, from which a run goes on.")
]


def load_trainable(spec: str, device: str) -> Field:
    """The field named on the command line, of a network that can be written again when it is trained."""
    check_device(device)
    if ":" in device:
        raise ValueError(
            f"--device: training is on cpu, cuda or mps, not {device!r}; choose a GPU with "
            "CUDA_VISIBLE_DEVICES."
        )
    field = load_model(spec, device)
    kind = type(field.model)
    if getattr(networks, kind.__name__, None) is not kind:
        raise ValueError(
            f"MODEL: {spec} is a {kind.__name__}, which no file of fewstep holds, but must be a network of "
            "fewstep.networks; train others in Python, with fewstep.flows."
        )
    return field


def watch(trainer: Trainer, as_json: bool) -> None:
    """Say where the page of a run is, before it starts."""
    if trainer.main and trainer.settings.page_every and not as_json:
        typer.echo(f"watch: {trainer.folder.path / 'index.html'}")


def written(folder: Path) -> dict[str, str]:
    """The files of a finished run to go on with: its flow, and its page if it could be written."""
    files = {"flow": folder / "flow.safetensors", "page": folder / "index.html"}
    return {name: str(path) for name, path in files.items() if path.exists()}
