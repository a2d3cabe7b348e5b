"""Images from array files: npz, idx, and CIFAR-10's binary files and sprites."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._archives import array_names, check_growth, read_arrays, read_exactly
from .._reading import check_regular, excerpt, open_file, read_bytes, reading
from ._picture import ENCODED, decode
from ._splits import pick

__all__ = ["SPRITE_SIZE", "read_cifar_binary", "read_idx", "read_npz", "read_sprites"]

#: A sprite holds 25 rows of 40 images of 32 x 32; its width and height.
_ROWS, _COLUMNS, _SIDE = 25, 40, 32
SPRITE_SIZE = (_COLUMNS * _SIDE, _ROWS * _SIDE)

#: Bytes per record of CIFAR-10's binary version: a label, then 32 x 32 levels each of R, G and B.
_CIFAR_RECORD = 1 + 3 * _SIDE**2


def read_npz(path: Path, split: str) -> NDArray[Any]:
    """Read a split of an npz file, uint8 ``(N, C, H, W)`` or floats; see :func:`fewstep.data.load`."""
    with reading(path, "npz file", "numpy.savez"):
        key = pick(_keys(array_names(path), path), split, path)
        x = read_arrays(path, (key,))[key]
    where = f"{path}, array {excerpt(key, 60)!r}"
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
        f"{path}: holds the arrays {excerpt(', '.join(names), 100) or '(none)'}; "
        "name the pictures x_train and x_test, or images, data or arr_0."
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Read an idx file of images, optionally gzipped, in the format of MNIST, as uint8 ``(N, 1, H, W)``.

    The header is 0, 0, the type (8 for uint8), the number of axes (3), and their lengths, big-endian.
    """
    packed = path.suffix == ".gz"
    with reading(path, "idx file of images"):
        with open_file(path) as whole, gzip.open(whole) if packed else whole as file:
            head = file.read(16)
            if head[:4] != bytes([0, 0, 8, 3]):
                raise ValueError(
                    f"{path}: is not an idx file of images; it begins with {head[:4].hex(' ')}, not with "
                    "00 00 08 03 (bytes, three axes)."
                )
            if len(head) < 16:
                raise ValueError(f"{path}: has {len(head)} bytes, and no complete header; download it again.")
            lengths = struct.unpack(">3I", head[4:])
            size = math.prod(lengths)
            if packed:
                check_growth(size, path)
            elif (there := path.stat().st_size) != 16 + size:
                raise ValueError(
                    f"{path}: has {there} bytes, but its header needs {16 + size}; download it again."
                )
            content = read_exactly(file, size)
    return content.reshape(lengths)[:, None]


def read_cifar_binary(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Read CIFAR-10's *binary version* (Krizhevsky 2009), ``data_batch_1.bin`` and so on."""
    batches = []
    for path in paths:
        with reading(path, "file of CIFAR-10's binary version"):
            check_regular(path)
            size = path.stat().st_size
            content = np.fromfile(path, np.uint8, size - size % _CIFAR_RECORD)
        if size == 0 or size % _CIFAR_RECORD or (content[::_CIFAR_RECORD] > 9).any():
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
        with reading(path, "sprite of CIFAR-10"):
            image = decode(read_bytes(path, ENCODED), str(path))
        if image.size != SPRITE_SIZE or image.mode != "RGB":
            raise ValueError(
                f"{path}: a CIFAR-10 sprite must be {SPRITE_SIZE[0]} x {SPRITE_SIZE[1]} in RGB, "
                f"not {image.width} x {image.height} in {image.mode}."
            )
        tiles = np.asarray(image).reshape(_ROWS, _SIDE, _COLUMNS, _SIDE, 3)
        sheet[:] = tiles.transpose(0, 2, 4, 1, 3)
    return x.reshape(-1, 3, _SIDE, _SIDE)
