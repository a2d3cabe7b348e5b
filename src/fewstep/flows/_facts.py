"""Facts about a training run and its environment, ready for JSON."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .._version import __version__
from ..data import Dataset
from .objective import Objective
from .settings import Settings

__all__ = ["circumstances", "identity"]


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
    """Return facts about a run that may change when it is resumed.

    Args:
        networks: the networks written at the end, by name.
        data: the training data.
        validation: the validation data.
        device: the device of this process.
        processes: number of processes, with one device each.
    """
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
