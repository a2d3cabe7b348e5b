"""``fewstep fid``: how near the distribution of samples is to that of data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .._json_file import write_json
from ..metrics import frechet_distance, kernel_distance, precision_recall
from ..metrics.features import NAMES, REFERENCES, feature_matrix, feature_moments, load, load_reference
from ._common import DeviceOption, JsonOption, report, watched
from ._fid_report import check_size, compared, machine, measured, notes
from ._pictures import open_pictures
from ._processes import refuse_sharing, sharing

__all__ = ["app"]

app = typer.Typer(
    help="Fréchet distance of samples to data, which is FID in the features of Inception only.",
    no_args_is_help=True,
)

_FEATURES = f"Feature network: {', '.join(NAMES)}, or a file"
_SamplesArgument = Annotated[
    str, typer.Argument(help="A folder of fewstep sample, or pictures: a name, folder, zip or npz.")
]
_DataArgument = Annotated[str, typer.Argument(help="Data by name or path, or a folder of fewstep sample.")]
_FeaturesOption = Annotated[str, typer.Option("--features", help=f"{_FEATURES}.")]
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
_ResultOption = Annotated[Path | None, typer.Option("--out", help="JSON file to write the result to.")]


@app.command(no_args_is_help=True)
def ref(
    data: _DataArgument,
    out: Annotated[Path, typer.Option("--out", help="The npz file to write: mu, sigma and facts.")],
    features: _FeaturesOption = "inception",
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
        show = watched(as_json) and not rank
        network = load(features, own, name=features_name, progress=show)
        moments = feature_moments(
            pictures.data, network, indices=pictures.indices, batch=batch, progress=show
        )
        if rank:
            return
        moments.protocol |= {"pictures": pictures.facts, **machine(network, batch, world)}
        moments.save(out)
        words = f"{moments.count} pictures of {data}, {network.dims} features of {network.name}\nwrote {out}"
        report(as_json, {"out": str(out), **moments.protocol}, lambda: words)


@app.command(no_args_is_help=True)
def calc(
    samples: _SamplesArgument,
    ref: Annotated[
        str,
        typer.Option(
            "--ref",
            help=f"Statistics of data: {', '.join(REFERENCES)}, a file of fewstep fid ref, or EDM's.",
        ),
    ],
    features: Annotated[
        str | None, typer.Option("--features", help=f"{_FEATURES}; by default that of --ref.")
    ] = None,
    features_name: _NameOption = None,
    count: _CountOption = None,
    seed: _SeedOption = 0,
    split: _SplitOption = "train",
    resolution: _ResolutionOption = None,
    channels: _ChannelsOption = None,
    batch: _BatchOption = 64,
    out: _ResultOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Measure how far samples are from data.

    Compare only values of the same number of pictures, features and reference. Under torchrun the processes
    share the pictures.
    """
    with sharing(device) as (own, rank, world):
        reference = load_reference(ref)
        known = reference.moments.protocol.get("pictures")
        pictures = open_pictures(samples, count, seed, split=split, resolution=resolution, channels=channels)
        check_size(pictures, known and known["shape"], ref)
        show = watched(as_json) and not rank
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
            "notes": notes(network, len(pictures.indices), reference),
            "features": network.describe(),
            "samples": pictures.facts,
            "reference": {
                "source": reference.source,
                "sha256": reference.sha256,
                "count": reference.moments.count,
                "features": reference.features,
                "pictures": known,
            },
            **machine(network, batch, world),
        }
        if out is not None:
            write_json(out, result)
        report(as_json, result, lambda: measured(result, value))


@app.command(no_args_is_help=True)
def compare(
    samples: _SamplesArgument,
    data: _DataArgument,
    features: _FeaturesOption = "inception",
    features_name: _NameOption = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=6, help="Pictures of each; by default all samples and as many data."),
    ] = None,
    seed: _SeedOption = 0,
    samples_split: Annotated[
        str, typer.Option("--samples-split", help="Which part, where the samples are a data set too.")
    ] = "train",
    split: _SplitOption = "train",
    resolution: _ResolutionOption = None,
    channels: _ChannelsOption = None,
    batch: _BatchOption = 64,
    out: _ResultOption = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Compare samples with data by kernel distance (KID), precision, recall, density and coverage.

    These need the features of both, not their statistics: one process measures, in memory.
    """
    refuse_sharing("compare")
    made = open_pictures(samples, count, seed, split=samples_split, resolution=resolution, channels=channels)
    real = open_pictures(data, len(made.indices), seed, split=split, resolution=resolution, channels=channels)
    check_size(made, real.facts["shape"], data)
    show = watched(as_json)
    network = load(features, device, name=features_name, progress=show)
    x, y = (
        feature_matrix(part.data, network, indices=part.indices, batch=batch, progress=show)
        for part in (made, real)
    )
    subset = min(1000, len(x))
    # Subsets of all pictures are alike.
    distance = kernel_distance(x, y, subset=subset, subsets=100 if subset < len(x) else 1, seed=seed)
    fidelity = precision_recall(y, x)
    name = "KID" if network.distance_name == "FID" else "kernel distance"
    result = {
        name.lower().replace(" ", "_"): asdict(distance),
        **asdict(fidelity),
        "count": len(x),
        "features": network.describe(),
        "samples": made.facts,
        "data": real.facts,
        **machine(network, batch, 1),
    }
    if out is not None:
        write_json(out, result)
    report(as_json, result, lambda: compared(result, [f"{name}: {distance}", str(fidelity)]))
