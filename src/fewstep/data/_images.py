"""Images in folders, zip files and tables, decoded on access."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._archives import read_member
from .._hashing import fingerprint
from .._reading import check_regular, excerpt, printable, read_bytes, reading
from ._dataset import Dataset
from ._picture import ENCODED, Form, decode, pixels
from ._walk import visible

__all__ = ["FolderRecords", "ImageFiles", "TableRecords", "ZipRecords"]

#: Number of images that a fingerprint reads.
_HASHED = 16


class Records(Protocol):
    """Numbered encoded images; picklable, for the workers of a data loader."""

    def __len__(self) -> int: ...

    def where(self, index: int) -> str:
        """Return the location of an image, for messages."""

    def read(self, index: int) -> bytes:
        """Return an encoded image, or raise an exception of any kind."""

    def inventory(self) -> Sequence[str]:
        """Return facts about all images that need no reading, for the fingerprint."""


class FolderRecords:
    """Files below ``root``, by relative name."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def where(self, index: int) -> str:
        return printable(str(self.root / self.names[index]))

    def read(self, index: int) -> bytes:
        return read_bytes(self.root / self.names[index], ENCODED)

    def inventory(self) -> Sequence[str]:
        return [f"{name} {(self.root / name).stat().st_size}" for name in self.names]


class ZipRecords:
    """Members of a zip file, at first all that are visible; every process opens it separately."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: tuple[int, zipfile.ZipFile] | None = None
        with reading(path, "zip file of pictures"):
            check_regular(path)
            self.names = sorted({name for name in self._archive.namelist() if visible(name)})

    def __len__(self) -> int:
        return len(self.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_opened": None}

    @property
    def _archive(self) -> zipfile.ZipFile:
        # A forked worker inherits the handle, whose file position all workers share.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), zipfile.ZipFile(self.path)
        return self._opened[1]

    def where(self, index: int) -> str:
        return f"{self.path}, member {excerpt(self.names[index], 100)}"

    def read(self, index: int) -> bytes:
        return read_member(self._archive, self._archive.getinfo(self.names[index]), ENCODED)

    def inventory(self) -> Sequence[str]:
        return [f"{name} {self._archive.getinfo(name).CRC}" for name in self.names]


class TableRecords:
    """A ``{bytes, path}`` column of a memory-mapped ``datasets.Dataset``."""

    def __init__(self, table: Any, label: str) -> None:
        self.table, self.label = table, label

    def __len__(self) -> int:
        return len(self.table)

    def where(self, index: int) -> str:
        return f"{self.label}, row {index}"

    def read(self, index: int) -> bytes:
        record = next(iter(self.table[index].values()))
        # A path there would be of a file on this machine, which whoever made the table may not choose.
        data = record and record["bytes"]
        if not isinstance(data, bytes) or len(data) > ENCODED:
            raise ValueError(f"the row must have the bytes of a picture, at most {ENCODED:,}")
        return data

    def inventory(self) -> Sequence[str]:
        return [str(len(self))]


class ImageFiles(Dataset):
    """Encoded images, converted to a form.

    The first is read in the constructor; all others must match its size and channels. The object can be
    pickled and read in the worker processes of a data loader.
    """

    def __init__(self, records: Records, name: str, form: Form) -> None:
        self.name = name
        self._records, self._form = records, form
        self.shape = self._read(0).shape

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> Tensor:
        numbers = [int(index) for index in indices]
        batch = np.empty((len(numbers), *self.shape), np.uint8)
        for row, index in zip(batch, numbers, strict=True):
            picture = self._read(index)
            if picture.shape != self.shape:
                raise ValueError(
                    f"{self._records.where(index)}: a picture of {_describe(picture.shape)}, but the first, "
                    f"{self._records.where(0)}, has {_describe(self.shape)}; "
                    "give load() a resolution and channels to make them alike."
                )
            row[:] = picture
        return torch.from_numpy(batch)

    def _read(self, index: int) -> NDArray[np.uint8]:
        return pixels(self._form.of(decode(self._encoded(index), self._records.where(index))))

    def _encoded(self, index: int) -> bytes:
        with reading(self._records.where(index), "picture"):
            return self._records.read(index)

    def fingerprint(self) -> str:
        some = range(0, len(self), max(1, len(self) // _HASHED))
        contents = [self._encoded(index) for index in some]
        return fingerprint([self.shape, "\n".join(self._records.inventory()), contents])


def _describe(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels and {channels} channel{'s' if channels > 1 else ''}"
