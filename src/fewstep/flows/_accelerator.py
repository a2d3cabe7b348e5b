"""Set-up of Hugging Face Accelerate for training on one or more devices."""

from __future__ import annotations

import os
from typing import Any

import torch

from .._extras import require
from .settings import Settings

__all__ = ["make_accelerator"]


def make_accelerator(settings: Settings, device: str | None, out: str | os.PathLike[str]) -> Any:
    """Return an ``accelerate.Accelerator`` for these settings.

    Raises:
        ImportError: when `accelerate` or a tracker is not installed.
        ValueError: when `accelerate` chose another device than the requested one.
    """
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
    wanted = torch.device(device or accelerator.device)
    if wanted.type != accelerator.device.type or wanted.index not in (None, accelerator.device.index):
        raise ValueError(
            f"device: training is on {accelerator.device}, which accelerate chose, not on {device}; pass "
            "'cpu', or choose a GPU with CUDA_VISIBLE_DEVICES."
        )
    if settings.trackers:
        accelerator.init_trackers("fewstep", config={k: str(v) for k, v in vars(settings).items()})
    return accelerator
