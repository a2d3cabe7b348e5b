"""``fewstep compare``: solvers against the reference, on the same noises."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import torch

from .. import data as datasets
from .._files import only_writer
from ..comparison import Comparison, FeatureQuality, check_metrics
from ..comparison import compare as compare_solvers
from ..field import Field
from ..metrics import METRICS, Moments
from ..metrics.features import NAMES, REFERENCES, feature_matrix, load, load_reference
from ..report.comparison import write_comparison
from ._common import (
    draw_pairs,
    load_solvers,
    parse_numbers,
    report,
    sample_shape,
    watched,
)
from ._options import AtLeast, Positive, helped
from ._pipelines import Pipeline, load_with_conditions
from ._places import named_after

__all__ = ["command"]

#: Fewest pictures for density and coverage, whose balls reach to the fifth neighbour.
_FEWEST = 6


@helped(
    metrics=f"Of {', '.join(METRICS)}.",
    ref="Measure the Fréchet distance to these statistics of data: "
    f"{', '.join(REFERENCES)}, a file of fewstep fid ref, or its URL.",
    features=f"Feature network: {', '.join(NAMES)}, or a file; by default that of --ref.",
)
def command(
    models: str,
    solvers: list[str],
    *,
    nfe: str = "4,6,8,10",
    count: Positive = 256,
    metrics: str = "rmse,psnr",
    keep: Annotated[int | None, AtLeast(1)] = None,
    batch: Positive | None = None,
    steps: Positive | None = None,
    pipeline: Pipeline = Pipeline(),  # noqa: B008 -- frozen
    ref: str | None = None,
    data: str | None = None,
    features: str | None = None,
    out: Path | None = None,
    conditions: Path | None = None,
    per_sample: Path | None = None,
    seed: int = 1_000_003,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Score solvers by their distance to the reference solution, and make a page.

    Args:
        models: a model as for fewstep fit, a pipeline among them, or several with commas; NAME=MODEL gives
            one a name.
        solvers: solver files, and classical solvers such as euler or midpoint:8; NAME=SOLVER is for the
            model of that name alone.
        nfe: calls of the classical solvers: 4,6,8 or 4-8.
        count: number of noises.
        keep: samples on the page: 12, or 256 points in the plane, by default.
        batch: samples per batch; 256 by default, and for a pipeline as for fewstep fit.
        steps: steps of a fixed grid for the reference instead of adaptive ones, for rough networks.
        data: measure the Fréchet distance to these data, by name or path, in --features, and kernel distance,
            precision, recall, density and coverage against as many of them as noises.
        out: folder of the results, comparison/MODELS by default; an interrupted comparison is resumed there.
    """
    measured = list(dict.fromkeys(word for word in map(str.strip, metrics.split(",")) if word))
    check_metrics(measured)
    quality = _quality(ref, data, features, count, seed, device, watched(as_json))
    specs = _named_models(models)
    loaded = {
        name: load_with_conditions(spec, pipeline, conditions, per_sample, device)
        for name, spec in specs.items()
    }
    fields = {name: each.field for name, each in loaded.items()}
    if quality is not None:
        for field in fields.values():
            quality.network.check(sample_shape(field))  # before anything is measured
    groups = {
        name: load_solvers(_of_model(solvers, name, list(specs)), parse_numbers(nfe), field)
        for name, field in fields.items()
    }
    out = out or Path("comparison") / "-".join(map(named_after, specs))
    _open(out)
    with only_writer(out):
        tables = []
        for name, field in fields.items():
            size = batch or loaded[name].batch(256)
            taken = loaded[name].of(count)
            field = taken.field
            cache = _cache(field, name, out)
            known = None if cache is None else cache / "reference"
            options = {"batch": size, "steps": steps, "cache": known, **taken.given}
            pairs = draw_pairs(field, count, seed, device, as_json, **options)
            table = compare_solvers(
                field,
                groups[name],
                noise=pairs,
                metrics=measured,
                batch=size,
                keep=keep or (256 if sample_shape(field) == (2,) else 12),
                quality=quality,
                model=name,
                cache=None if cache is None else cache / "solvers",
                progress=watched(as_json),
            )
            tables.append(table)
        told = {
            "nfe": nfe, "count": count, "metrics": metrics, "seed": seed, "batch": batch, "steps": steps,
            "keep": keep, "ref": ref, "data": data, "features": features, "device": device,
            "conditions": conditions, "per-sample": per_sample, **pipeline.options(),
        }  # fmt: skip
        words = [
            word for key, value in told.items() if value is not None for word in (f"--{key}", str(value))
        ]
        typed = shlex.join(["fewstep", "compare", models, *solvers, *words])
        files = write_comparison(tables, out, command=typed)
    result = {
        "rows": [row for table in tables for row in table.rows],
        "protocols": {table.model: table.protocol for table in tables},
        "files": files,
    }
    report(as_json, result, lambda: _in_words(tables, files))


