"""``fewstep check``: check that a model is wired as it was trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import torch

from .. import data as datasets
from ..checking import check
from ._common import report, sample_shape, watched
from ._options import AtLeast, helped
from ._pipelines import MODEL_OR_PIPELINE, Pipeline, load_with_conditions

__all__ = ["command"]

#: Number of data read for their mean and variance.
_DATA = 2048


@helped(model=MODEL_OR_PIPELINE, data=f"What it was trained on: {', '.join(datasets.NAMES)}, or a path.")
def command(
    model: str,
    *,
    data: str | None = None,
    samples: Annotated[int, AtLeast(16)] = 128,
    conditions: Path | None = None,
    per_sample: Path | None = None,
    pipeline: Pipeline = Pipeline(),  # noqa: B008 -- frozen
    seed: int = 0,
    device: str = "cpu",
    as_json: bool = False,
) -> None:
    """Look for a wrong prediction, time or schedule; exit status 1 if there is one.

    Args:
        samples: samples per network call.
    """
    loaded = load_with_conditions(model, pipeline, conditions, per_sample, device)
    field = loaded.field
    known = None
    if data is not None:
        dataset = datasets.load(data)
        if field.shape not in (None, dataset.shape):
            raise ValueError(
                f"--data: {data} holds samples of shape {dataset.shape}, but {model} samples shape "
                f"{field.shape}; name the data that it was trained on."
            )
        rows = torch.linspace(0, len(dataset) - 1, min(_DATA, len(dataset))).long().tolist()
        known = datasets.scale(torch.as_tensor(dataset[rows]))
    else:
        sample_shape(field)
    loaded = loaded.of(samples if known is None else len(known))
    found = check(loaded.field, known, samples=samples, seed=seed, progress=watched(as_json), **loaded.given)
    report(as_json, found.to_dict(), lambda: str(found))
    if not found.ok:
        sys.exit(1)
