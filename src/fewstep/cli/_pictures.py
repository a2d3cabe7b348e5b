"""Pictures named on the command line, and the choice of some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from ..data import Dataset, is_picture, load
from ..generation import parse_ranges, read_generated, spell
from ..metrics.features import ROUNDING
from ._options import AtLeast, Positive

__all__ = ["Pictures", "Taken", "open_pictures"]


@dataclass(frozen=True)
class Taken:
    """Choice and conversion of pictures.

    Args:
        count: how many pictures; all by default.
        seed: seed for drawing --count pictures of a data set; of samples the first are taken.
        split: part of the data set.
        resolution: crop and resize data to this many pixels per side.
        channels: convert data to 1 (grey) or 3 channels.
        batch: pictures per batch.
    """

    count: Annotated[int | None, AtLeast(2)] = None
    seed: int = 0
    split: str = "train"
    resolution: Annotated[int | None, AtLeast(1)] = None
    channels: int | None = None
    batch: Positive = 64


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a data set, or of a folder of samples, by their numbers, with JSON-ready facts."""

    data: Dataset
    indices: Sequence[int]
    facts: dict[str, Any]


def open_pictures(source: str, which: Taken) -> Pictures:
    """Open data by name or path, or a folder of ``fewstep sample``.

    ``which.count`` pictures of a data set are drawn with ``which.seed``, as it may be ordered by class; of
    samples, the first are taken.
    """
    facts: dict[str, Any]
    # Recognised by its settings, as an incomplete folder has no result.
    if (Path(source) / "generate.json").exists():
        data, result = read_generated(source)
        taken: Sequence[int] = range(_check(which.count, len(data), source))
        protocol = result["protocol"]
        facts = {
            **{key: result[key] for key in ("model", "solver", "nfe")},
            "seed": protocol["seed"],
            "seeds": spell(parse_ranges(protocol["seeds"])[: len(taken)]),
            "fingerprints": {
                "model": protocol["fingerprint"],
                "solver": protocol["solver"].get("fingerprint"),
            },
        }
        rounded = f"{ROUNDING}, when they were written"
    else:
        data = load(source, split=which.split, resolution=which.resolution, channels=which.channels)
        number = _check(which.count, len(data), source)
        drawn = number < len(data)
        order = np.random.default_rng(which.seed).permutation(len(data))
        taken = sorted(order[:number].tolist()) if drawn else range(number)
        facts = {"split": which.split, "drawn_by_seed": which.seed if drawn else None}
        rounded = "none: 8-bit pictures as they are stored"
    if not is_picture(data.shape):
        raise ValueError(
            f"{source}: holds samples of shape {data.shape}, not pictures (1 or 3, H, W); --channels 3 "
            "converts pictures of other channels."
        )
    first = data[[0]]
    if isinstance(first, Tensor) and first.is_floating_point():
        rounded = f"{ROUNDING}, when they were measured"
    facts = {
        "source": source,
        "count": len(taken),
        "of": len(data),
        "shape": list(data.shape),
        "fingerprint": data.fingerprint(),
        **facts,
        "rounding": rounded,
    }
    return Pictures(data, taken, facts)


def _check(count: int | None, there: int, source: str) -> int:
    if count is not None and count > there:
        raise ValueError(
            f"--count: {source} holds {there} pictures, fewer than {count}; make more, or ask for fewer."
        )
    return there if count is None else count
