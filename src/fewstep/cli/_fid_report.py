"""Notes and output of the verbs of ``fewstep fid``."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import torch

from .._device import device_name
from .._version import __version__
from ..metrics.features import FeatureNetwork, Reference, too_few
from ._pictures import Pictures

__all__ = ["check_size", "compared", "machine", "measured", "notes"]


def check_size(pictures: Pictures, shape: list[int] | None, source: str) -> None:
    """Raise a ``ValueError`` unless pictures have the size of those of the reference."""
    height, width = pictures.data.shape[1:]
    if shape is not None and tuple(shape[1:]) != (height, width):
        raise ValueError(
            f"SAMPLES: are pictures of {width} x {height} pixels, but {source} is of "
            f"{shape[2]} x {shape[1]}; give a reference of the same size, or --resolution."
        )


def notes(network: FeatureNetwork, count: int, reference: Reference) -> list[str]:
    """Return caveats on the distance."""
    found = []
    if reference.assumed:
        found.append(
            f"{reference.source} does not say with which features it was made; its {network.dims} dimensions "
            "are taken for those of the standard Inception network"
        )
    few = too_few(count, network.dims)
    return [*found, few] if few else found


def machine(network: FeatureNetwork, batch: int, world: int) -> dict[str, Any]:
    """Return facts of the measurement: batch, processes, device and versions."""
    return {
        "batch": batch,
        "processes": world,
        "device": device_name(network.device),
        "versions": {
            "fewstep": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def measured(result: dict[str, Any], value: float) -> str:
    """Return the output for a distance to statistics."""
    samples, reference = result["samples"], result["reference"]
    against = f"{reference['count']} of {reference['source']}" if reference["count"] else reference["source"]
    lines = [
        f"{result['distance']}: {value:.4g}",
        f"{result['count']} pictures of {samples['source']} against {against}",
        *_made(samples),
        *(f"note: {note}" for note in result["notes"]),
    ]
    return "\n".join(lines)


def compared(result: dict[str, Any], values: list[str]) -> str:
    """Return the output for distances between two sets of features."""
    samples, data = result["samples"], result["data"]
    against = (
        f"{samples['count']} pictures of {samples['source']} against {data['count']} of {data['source']}"
    )
    return "\n".join([*values, f"{against}, features of {result['features']['name']}", *_made(samples)])


def _made(samples: dict[str, Any]) -> list[str]:
    if "solver" not in samples:
        return []
    return [f"{samples['model']} with {samples['solver']}, {samples['nfe']['mean']:g} network calls"]
