"""Data at a path: what a file or folder is, told from its names."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .._extras import require
from ._arrays import SPRITE_SIZE, read_cifar_binary, read_idx, read_npz, read_sprites
from ._dataset import ArrayDataset, Dataset
from ._hub import table_from_parquet
from ._images import ImageFiles
from ._picture import Form
from ._records import FolderRecords, TableRecords, ZipRecords
from ._splits import pick, splits_by_file, splits_by_folder

__all__ = ["from_array", "from_path"]

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")

#: Files by name that make up pictures of CIFAR-10 and of the MNIST family: ``(split, number)`` in groups.
_SPRITES = re.compile(r"(?P<split>train|test)_(?P<number>\d+)\.webp")
_CIFAR = re.compile(r"(?P<split>data|test)_batch(_(?P<number>\d+))?\.bin")
_IDX = re.compile(r"(?P<split>train|t10k)-images[-.]idx3-ubyte(\.gz)?")
_OF_NAME = {"data": "train", "t10k": "test"}


def from_path(path: Path, split: str, form: Form, name: str | None = None) -> Dataset:
    """Open a file or folder; :func:`fewstep.data.load` says which kinds there are.

    Raises:
        FileNotFoundError: when there is nothing at ``path``.
        ValueError: when it is of no known kind, is damaged, or lacks the split.
    """
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
        table = table_from_parquet(only)
        return ImageFiles(TableRecords(table, str(path)), name, form)
    if suffixes.endswith(".bin"):
        return from_array(read_cifar_binary(only), name, form)
    if suffixes.endswith((".gz", "ubyte", ".idx")):
        return from_array(read_idx(path), name, form)
    raise ValueError(
        f"{path}: is of no known kind; give a folder, or a file of npz, idx (.gz), zip, parquet, "
        "or CIFAR-10's .bin."
    )


def from_array(x: NDArray[Any], name: str, form: Form) -> Dataset:
    """Samples in memory: 8-bit pictures are given the form, other data must have it already."""
    if x.dtype == np.uint8:
        return ArrayDataset(torch.from_numpy(form.of_all(x, name)), name)
    if not form.admits(x.shape[1:]):
        raise ValueError(
            f"{name}: only 8-bit pictures can be resized or converted, and these samples are {x.dtype} of "
            f"shape {x.shape[1:]}; leave resolution and channels out."
        )
    return ArrayDataset(torch.from_numpy(x), name)


def _from_folder(root: Path, split: str, name: str, form: Form) -> Dataset:
    names = _walk(root)
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
        raise ValueError(f"{root}: holds both pictures and parquet files; give the one folder or file meant.")
    if pictures:
        chosen = pick(splits_by_folder(pictures, root), split, root)
        return ImageFiles(FolderRecords(root, chosen), name, form)
    if tables:
        table = table_from_parquet([root / each for each in pick(splits_by_file(tables, root), split, root)])
        return ImageFiles(TableRecords(table, str(root)), name, form)
    raise ValueError(
        f"{root}: holds no pictures ({', '.join(_PICTURES)}), parquet files, idx files "
        "(train-images-idx3-ubyte), or CIFAR-10 (data_batch_1.bin, train_00.webp)."
    )


def _from_zip(path: Path, split: str, name: str, form: Form) -> Dataset:
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(each for each in archive.namelist() if _visible(each))
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(f"{path}: cannot be read as a zip file ({error}).") from error
    pictures = [each for each in names if each.lower().endswith(_PICTURES)]
    if not pictures:
        raise ValueError(f"{path}: holds no pictures ({', '.join(_PICTURES)}).")
    chosen = pick(splits_by_folder(pictures, path), split, path)
    return ImageFiles(ZipRecords(path, chosen), name, form)


def _walk(root: Path) -> list[str]:
    """Names of all files below a folder, relative, with slashes, sorted."""
    found = (
        Path(folder, file).relative_to(root).as_posix()
        for folder, _, files in os.walk(root, followlinks=True)
        for file in files
    )
    return sorted(name for name in found if _visible(name))


def _visible(name: str) -> bool:
    """Neither hidden nor one of the shadows that macOS puts beside the files of a zip."""
    return not any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _numbered(names: Sequence[str], pattern: re.Pattern[str], root: Path) -> dict[str, list[str]]:
    """Files of a numbered series by split, in the order of their numbers.

    Raises:
        ValueError: when a number is missing.
    """
    found: dict[str, dict[int, str]] = {}
    for name in names:
        if match := pattern.fullmatch(name):
            split = match["split"]
            number = int(match.groupdict().get("number") or 0)
            # Of train-images-idx3-ubyte and its .gz, the unpacked one sorts first and is taken.
            found.setdefault(_OF_NAME.get(split, split), {}).setdefault(number, name)
    for split, series in found.items():
        missing = set(range(min(series), max(series) + 1)) - series.keys()
        if missing:
            raise ValueError(f"{root}: of its {split} files, number {min(missing)} is missing.")
    return {
        split: [series[k] for k in sorted(series)] for split, series in sorted(found.items(), reverse=True)
    }


def _is_sprite(path: Path) -> bool:
    """Whether a picture has the size of a sprite; pictures may be called ``train_00.webp``, too."""
    Image = require("PIL.Image", "data")
    try:
        with Image.open(path) as image:
            return bool(image.size == SPRITE_SIZE)
    except (OSError, SyntaxError):
        return False
