"""Images from array files: npz, idx, and CIFAR-10's binary files and sprites."""

from __future__ import annotations

import gzip
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._picture import decode
from ._splits import pick

__all__ = ["SPRITE_SIZE", "read_cifar_binary", "read_idx", "read_npz", "read_sprites"]

#: A sprite holds 25 rows of 40 images of 32 x 32; its width and height.
_ROWS, _COLUMNS, _SIDE = 25, 40, 32
SPRITE_SIZE = (_COLUMNS * _SIDE, _ROWS * _SIDE)

#: Bytes per record of CIFAR-10's binary version: a label, then 32 x 32 levels each of R, G and B.
_CIFAR_RECORD = 1 + 3 * _SIDE**2

#: Exceptions that readers raise on a damaged archive.
_DAMAGE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile)


def read_npz(path: Path, split: str) -> NDArray[Any]:
    """Read a split of an npz file, uint8 ``(N, C, H, W)`` or floats; see :func:`fewstep.data.load`."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: is not a complete npz file; make or download it again.")
    with np.load(path, allow_pickle=False) as archive:
        key = pick(_keys(archive.files, path), split, path)
        try:
            x: NDArray[Any] = archive[key]
        except _DAMAGE as error:
            raise ValueError(f"{path}, array {key!r}: cannot be read ({error}).") from error
    where = f"{path}, array {key!r}"
    if np.issubdtype(x.dtype, np.floating):
        return x
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise ValueError(
            f"{where}: must be uint8 (N, H, W), (N, H, W, C) or (N, C, H, W), or floating-point, "
            f"not {x.dtype} of shape {x.shape}."
        )
    if x.ndim == 3:
        return x[:, None]
    if x.shape[3] in (1, 3, 4):
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.shape[1] in (1, 3, 4):
        return x
    raise ValueError(f"{where}: no axis of its shape {x.shape} can be the 1, 3 or 4 channels.")


def _keys(names: Sequence[str], path: Path) -> dict[str, str]:
    """Return the key of each split."""
    if "x_train" in names or "x_test" in names:
        return {split: f"x_{split}" for split in ("train", "test") if f"x_{split}" in names}
    known = [key for key in ("images", "data", "arr_0") if key in names] or names
    if len(known) == 1 or known is not names:
        return {"train": known[0]}
    raise ValueError(
        f"{path}: holds the arrays {', '.join(names) or '(none)'}; "
        "name the pictures x_train and x_test, or images, data or arr_0."
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of images, optionally gzipped, in the format of MNIST, as uint8 ``(N, 1, H, W)``.

    The header is 0, 0, the type (8 for uint8), the number of axes (3), and their lengths, big-endian.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except _DAMAGE as error:
        raise ValueError(f"{path}: cannot be read ({error}).") from error
    if content[:4] != bytes([0, 0, 8, 3]):
        raise ValueError(
            f"{path}: is not an idx file of images; it begins with {content[:4].hex(' ')}, not with "
            "00 00 08 03 (bytes, three axes)."
        )
    lengths = struct.unpack(">3I", content[4:16].ljust(12, b"\0"))
    if len(content) != 16 + math.prod(lengths):
        raise ValueError(
            f"{path}: has {len(content)} bytes, but its header needs {16 + math.prod(lengths)}; "
            "download it again."
        )
    return np.frombuffer(bytearray(content), np.uint8, offset=16).reshape(lengths)[:, None]


def read_cifar_binary(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Read CIFAR-10's *binary version* (Krizhevsky 2009), ``data_batch_1.bin`` and so on."""
    batches = []
    for path in paths:
        content = np.fromfile(path, np.uint8)
        if content.size == 0 or content.size % _CIFAR_RECORD or (content[::_CIFAR_RECORD] > 9).any():
            raise ValueError(
                f"{path}: is not a complete file of CIFAR-10's binary version, which holds records of "
                f"{_CIFAR_RECORD} bytes that begin with a label of 0 to 9."
            )
        batches.append(content.reshape(-1, _CIFAR_RECORD)[:, 1:].reshape(-1, 3, _SIDE, _SIDE))
    return np.concatenate(batches)


def read_sprites(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Read CIFAR-10 from sprites: image ``i`` of a file is in row ``i // 40``, column ``i % 40``."""
    x = np.empty((len(paths), _ROWS, _COLUMNS, 3, _SIDE, _SIDE), np.uint8)
    for sheet, path in zip(x, paths, strict=True):
        image = decode(path.read_bytes(), str(path))
        if image.size != SPRITE_SIZE or image.mode != "RGB":
            raise ValueError(
                f"{path}: a CIFAR-10 sprite must be {SPRITE_SIZE[0]} x {SPRITE_SIZE[1]} in RGB, "
                f"not {image.width} x {image.height} in {image.mode}."
            )
        tiles = np.asarray(image).reshape(_ROWS, _SIDE, _COLUMNS, _SIDE, 3)
        sheet[:] = tiles.transpose(0, 2, 4, 1, 3)
    return x.reshape(-1, 3, _SIDE, _SIDE)
