"""``fewstep fid``: distances between the distributions of samples and data."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._device import device_name
from .._json_file import write_json
from .._processes import join_torchrun, place
from .._version import __version__
from ..metrics import frechet_distance, kernel_distance, precision_recall
from ..metrics.features import (
    NAMES,
    REFERENCES,
    FeatureNetwork,
    Reference,
    feature_matrix,
    feature_moments,
    load,
    load_reference,
    too_few,
)
from ._common import report, watched
from ._options import helped
from ._pictures import Pictures, Taken, open_pictures

__all__ = ["COMMANDS", "command"]

_FEATURES = f"Feature network: {', '.join(NAMES)}, or a file"
_HELP = helped(
    samples="A folder of fewstep sample, or pictures: a name, folder, zip or npz.",
    data="Data by name or path, or a folder of fewstep sample.",
    ref=f"Statistics of data: {', '.join(REFERENCES)}, a file of fewstep fid ref, or EDM's, or its URL.",
    features=f"{_FEATURES}; by default that of --ref, or inception.",
    features_name="What to call a TorchScript file that is not the standard Inception; no FID then.",
    out="JSON file to write the result to.",
)
#: Fewest pictures of each for density and coverage, whose balls reach to the fifth neighbour.
_FEWEST = 6
_ALL = Taken()


def command() -> None:
    """Fréchet distance of samples to data, which is FID only in the features of Inception."""


@_HELP
def ref(
    data: str,
    *,
    out: Path,
    features: str = "inception",
    features_name: str | None = None,
    taken: Taken = _ALL,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Write the statistics of data, the reference for samples.

    Under torchrun the processes share the pictures.

    Args:
        out: the npz file to write: mu, sigma and facts.
    """
    device = join_torchrun(device)
    rank, world = place()
    pictures = open_pictures(data, taken)
    show = watched(as_json) and not rank
    network = load(features, device, name=features_name, progress=show)
    moments = feature_moments(
        pictures.data, network, indices=pictures.indices, batch=taken.batch, progress=show
    )
    if rank:
        return
    moments.protocol |= {"pictures": pictures.facts, **_machine(network, taken.batch, world)}
    moments.save(out)
    words = f"{moments.count} pictures of {data}, {network.dims} features of {network.name}\nwrote {out}"
    report(as_json, {"out": str(out), **moments.protocol}, lambda: words)


@_HELP
def calc(
    samples: str,
    *,
    ref: str,
    features: str | None = None,
    features_name: str | None = None,
    taken: Taken = _ALL,
    out: Path | None = None,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Measure the Fréchet distance of samples to data.

    Compare only values with the same number of pictures, features and reference. Under torchrun the processes
    share the pictures.
    """
    device = join_torchrun(device)
    rank, world = place()
    reference = load_reference(ref)
    known = reference.moments.protocol.get("pictures")
    pictures = open_pictures(samples, taken)
    _check_size(pictures, known and known.get("shape"), ref)
    show = watched(as_json) and not rank
    network = load(features or reference.features["name"], device, name=features_name, progress=show)
    reference.check(network)
    moments = feature_moments(
        pictures.data, network, indices=pictures.indices, batch=taken.batch, progress=show
    )
    if rank:
        return
    value = frechet_distance(moments, reference.moments)
    result = {
        "fid" if network.distance_name == "FID" else "frechet_distance": value,
        "distance": network.distance_name,
        "count": moments.count,
        "notes": _notes(network, len(pictures.indices), reference),
        "features": network.describe(),
        "samples": pictures.facts,
        "reference": {
            "source": reference.source,
            "sha256": reference.sha256,
            "count": reference.moments.count,
            "features": reference.features,
            "pictures": known,
        },
        **_machine(network, taken.batch, world),
    }
    if out is not None:
        write_json(out, result)
    report(as_json, result, lambda: _measured(result, value))


@_HELP
def compare(
    samples: str,
    data: str,
    *,
    features: str = "inception",
    features_name: str | None = None,
    samples_split: str = "train",
    taken: Taken = _ALL,
    out: Path | None = None,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Compare samples with data by kernel distance (KID), precision, recall, density and coverage.

    These need the features of both, not statistics, in the memory of one process. As many data are taken as
    samples.

    Args:
        samples_split: part of the samples, if they are a data set too.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("compare: works in one process; start it without torchrun.")
    if taken.count is not None and taken.count < _FEWEST:
        raise ValueError(f"--count: must be at least {_FEWEST}, not {taken.count}.")
    made = open_pictures(samples, replace(taken, split=samples_split))
    real = open_pictures(data, replace(taken, count=len(made.indices)))
    _check_size(made, real.facts["shape"], data)
    show = watched(as_json)
    network = load(features, device, name=features_name, progress=show)
    x, y = (
        feature_matrix(part.data, network, indices=part.indices, batch=taken.batch, progress=show)
        for part in (made, real)
    )
    subset = min(1000, len(x))
    # All subsets with all pictures are the same.
    distance = kernel_distance(x, y, subset=subset, subsets=100 if subset < len(x) else 1, seed=taken.seed)
    fidelity = precision_recall(y, x)
    name = "KID" if network.distance_name == "FID" else "kernel distance"
    result = {
        name.lower().replace(" ", "_"): asdict(distance),
        **asdict(fidelity),
        "count": len(x),
        "features": network.describe(),
        "samples": made.facts,
        "data": real.facts,
        **_machine(network, taken.batch, 1),
    }
    if out is not None:
        write_json(out, result)
    report(as_json, result, lambda: _compared(result, [f"{name}: {distance}", str(fidelity)]))


def _check_size(pictures: Pictures, shape: list[int] | None, source: str) -> None:
    """Raise a ``ValueError`` unless pictures have the size of those of the reference."""
    height, width = pictures.data.shape[1:]
    if shape is not None and tuple(shape[1:]) != (height, width):
        raise ValueError(
            f"SAMPLES: are pictures of {width} x {height} pixels, but {source} is of "
            f"{shape[2]} x {shape[1]}; give a reference of the same size, or --resolution."
        )


def _notes(network: FeatureNetwork, count: int, reference: Reference) -> list[str]:
    """Return caveats on the distance."""
    found = []
    if reference.assumed:
        found.append(
            f"{reference.source} does not say with which features it was made; its {network.dims} dimensions "
            "are taken for those of the standard Inception network"
        )
    few = too_few(count, network.dims)
    return [*found, few] if few else found


def _machine(network: FeatureNetwork, batch: int, world: int) -> dict[str, Any]:
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


def _measured(result: dict[str, Any], value: float) -> str:
    """Return the output for a distance to statistics."""
    samples, reference = result["samples"], result["reference"]
    against = f"{reference['count']} of {reference['source']}" if reference["count"] else reference["source"]
    lines = [
        f"{result['distance']}: {value:.4g}",
        f"{result['count']} pictures of {samples['source']} against {against}",
        f"sha256 of the statistics: {reference['sha256']}",
        *_made(samples),
        *(f"note: {note}" for note in result["notes"]),
    ]
    return "\n".join(lines)


def _compared(result: dict[str, Any], values: list[str]) -> str:
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


COMMANDS = {"ref": ref, "calc": calc, "compare": compare}
