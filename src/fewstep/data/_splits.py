"""Which of some files belong to training and which to testing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

__all__ = ["pick", "splits_by_file", "splits_by_folder"]

T = TypeVar("T")

#: Names of folders, and beginnings of names of files, with the split they stand for.
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}


def pick(splits: Mapping[str, T], split: str, where: str | os.PathLike[str]) -> T:
    """The split that was asked for.

    Raises:
        ValueError: naming those that exist.
    """
    if split not in splits:
        raise ValueError(f"{where}: has no split {split!r}, only {' and '.join(map(repr, splits))}.")
    return splits[split]


def splits_by_folder(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the folder they are in: ``train/``, ``test/``, ``val/`` or ``validation/``.

    Without a folder ``train/``, everything is for training. Folders that hold everything are looked through.

    Args:
        names: paths relative to the source, with slashes.
    """
    depth = len(PurePosixPath(os.path.commonpath(names)).parts) if len(names) > 1 else 0
    found: dict[str, list[str]] = {}
    for level in {0, depth}:
        found = {}
        for name in names:
            parts = PurePosixPath(name).parts
            if len(parts) > level + 1 and parts[level] in _SPLITS:
                found.setdefault(_SPLITS[parts[level]], []).append(name)
        if "train" in found:
            return found
    return {"train": list(names)}


def splits_by_file(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by how their names begin, as in ``data/test-00000-of-00001.parquet``; else by folder."""
    found: dict[str, list[str]] = {}
    for name in names:
        begin = re.match(r"[a-z]+", PurePosixPath(name).name)
        if begin and begin[0] in _SPLITS:
            found.setdefault(_SPLITS[begin[0]], []).append(name)
    return found if sum(map(len, found.values())) == len(names) else splits_by_folder(names)
