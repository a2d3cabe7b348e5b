"""Shared by the verbs that train."""

from __future__ import annotations

from pathlib import Path

from .. import networks
from .._device import check_device
from ..field import Field
from ..flows import Settings, Trainer
from ._common import load_model

__all__ = ["SETTINGS", "load_trainable", "watch", "written"]

#: How a trained flow is trained on, where nothing else is asked for.
SETTINGS = Settings(steps=20_000, batch=256, lr=1e-4, warmup=500, precision="no")


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
        print(f"watch: {trainer.folder.path / 'index.html'}", flush=True)


def written(folder: Path) -> dict[str, str]:
    """The files of a finished run to go on with: its flow, and its page if it could be written."""
    files = {"flow": folder / "flow.safetensors", "page": folder / "index.html"}
    return {name: str(path) for name, path in files.items() if path.exists()}
