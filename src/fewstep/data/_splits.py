"""Training, test and validation splits from file and folder names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

__all__ = ["pick", "splits_by_file", "splits_by_folder"]

T = TypeVar("T")

#: Folder names, and prefixes of file names, with their splits.
_SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}


def pick(splits: Mapping[str, T], split: str, where: str | os.PathLike[str]) -> T:
    """Return the requested split, or raise and name those that exist."""
    if split not in splits:
        raise ValueError(f"{where}: has no split {split!r}, only {' and '.join(map(repr, splits))}.")
    return splits[split]


def splits_by_folder(names: Sequence[str], where: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Group files, relative names with slashes, by their folder: ``train/``, ``test/``, ``validation/``.

    Without a folder ``train/``, all files are for training. The split folders may be inside one folder that
    holds everything, as in many zip files.
    """
    parts = [PurePosixPath(name).parts for name in names]
    common = os.path.commonpath([f"/{PurePosixPath(name).parent}" for name in names])
    for level in (0, len(PurePosixPath(common).parts) - 1):
        found: dict[str, list[str]] = {}
        for name, each in zip(names, parts, strict=True):
            folder = each[level] if len(each) > level + 1 else ""
            found.setdefault(_SPLITS.get(folder, ""), []).append(name)
        if "train" in found and "" in found:
            raise ValueError(
                f"{where}: has a folder train/ and files outside train/, test/ and validation/, such as "
                f"{found[''][0]}; give the folder to use."
            )
        if "train" in found:
            return found
    return {"train": list(names)}


def splits_by_file(names: Sequence[str], where: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Group files by the start of their names, as in ``data/test-00000-of-00001.parquet``, else by folder."""
    found: dict[str, list[str]] = {}
    for name in names:
        begin = re.match(r"[a-z]*", PurePosixPath(name).name)
        found.setdefault(_SPLITS.get(begin[0] if begin else "", ""), []).append(name)
    return splits_by_folder(names, where) if "" in found else found
