"""Noise-sample pairs in a folder of files, read in batches."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._hashing import fingerprint
from .._reading import excerpt, read_tensors, reading
from ..pairs import FACTS, HEADER, check_file
from ._dataset import Dataset

__all__ = ["PairShards"]

_NAME = re.compile(r"pairs-(\d+)-(\d+)\.safetensors")
#: Pairs per read of :meth:`PairShards.check`, and pairs that a fingerprint hashes.
_CHUNK, _HASHED = 256, 64


class _Shard(NamedTuple):
    """A file, and the numbers of its first and last pair."""

    path: Path
    first: int
    last: int


class PairShards(Dataset):
    """Pairs ``(x0, x1)`` in files ``pairs-FIRST-LAST.safetensors``, as :func:`fewstep.generate` writes them.

    The files are memory-mapped: a batch reads only its own rows, and processes share the pages. Samples are
    in floating point, not rounded to the 256 levels of an image file.

    Args:
        folder: the folder.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when it holds no pairs, their numbers have a gap, a file is damaged, or a file has
            samples of another shape than the first, or conditions, which training cannot pass on.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.name = self.folder.name
        self._shards = _find(self.folder)
        self.shape = _shape(self._shards[0])
        for shard in self._shards[1:]:
            if _shape(shard) != self.shape:
                raise ValueError(
                    f"{shard.path}: holds samples of shape {_shape(shard)}, but {self._shards[0].path.name} "
                    f"of shape {self.shape}; keep pairs of different models in different folders."
                )
        begin = self._shards[0].first
        self._ends = torch.tensor([shard.last + 1 - begin for shard in self._shards])
        self._rows = range(int(self._ends[-1]))
        self._open: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Return the noises and samples with these indices, each float32 of shape ``(B, *shape)``."""
        at = torch.as_tensor(indices, dtype=torch.long, device="cpu")
        if len(at) and not 0 <= int(at.min()) <= int(at.max()) < len(self):
            raise IndexError(f"{self.name}: has pairs 0 to {len(self) - 1}, not {int(at.min())}.")
        at = at + self._rows.start
        x0, x1 = (torch.empty(len(at), *self.shape) for _ in range(2))
        shards = torch.bucketize(at, self._ends, right=True)
        for k in shards.unique().tolist():
            places = (shards == k).nonzero()[:, 0]
            rows = at[places] - (int(self._ends[k - 1]) if k else 0)
            noises, samples = self._tensors(k)
            x0[places], x1[places] = noises[rows].float(), samples[rows].float()
        return x0, x1

    def split(self, last: int) -> tuple[PairShards, PairShards]:
        """Split off the ``last`` pairs for testing; return both parts, the training pairs first.

        Raises:
            ValueError: unless both have at least one pair.
        """
        if not 0 < last < len(self):
            raise ValueError(
                f"{self.folder}: of {len(self)} pairs, between 1 and {len(self) - 1} can be held out, not "
                f"{last}."
            )
        cut = len(self) - last
        return self._part(self._rows[:cut]), self._part(self._rows[cut:])

    def fingerprint(self) -> str:
        rows = self[range(0, len(self), max(1, len(self) // _HASHED))]
        return fingerprint([len(self), self.shape, *rows])

    def check(self) -> None:
        """Read every pair once.

        Raises:
            ValueError: naming the first file with numbers that are not finite.
        """
        for start in range(0, len(self), _CHUNK):
            x0, x1 = self[range(start, min(start + _CHUNK, len(self)))]
            bad = ~(x0.isfinite() & x1.isfinite()).flatten(1).all(dim=1)
            if bad.any():
                row = self._rows[start + int(bad.nonzero()[0])]
                shard = self._shards[int(torch.bucketize(row, self._ends, right=True))]
                raise ValueError(
                    f"{shard.path}: pair {self._shards[0].first + row} holds NaN or infinity; remove the "
                    "file and make it again with a solver of more calls."
                )

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_open": {}}  # every process maps the files separately

    def _part(self, rows: range) -> PairShards:
        part = copy.copy(self)
        part._rows = rows
        return part

    def _tensors(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the noises and samples of a file, as views of its mapping, which holds no file handle."""
        if k not in self._open:
            path = self._shards[k].path
            with reading(path, "file of pairs", "fewstep sample --format pairs"):
                tensors = read_tensors(path, FACTS, only=("x0", "x1"), most=HEADER).tensors
                self._open[k] = tensors["x0"], tensors["x1"]
        return self._open[k]


def _find(folder: Path) -> list[_Shard]:
    """Return the files of a folder in order, after checking that their numbers have no gap."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: there is no such folder of pairs; `fewstep sample MODEL midpoint:32 --format pairs "
            f"--out {folder}` makes one."
        )
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    shards = [_Shard(folder / name[0], int(name[1]), int(name[2])) for name in names if name]
    shards.sort(key=lambda shard: shard.first)
    if not shards:
        raise ValueError(
            f"{folder}: holds no files pairs-*.safetensors; write them with fewstep sample --format pairs."
        )
    # Generation writes its settings at the start and its result when all pairs are complete.
    if (folder / "generate.json").exists() and not (folder / "result.json").exists():
        raise ValueError(
            f"{folder}: its pairs are not complete; repeat the command that makes them to continue."
        )
    for one, following in zip(shards, shards[1:], strict=False):
        if following.first != one.last + 1:
            what = "are missing" if following.first > one.last else "appear twice"
            first, last = sorted((one.last + 1, following.first))
            raise ValueError(
                f"{folder}: pairs {first} to {last - 1} {what} between {one.path.name} and "
                f"{following.path.name}; make the folder again, or keep the parts in separate folders."
            )
    return shards


def _shape(shard: _Shard) -> tuple[int, ...]:
    """Return the shape of one sample of a file; raise unless the file matches its name."""
    with reading(shard.path, "file of pairs", "fewstep sample --format pairs"):
        tensors, facts = read_tensors(shard.path, FACTS, only=("x0", "x1"), most=HEADER)
        check_file(tensors, facts)
        x0, x1 = (tuple(each.shape) for each in tensors.values())
    count = shard.last - shard.first + 1
    if x0 != x1 or not x0 or x0[0] != count:
        raise ValueError(
            f"{shard.path}: must hold {count} noises and samples of one shape, but holds {x0} and {x1}; "
            "remove it and make it again."
        )
    conditions = sorted(name for kind in ("conditions", "per_sample") for name in facts[kind])
    if conditions:
        raise ValueError(
            f"{shard.path}: its pairs have the conditions {excerpt(', '.join(conditions), 100)}, which "
            "training does not pass to a network; make pairs of an unconditional field."
        )
    return x0[1:]
