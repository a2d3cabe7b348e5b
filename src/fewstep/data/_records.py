"""Sources of encoded images: folders, zip files and tables."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

__all__ = ["FolderRecords", "Records", "TableRecords", "ZipRecords"]


class Records(Protocol):
    """Numbered encoded images; picklable, for the workers of a data loader."""

    def __len__(self) -> int: ...

    def where(self, index: int) -> str:
        """Return the location of an image, for messages."""

    def read(self, index: int) -> bytes:
        """Return an encoded image, or raise ``OSError`` or ``ValueError``."""

    def inventory(self) -> Sequence[str]:
        """Return facts about all images that need no reading, for the fingerprint."""


class FolderRecords:
    """Files below ``root``, by relative name."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, names

    def __len__(self) -> int:
        return len(self.names)

    def where(self, index: int) -> str:
        return str(self.root / self.names[index])

    def read(self, index: int) -> bytes:
        return (self.root / self.names[index]).read_bytes()

    def inventory(self) -> Sequence[str]:
        return [f"{name} {(self.root / name).stat().st_size}" for name in self.names]


class ZipRecords:
    """Members of a zip file, which every process opens separately."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self.path, self.names = path, names
        self._opened: tuple[int, zipfile.ZipFile] | None = None

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
        return f"{self.path}, member {self.names[index]}"

    def read(self, index: int) -> bytes:
        try:
            return self._archive.read(self.names[index])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ValueError(str(error)) from error  # damaged, encrypted, or packed in an unknown way

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
        if not record or (record["bytes"] is None and record["path"] is None):
            raise ValueError("the row is empty")
        return record["bytes"] if record["bytes"] is not None else Path(record["path"]).read_bytes()

    def inventory(self) -> Sequence[str]:
        return [str(len(self))]