def _quality(
    ref: str | None,
    data: str | None,
    features: str | None,
    count: int,
    seed: int,
    device: str,
    progress: bool,
) -> FeatureQuality | None:
    """Return the metrics in the features of a network, if any are wanted."""
    if ref is not None and data is not None:
        raise ValueError(f"--ref: cannot go with --data, not {ref} and {data}; give one of them.")
    if ref is not None:
        reference = load_reference(ref)
        network = load(features or reference.features["name"], device, progress=progress)
        reference.check(network)
        return FeatureQuality(network, reference.moments)
    if data is not None:
        if count < _FEWEST:
            raise ValueError(f"--count: must be {_FEWEST} at least with --data, not {count}.")
        network = load(features or "inception", device, progress=progress)
        matrix = feature_matrix(datasets.load(data), network, progress=progress)
        # All but the Fréchet distance depend on the number of pictures, which must be equal.
        drawn = torch.randperm(len(matrix), generator=torch.Generator().manual_seed(seed))[:count]
        return FeatureQuality(network, Moments.of(matrix, {"pictures": {"data": data}}), matrix[drawn])
    if features is not None:
        raise ValueError(
            f"--features: {features} has nothing to compare with; give --ref, statistics of data, or --data."
        )
    return None


def _named_models(text: str) -> dict[str, str]:
    """Return models by name: the given name, or the word itself, a file by its stem."""
    named: dict[str, str] = {}
    for word in text.split(","):
        name, equals, spec = word.partition("=")
        if not equals:
            name, spec = Path(word).stem if word.endswith(".safetensors") else word, word
        if not name or not spec:
            raise ValueError(f"MODELS: {text!r} leaves a place empty; give MODEL,MODEL or NAME=MODEL.")
        if name in named:
            raise ValueError(
                f"MODELS: {text!r} has two models called {name!r}; name them, as in first={spec},second=..."
            )
        named[name] = spec
    return named


def _cache(field: Field, name: str, out: Path) -> Path | None:
    """Return the folder of the measurements, for a model that can be identified."""
    try:
        field.fingerprint()
    except ValueError as error:
        print(f"note: an interrupted comparison of {name} begins anew: {error}", file=sys.stderr)
        return None
    return out / "cache"


def _open(out: Path) -> None:
    """Make the folder, or raise before anything is measured."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out: {out} cannot be a folder ({error.strerror}); name another.") from None
    if not os.access(out, os.W_OK):
        raise ValueError(f"--out: {out} is a folder that may not be written to; name another.")


def _of_model(words: list[str], model: str, models: list[str]) -> list[str]:
    """Return the words of the solvers for one of the models."""
    chosen = []
    for word in words:
        name, equals, spec = word.partition("=")
        if not equals:
            chosen.append(word)
        elif name not in models:
            raise ValueError(
                f"SOLVER: {word!r} is for a model {name!r}, but the models are {', '.join(models)}."
            )
        elif name == model:
            chosen.append(spec)
    return chosen


def _in_words(tables: list[Comparison], files: list[str]) -> str:
    several = len(tables) > 1
    parts = [(f"{table.model}\n\n" if several else "") + str(table) for table in tables]
    page = next(file for file in files if file.endswith(".html"))
    return "\n\n".join(parts) + f"\n\nwrote {', '.join(files)}\nlook at it: open {page} in a browser"
