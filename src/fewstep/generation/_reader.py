"""Reading of folders of samples written by :func:`fewstep.generate`."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .._hashing import fingerprint
from ..data import Dataset, load

__all__ = ["Generated", "read_generated"]

#: Formats in order of preference, with the key of the samples in their files.
_FORMATS = {"samples": "samples", "npz": "samples", "pairs": "x1"}
#: Number of samples that a fingerprint reads.
_HASHED = 64
#: Errors of the readers on a damaged file.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, SafetensorError)


class Generated(NamedTuple):
    """Samples in the order of their numbers, and the content of ``result.json``."""

    samples: Dataset
    facts: dict[str, Any]


def read_generated(folder: str | os.PathLike[str]) -> Generated:
    """Open a folder of samples, in the first format present of safetensors, npz, pairs and png.

    Raises:
        FileNotFoundError: when the folder has no ``result.json``.
        ValueError: when it is not a result of :func:`fewstep.generate`, or no format holds every sample.
    """
    folder = Path(folder)
    path = folder / "result.json"
    if not path.exists():
        raise FileNotFoundError(
            f"{folder}: has no result.json; its samples are not complete, or were not made by fewstep sample."
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        patterns, count = {kind: Path(name).name for kind, name in facts["files"].items()}, facts["count"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is not a result of fewstep sample ({error!r}).") from None
    kind = next((kind for kind in (*_FORMATS, "png") if kind in patterns), None)
    if kind is None:
        raise ValueError(
            f"{folder}: holds no samples one by one, only {', '.join(patterns)}; repeat fewstep sample into "
            "another folder with --format safetensors."
        )
    pictures = load(folder / "png") if kind == "png" else None
    counts = {} if kind == "png" else _counts(folder, patterns[kind])
    there = sum(counts.values()) if pictures is None else len(pictures)
    if there != count:
        raise ValueError(f"{folder}: has {there} samples where its result.json says {count}; make it again.")
    name = folder.resolve().name
    return Generated(_Blocks(name, counts, _FORMATS[kind]) if pictures is None else pictures, facts)


def _counts(folder: Path, pattern: str) -> dict[Path, int]:
    """Return the files of one format in the order of their samples, with the number of samples in each."""
    counts: dict[Path, int] = {}
    for path in sorted((folder / "blocks").glob("[0-9]*.json")):
        block = json.loads(path.read_text(encoding="utf-8"))
        counts |= {folder / name: block["count"] for name in block["files"] if fnmatch(name, pattern)}
    return counts


class _Blocks(Dataset):
    """Samples in files of many samples, of which one is open at a time; ``counts`` has the number in each."""

    def __init__(self, name: str, counts: Mapping[Path, int], key: str) -> None:
        self.name, self._files, self._key = name, list(counts), key
        self._ends = torch.tensor(list(counts.values())).cumsum(0)
        self._open: tuple[int, Tensor] | None = None
        self.shape = tuple(self._samples(0).shape[1:])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, indices: Sequence[int] | Tensor) -> Tensor:
        at = torch.as_tensor(indices, dtype=torch.long, device="cpu")
        file = torch.bucketize(at, self._ends, right=True)
        found = torch.empty(len(at), *self.shape, dtype=self._samples(int(file[0])).dtype)
        for k in file.unique().tolist():
            start = int(self._ends[k - 1]) if k else 0
            found[file == k] = self._samples(k)[at[file == k] - start]
        return found

    def fingerprint(self) -> str:
        rows = self[range(0, len(self), max(1, len(self) // _HASHED))]
        return fingerprint([len(self), self.shape, rows])

    def _samples(self, k: int) -> Tensor:
        if self._open is None or self._open[0] != k:
            path = self._files[k]
            try:
                self._open = k, (_from_npz if path.suffix == ".npz" else _from_tensors)(path, self._key)
            except _DAMAGE as error:
                raise ValueError(
                    f"{path}: cannot be read ({error}); repeat the fewstep sample that made it."
                ) from None
        return self._open[1]


def _from_tensors(path: Path, key: str) -> Tensor:
    with safe_open(path, "pt") as file:
        samples: Tensor = file.get_tensor(key)
    return samples


def _from_npz(path: Path, key: str) -> Tensor:
    # Opened here, because numpy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        samples = torch.from_numpy(archive[key])
    return samples.permute(0, 3, 1, 2) if samples.dtype == torch.uint8 else samples
