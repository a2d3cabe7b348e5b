"""Set-up of a training run: its devices, and the facts about it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .._extras import require
from .._version import __version__
from ..data import Dataset
from .objective import Objective
from .settings import Settings

__all__ = ["circumstances", "identity", "make_accelerator"]


def make_accelerator(settings: Settings, device: str | None, out: str | os.PathLike[str]) -> Any:
    """Return an ``accelerate.Accelerator`` for these settings, on the requested device if any."""
    accelerate = require("accelerate", "train")
    for tracker in settings.trackers:
        require(tracker, "track")  # accelerate would silently continue without it
    # The shared state refuses a second run in this process with another precision.
    require("accelerate.state", "train").AcceleratorState._reset_state()
    accelerator = accelerate.Accelerator(
        mixed_precision=settings.precision,
        cpu=device == "cpu" or None,
        log_with=list(settings.trackers) or None,
        project_dir=str(out),
    )
    found = torch.empty(0, device=accelerator.device).device  # with its number, which "cuda" has not
    wanted = torch.device(device or found)
    if wanted.type != found.type or wanted.index not in (None, found.index):
        raise ValueError(
            f"device: training is on {accelerator.device}, which accelerate chose, not on {device}; pass "
            "'cpu', or choose a GPU with CUDA_VISIBLE_DEVICES."
        )
    if settings.trackers:
        accelerator.init_trackers("fewstep", config={k: str(v) for k, v in vars(settings).items()})
    return accelerator


def identity(objective: Objective, data: Dataset, settings: Settings) -> dict[str, Any]:
    """Return the facts that identify a run; to resume it, they must be the same."""
    facts = {
        **objective.describe(),
        "data": {"count": len(data), "fingerprint": data.fingerprint()},
        "settings": dataclasses.asdict(settings),
    }
    through_json: dict[str, Any] = json.loads(json.dumps(facts))
    return through_json


def circumstances(
    networks: Mapping[str, nn.Module],
    data: Dataset,
    validation: Dataset | None,
    device: torch.device,
    processes: int,
) -> dict[str, Any]:
    """Return facts about a run that may change when it is resumed."""
    return {
        "data": {"name": data.name, "shape": list(data.shape)},
        "validation": None if validation is None else {"name": validation.name, "count": len(validation)},
        "parameters": {name: sum(p.numel() for p in net.parameters()) for name, net in networks.items()},
        "device": {
            "kind": str(device),
            "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "processes": processes,
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "fewstep": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
