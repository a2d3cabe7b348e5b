"""``fewstep fid``: how near the distribution of samples is to that of data."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from .. import __version__
from .._json_file import write_json
from ..metrics import frechet_distance
from ..metrics.features import (
    NAMES,
    REFERENCES,
    FeatureNetwork,
    Reference,
    feature_moments,
    load,
    load_reference,
)
from ._common import DeviceOption, JsonOption, report, watched
from ._pictures import Pictures, open_pictures
from ._processes import sharing

__all__ = ["app"]

app = typer.Typer(
    help="Fréchet distance of samples to data, which is FID in the features of Inception only.",
    no_args_is_help=True,
)

_NameOption = Annotated[
    str | None,
    typer.Option(
        "--features-name",
        help="What to call a TorchScript file that is not the standard Inception; no FID then.",
    ),
]
_CountOption = Annotated[
    int | None, typer.Option("--count", min=2, help="How many pictures; all by default.")
]
_SeedOption = Annotated[
    int,
    typer.Option("--seed", help="Draws --count pictures of a data set; of samples the first are taken."),
]
_SplitOption = Annotated[str, typer.Option("--split", help="Which part of a data set.")]
_ResolutionOption = Annotated[
    int | None, typer.Option("--resolution", min=1, help="Crop and resize data to this many pixels a side.")
]
_ChannelsOption = Annotated[
    int | None, typer.Option("--channels", help="Convert data to 1 (grey) or 3 channels.")
]
_BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Pictures at once.")]


@app.command(no_args_is_help=True)
def ref(
    data: Annotated[str, typer.Argument(help="Data by name or path, or a folder of fewstep sample.")],
    out: Annotated[Path, typer.Option("--out", help="The npz file to write: mu, sigma and facts.")],
    features: Annotated[
        str, typer.Option("--features", help=f"Feature network: {', '.join(NAMES)}, or a file.")
    ] = "inception",
    features_name: _NameOption = None,
    count: _CountOption = None,
    seed: _SeedOption = 0,
    split: _SplitOption = "train",
    resolution: _ResolutionOption = None,
    channels: _ChannelsOption = None,
    batch: _BatchOption = 64,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Write the statistics of data that samples are measured against.

    Under torchrun the processes share the pictures.
    """
    with sharing(device) as (own, rank, world):
        pictures = open_pictures(data, count, seed, split=split, resolution=resolution, channels=channels)
        show = watched(as_json)
        network = load(features, own, name=features_name, progress=show)
        moments = feature_moments(
            pictures.data, network, indices=pictures.indices, batch=batch, progress=show
        )
        if rank:
            return
        moments.protocol |= {"pictures": pictures.facts, **_machine(network, batch, world)}
        moments.save(out)
        result = {"out": str(out), **moments.protocol}
        words = f"{moments.count} pictures of {data}, {network.dims} features of {network.name}\nwrote {out}"
        report(as_json, result, lambda: words)


@app.command(no_args_is_help=True)
def calc(
    samples: Annotated[
        str, typer.Argument(help="A folder of fewstep sample, or pictures: a name, folder, zip or npz.")
    ],
    ref: Annotated[
        str,
        typer.Option(
            "--ref",
            help=f"Statistics of data: {', '.join(REFERENCES)}, a file of fewstep fid ref, or EDM's.",
        ),
    ],
    features: Annotated[
        str | None,
        typer.Option(
            "--features", help=f"Feature network: {', '.join(NAMES)}, or a file; by default that of --ref."
        ),
    ] = None,
    features_name: _NameOption = None,
    count: _CountOption = None,
    seed: _SeedOption = 0,
    split: _SplitOption = "train",
    resolution: _ResolutionOption = None,
    channels: _ChannelsOption = None,
    batch: _BatchOption = 64,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write the result to.")] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Measure how far samples are from data.

    Compare only values of the same number of pictures, features and reference. Under torchrun the processes
    share the pictures.
    """
    with sharing(device) as (own, rank, world):
        reference = load_reference(ref)
        pictures = open_pictures(samples, count, seed, split=split, resolution=resolution, channels=channels)
        _check_size(pictures, reference)
        show = watched(as_json)
        network = load(features or reference.features["name"], own, name=features_name, progress=show)
        reference.check(network)
        moments = feature_moments(
            pictures.data, network, indices=pictures.indices, batch=batch, progress=show
        )
        if rank:
            return
        value = frechet_distance(moments, reference.moments)
        result = {
            "fid" if network.distance_name == "FID" else "frechet_distance": value,
            "distance": network.distance_name,
            "count": moments.count,
            "notes": _notes(network, pictures, reference),
            "features": network.describe(),
            "samples": pictures.facts,
            "reference": {
                "source": reference.source,
                "sha256": reference.sha256,
                "count": reference.moments.count,
                "features": reference.features,
                "pictures": reference.moments.protocol.get("pictures"),
            },
            **_machine(network, batch, world),
        }
        if out is not None:
            write_json(out, result)
        report(as_json, result, lambda: _in_words(result, value))


def _check_size(pictures: Pictures, reference: Reference) -> None:
    known = (reference.moments.protocol.get("pictures") or {}).get("shape")
    size = pictures.data.shape[1:]
    if known is not None and tuple(known[1:]) != size:
        raise ValueError(
            f"SAMPLES: are pictures of {size[1]} x {size[0]} pixels, but {reference.source} is of "
            f"{known[2]} x {known[1]}; give a reference of the same size, or --resolution."
        )


def _notes(network: FeatureNetwork, pictures: Pictures, reference: Reference) -> list[str]:
    """What a reader must know to judge the number."""
    notes = []
    if reference.assumed:
        notes.append(
            f"{reference.source} does not say with which features it was made; its {network.dims} dimensions "
            "are taken for those of the standard Inception network"
        )
    if len(pictures.indices) <= network.dims:
        notes.append(
            f"{len(pictures.indices)} pictures are too few for a covariance of {network.dims} features; the "
            "value is far too high"
        )
    return notes


def _machine(network: FeatureNetwork, batch: int, world: int) -> dict[str, Any]:
    cuda = network.device.type == "cuda"
    return {
        "batch": batch,
        "processes": world,
        "device": torch.cuda.get_device_name(network.device) if cuda else network.device.type,
        "versions": {
            "fewstep": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _in_words(result: dict[str, Any], value: float) -> str:
    samples, reference = result["samples"], result["reference"]
    against = f"{reference['count']} of {reference['source']}" if reference["count"] else reference["source"]
    lines = [
        f"{result['distance']}: {value:.4g}",
        f"{result['count']} pictures of {samples['source']} against {against}",
    ]
    if "solver" in samples:
        lines.append(f"{samples['model']} with {samples['solver']}, {samples['nfe']['mean']:g} network calls")
    return "\n".join([*lines, *(f"note: {note}" for note in result["notes"])])
