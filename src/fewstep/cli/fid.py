"""``fewstep fid``: distances between the distributions of samples and data."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from .._json_file import write_json
from ..metrics import frechet_distance, kernel_distance, precision_recall
from ..metrics.features import NAMES, REFERENCES, feature_matrix, feature_moments, load, load_reference
from ._common import report, watched
from ._fid_report import check_size, compared, machine, measured, notes
from ._options import helped
from ._pictures import Taken, open_pictures
from ._processes import refuse_sharing, sharing

__all__ = ["COMMANDS", "command"]

_FEATURES = f"Feature network: {', '.join(NAMES)}, or a file"
_HELP = helped(
    samples="A folder of fewstep sample, or pictures: a name, folder, zip or npz.",
    data="Data by name or path, or a folder of fewstep sample.",
    ref=f"Statistics of data: {', '.join(REFERENCES)}, a file of fewstep fid ref, or EDM's.",
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
    with sharing(device) as (own, rank, world):
        pictures = open_pictures(data, taken)
        show = watched(as_json) and not rank
        network = load(features, own, name=features_name, progress=show)
        moments = feature_moments(
            pictures.data, network, indices=pictures.indices, batch=taken.batch, progress=show
        )
        if rank:
            return
        moments.protocol |= {"pictures": pictures.facts, **machine(network, taken.batch, world)}
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
    with sharing(device) as (own, rank, world):
        reference = load_reference(ref)
        known = reference.moments.protocol.get("pictures")
        pictures = open_pictures(samples, taken)
        check_size(pictures, known and known["shape"], ref)
        show = watched(as_json) and not rank
        network = load(features or reference.features["name"], own, name=features_name, progress=show)
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
            **machine(network, taken.batch, world),
        }
        if out is not None:
            write_json(out, result)
        report(as_json, result, lambda: measured(result, value))


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
    refuse_sharing("compare")
    if taken.count is not None and taken.count < _FEWEST:
        raise ValueError(f"--count: must be at least {_FEWEST}, not {taken.count}.")
    made = open_pictures(samples, replace(taken, split=samples_split))
    real = open_pictures(data, replace(taken, count=len(made.indices)))
    check_size(made, real.facts["shape"], data)
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
        **machine(network, taken.batch, 1),
    }
    if out is not None:
        write_json(out, result)
    report(as_json, result, lambda: compared(result, [f"{name}: {distance}", str(fidelity)]))


COMMANDS = {"ref": ref, "calc": calc, "compare": compare}
