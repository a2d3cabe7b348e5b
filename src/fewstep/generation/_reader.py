"""Reading of folders of samples written by :func:`fewstep.generate`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._archives import read_arrays
from .._hashing import fingerprint
from .._reading import check, read_object, read_tensors, reading
from ..data import Dataset, load

__all__ = ["Generated", "read_generated"]

#: Formats in order of preference, with the key of the samples in their files.
_FORMATS = {"samples": "samples", "npz": "samples", "pairs": "x1"}
#: Number of samples that a fingerprint reads.
_HASHED = 64


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
    facts = read_object(path, "result of fewstep sample", "fewstep sample")
    with reading(path, "result of fewstep sample", "fewstep sample"):
        check(facts, {"files": {str: str}, "count": int}, "")
    patterns, count = {kind: Path(name).name for kind, name in facts["files"].items()}, facts["count"]
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
        block = read_object(path, "record of samples", "fewstep sample")
        with reading(path, "record of samples", "fewstep sample"):
            check(block, {"count": int, "files": [str]}, "")
        names = (Path(name).name for name in block["files"])  # of this folder
        counts |= {folder / name: block["count"] for name in names if fnmatch(name, pattern)}
    return counts


class _Blocks(Dataset):
    """Samples in files of many samples, of which one is open at a time; ``counts`` has the number in each."""

    def __init__(self, name: str, counts: Mapping[Path, int], key: str) -> None:
        self.name, self._files, self._counts, self._key = name, list(counts), list(counts.values()), key
        self._ends = torch.tensor(self._counts).cumsum(0)
        self._open: tuple[int, Tensor] | None = None
        self.shape = ()
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
            with reading(path, "file of samples", "fewstep sample"):
                samples = _samples(path, self._key)
                shape = tuple(samples.shape)
                if shape != (self._counts[k], *(self.shape or shape[1:])):
                    raise ValueError(f"it holds samples of shape {shape}")
                self._open = k, samples
        return self._open[1]


def _samples(path: Path, key: str) -> Tensor:
    if path.suffix != ".npz":
        return read_tensors(path, None, only=(key,)).tensors[key]
    samples = torch.from_numpy(read_arrays(path, (key,))[key])
    return samples.permute(0, 3, 1, 2) if samples.dtype == torch.uint8 else samples
