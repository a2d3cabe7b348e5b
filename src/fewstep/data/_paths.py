"""Data sets at a path, their kind recognised by file names."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._reading import excerpt, read_bytes
from ._arrays import SPRITE_SIZE, read_cifar_binary, read_idx, read_npz, read_sprites
from ._dataset import ArrayDataset, Dataset
from ._hub import table_from_parquet
from ._images import FolderRecords, ImageFiles, TableRecords, ZipRecords
from ._picture import ENCODED, Form, opened
from ._splits import pick, splits_by_file, splits_by_folder
from ._walk import walk

__all__ = ["from_array", "from_path"]

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

#: Files that others read as pictures.
_UNREAD = (".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2", ".jfif", ".tga", ".ppm", ".pgm")

#: File names of CIFAR-10 and of the MNIST family, with the groups ``split`` and ``number``.
_SPRITES = re.compile(r"(?P<split>train|test)_(?P<number>\d+)\.webp")
_CIFAR = re.compile(r"(?P<split>data|test)_batch(_(?P<number>\d+))?\.bin")
_IDX = re.compile(r"(?P<split>train|t10k)-images[-.]idx3-ubyte(\.gz)?")
_OF_NAME = {"data": "train", "t10k": "test"}


def from_path(path: Path, split: str, form: Form, name: str | None = None) -> Dataset:
    """Open a file or folder of one of the kinds listed at :func:`fewstep.data.load`."""
    name = name or path.resolve().name
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such file or folder.")
    if path.is_dir():
        return _from_folder(path, split, name, form)
    suffixes = path.name.lower()
    if suffixes.endswith(".npz"):
        return from_array(read_npz(path, split), name, form)
    if suffixes.endswith(".zip"):
        return _from_zip(path, split, name, form)
    only = pick({"train": [path]}, split, path)
    if suffixes.endswith(".parquet"):
        return ImageFiles(TableRecords(table_from_parquet(only), str(path)), name, form)
    if suffixes.endswith(".bin"):
        return from_array(read_cifar_binary(only), name, form)
    if suffixes.endswith((".gz", "ubyte", ".idx")):
        return from_array(read_idx(path), name, form)
    raise ValueError(
        f"{path}: is of no known kind; give a folder, or a file of npz, idx (.gz), zip, parquet, "
        "or CIFAR-10's .bin."
    )


def from_array(x: NDArray[Any], name: str, form: Form) -> Dataset:
    """Return samples in memory: 8-bit images are converted to the form, other data must have it already."""
    if x.dtype == np.uint8:
        x = form.of_all(x, name)
    elif not form.admits(x.shape[1:]):
        raise ValueError(
            f"{name}: only 8-bit images can be resized or converted, not samples of type {x.dtype} and "
            f"shape {x.shape[1:]}; leave resolution and channels out."
        )
    return ArrayDataset(torch.from_numpy(x), name)


def _from_folder(root: Path, split: str, name: str, form: Form) -> Dataset:
    names = walk(root)
    here = [each for each in names if "/" not in each]
    readers: list[tuple[re.Pattern[str], Callable[[Sequence[Path]], NDArray[np.uint8]]]] = [
        (_SPRITES, read_sprites),
        (_CIFAR, read_cifar_binary),
        (_IDX, lambda paths: read_idx(paths[0])),
    ]
    for pattern, read in readers:
        splits = _numbered(here, pattern, root)
        if splits and (pattern is not _SPRITES or _is_sprite(root / next(iter(splits.values()))[0])):
            paths = [root / each for each in pick(splits, split, root)]
            return from_array(read(paths), name, form)

    pictures = [each for each in names if each.lower().endswith(_PICTURES)]
    tables = [each for each in names if each.lower().endswith(".parquet")]
    if pictures and tables:
        raise ValueError(f"{root}: holds both images and parquet files; give the path of one of them.")
    if pictures or (not tables and any(each.lower().endswith(_UNREAD) for each in names)):
        return ImageFiles(FolderRecords(root, _chosen(names, split, root)), name, form)
    if tables:
        table = table_from_parquet([root / each for each in pick(splits_by_file(tables, root), split, root)])
        return ImageFiles(TableRecords(table, str(root)), name, form)
    raise ValueError(
        f"{root}: holds no pictures ({', '.join(_PICTURES)}), parquet files, idx files "
        "(train-images-idx3-ubyte), or CIFAR-10 (data_batch_1.bin, train_00.webp)."
    )


def _from_zip(path: Path, split: str, name: str, form: Form) -> Dataset:
    records = ZipRecords(path)
    records.names = _chosen(records.names, split, path)
    return ImageFiles(records, name, form)


def _chosen(names: Sequence[str], split: str, where: Path) -> list[str]:
    """Return the pictures of a split, with a note on files that look like pictures and are not read."""
    unread = [each for each in names if each.lower().endswith(_UNREAD)]
    which = (
        f"{len(unread)} files such as {excerpt(unread[0], 100)}"
        if len(unread) > 1
        else excerpt("".join(unread), 100)
    )
    pictures = [each for each in names if each.lower().endswith(_PICTURES)]
    if unread and pictures:
        warnings.warn(
            f"{where}: pictures are {', '.join(_PICTURES)} files, so {which} will not be read; convert what "
            "belongs to the data.",
            stacklevel=5,
        )
    if not pictures:
        instead = f", only {which}; convert them" if unread else ""
        raise ValueError(f"{where}: holds no pictures ({', '.join(_PICTURES)}){instead}.")
    return pick(splits_by_folder(pictures, where), split, where)


def _numbered(names: Sequence[str], pattern: re.Pattern[str], root: Path) -> dict[str, list[str]]:
    """Return the files of a numbered series by split, in order; raise if a number is missing."""
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            split = _OF_NAME.get(match["split"], match["split"])
            number = int(match.groupdict().get("number") or 0)
            # train-images-idx3-ubyte sorts before its .gz and is used.
            found.setdefault(split, {}).setdefault(number, name)
    for split, series in found.items():
        missing = set(range(min(series), max(series) + 1)) - series.keys()
        if missing:
            raise ValueError(f"{root}: number {min(missing)} of the {split} files is missing.")
    return {split: [found[split][k] for k in sorted(found[split])] for split in sorted(found, reverse=True)}


def _is_sprite(path: Path) -> bool:
    """True for an image of a sprite's size; single images may be called ``train_00.webp``, too."""
    try:
        return opened(read_bytes(path, ENCODED)).size == SPRITE_SIZE
    except Exception:  # of Pillow, of every kind; who reads the file will say it
        return False
