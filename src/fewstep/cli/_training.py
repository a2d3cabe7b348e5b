"""Common functions of the verbs that train."""

from __future__ import annotations

from pathlib import Path

from .. import networks
from .._device import check_device
from .._network import bare
from ..field import Field
from ..flows import Settings, Trainer
from ._common import load_model

__all__ = ["SETTINGS", "load_trainable", "watch", "written"]

#: Default settings for further training of a trained flow.
SETTINGS = Settings(steps=20_000, batch=256, lr=1e-4, warmup=500, precision="no")


def load_trainable(spec: str, device: str) -> Field:
    """Return the field named on the command line, whose network can be saved after training."""
    check_device(device)
    if ":" in device:
        raise ValueError(
            f"--device: training is on cpu, cuda or mps, not {device!r}; choose a GPU with "
            "CUDA_VISIBLE_DEVICES."
        )
    field = load_model(spec, device)
    kind = type(bare(field.model))
    if getattr(networks, kind.__name__, None) is not kind:
        raise ValueError(
            f"MODEL: {spec} is a {kind.__name__}, which no file of fewstep holds, but must be a network of "
            "fewstep.networks; train others in Python, with fewstep.flows."
        )
    return field


def watch(trainer: Trainer, as_json: bool) -> None:
    """Print the place of the page of a run before it starts."""
    if trainer.main and trainer.settings.page_every and not as_json:
        print(f"watch: {trainer.folder.path / 'index.html'}", flush=True)


def written(folder: Path) -> dict[str, str]:
    """Return the files of a finished run: its flow, and its page if it was written."""
    files = {"flow": folder / "flow.safetensors", "page": folder / "index.html"}
    return {name: str(path) for name, path in files.items() if path.exists()}
