"""Training, test and validation splits from file and folder names."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import TypeVar

from .._reading import excerpt

__all__ = ["pick", "splits_by_file", "splits_by_folder"]

T = TypeVar("T")

#: The words for splits, in names of folders and at the start of those of files: ``train``, ``Training-Set``.
_WORDS = (
    ("train", re.compile(r"train(ing)?[-_ ]?(set)?", re.IGNORECASE)),
    ("test", re.compile(r"test(ing)?[-_ ]?(set)?", re.IGNORECASE)),
    ("validation", re.compile(r"val(id|idation)?[-_ ]?(set)?", re.IGNORECASE)),
)


def pick(splits: Mapping[str, T], split: str, where: str | os.PathLike[str]) -> T:
    """Return the requested split, or raise and name those that exist."""
    if split not in splits:
        raise ValueError(f"{where}: has no split {split!r}, only {' and '.join(map(repr, splits))}.")
    return splits[split]


def splits_by_folder(names: Sequence[str], where: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Group files, relative names with slashes, by their folder: ``train/``, ``test/``, ``validation/``.

    Names such as ``Training/``, ``testset/`` and ``val/`` mean the same. Without a folder ``train/``, all
    files are for training. The split folders may be inside one folder that holds everything, as in many zip
    files.
    """
    parts = [[part for part in name.split("/") if part not in ("", ".")] for name in names]
    # The folders that the first and the last in order have in common, all have.
    same = [one == other for one, other in zip(min(parts)[:-1], max(parts)[:-1], strict=False)]
    for level in (0, [*same, False].index(False)):
        found: dict[str, list[str]] = {}
        for name, each in zip(names, parts, strict=True):
            folder = each[level] if len(each) > level + 1 else ""
            found.setdefault(_split(folder), []).append(name)
        if "train" in found and "" in found:
            raise ValueError(
                f"{where}: has a folder train/ and files outside train/, test/ and validation/, such as "
                f"{excerpt(found[''][0], 100)}; give the folder to use."
            )
        if "train" in found:
            return found
    return {"train": list(names)}


@lru_cache(1024)
def _split(word: str) -> str:
    """Return the split that a word means, or an empty one."""
    return next((split for split, pattern in _WORDS if pattern.fullmatch(word)), "")


def splits_by_file(names: Sequence[str], where: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Group files by the start of their names, as in ``data/test-00000-of-00001.parquet``, else by folder."""
    found: dict[str, list[str]] = {}
    for name in names:
        begin = re.match(r"[A-Za-z]*", PurePosixPath(name).name)
        found.setdefault(_split(begin[0] if begin else ""), []).append(name)
    return splits_by_folder(names, where) if "" in found else found
