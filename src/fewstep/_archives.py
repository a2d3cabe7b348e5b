"""Zip files and arrays in them, whose declared sizes are checked before anything is unpacked."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Collection
from typing import Any, Protocol
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo, is_zipfile

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ._reading import excerpt, open_file

__all__ = [
    "array_names",
    "check_growth",
    "check_packed",
    "most_unpacked",
    "read_arrays",
    "read_exactly",
    "read_member",
]

#: Bytes that any file may unpack to, and times its own size beyond these: pictures, samples and weights do
#: not shrink so much (dSprites, black and white, 113 times), and files made to fill the memory do.
_FREE, _GROWTH = 1 << 29, 150

#: Bytes read at a time.
_PIECE = 1 << 22

#: Kinds of numpy's types that are data: truth, numbers and text, of at most 8 bytes a number.
_KINDS, _TEXT, _WIDEST = "biufUS", "US", 8


def most_unpacked(path: str | os.PathLike[str]) -> int:
    """Return the most bytes that a packed file may hold."""
    return max(_FREE, _GROWTH * os.stat(path).st_size)


def check_growth(size: int, path: str | os.PathLike[str]) -> None:
    """Raise a ``ValueError`` when a packed file claims to hold far more bytes than it has."""
    if size > most_unpacked(path):
        own = os.stat(path).st_size
        raise ValueError(
            f"it claims to hold {size:,} bytes in {own:,}, more than {_GROWTH} times as many; if it does, "
            "write it unpacked"
        )


def check_packed(path: str | os.PathLike[str]) -> None:
    """Raise a ``ValueError`` for a zip file, such as one of torch, that claims far more bytes than it has."""
    with open_file(path) as file:
        if is_zipfile(file):
            with ZipFile(file) as archive:
                check_growth(sum(member.file_size for member in archive.infolist()), path)


def read_member(archive: ZipFile, member: ZipInfo, most: int) -> bytes:
    """Return what a member of a zip file holds, unless it claims more than ``most`` bytes."""
    _check_packing(member)
    if member.file_size > most:
        raise BadZipFile(f"it claims {member.file_size:,} bytes, and may have {most:,}")
    with archive.open(member) as file:
        # With a size, as otherwise all that is packed is unpacked, whatever it claims.
        content = file.read(member.file_size)
        if len(content) < member.file_size or file.read(1):
            raise BadZipFile(f"it has other than the {member.file_size:,} bytes that it claims")
    return content


def array_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the arrays in an npz file."""
    with open_file(path) as file, ZipFile(file) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def read_arrays(path: str | os.PathLike[str], only: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays in an npz file, by name, in the byte order of this machine.

    Args:
        path: the file.
        only: names of those to read, where they are there; by default all, but those of other types than
            numbers of at most 64 bits and text, with a warning.

    Raises:
        Exception: of any kind on a damaged file, for :func:`fewstep._reading.reading`.
    """
    found = {}
    # Opened here, because zipfile leaves a damaged file open.
    with open_file(path) as file, ZipFile(file) as archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        if len(members) < len(archive.infolist()):
            raise ValueError("it has two arrays of one name")
        wanted = [name for name in members if only is None or name in only]
        check_growth(sum(members[name].file_size for name in wanted), path)
        for name in wanted:
            try:
                found[name] = _array(archive, members[name], name)
            except _OtherType as error:
                if only is not None:
                    raise
                warnings.warn(f"{path}: {error}; it is left out.", stacklevel=3)
    return found


class _OtherType(ValueError):
    """An array is neither of numbers nor of text."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes: ...


def read_exactly(file: Readable, size: int) -> NDArray[np.uint8]:
    """Return the rest of a stream, in pieces and never more than ``size`` bytes, which it must have."""
    content = np.empty(size, np.uint8)  # without touching the memory that is not filled
    at = 0
    while piece := file.read(min(_PIECE, size - at + 1)):
        if at + len(piece) > size:
            raise ValueError(f"it goes on after the {size:,} bytes that its header needs")
        content[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if at < size:
        raise EOFError(f"it ends after {at:,} of the {size:,} bytes that its header needs")
    return content


def _check_packing(member: ZipInfo) -> None:
    if member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # others unpack without bounds
        raise BadZipFile(f"{member.filename!r:.60} is packed in another way than deflate")


def _array(archive: ZipFile, member: ZipInfo, name: str) -> NDArray[Any]:
    _check_packing(member)
    with archive.open(member) as file:
        version = npy.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"array {excerpt(name, 60)!r} is of an unknown version {version}")
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns_first, dtype = header(file)
        if dtype.kind not in _KINDS or (dtype.kind not in _TEXT and dtype.itemsize > _WIDEST) or dtype.fields:
            raise _OtherType(
                f"array {excerpt(name, 60)!r} is of type {excerpt(str(dtype), 60)}, "
                "not of numbers of at most 64 bits or text"
            )
        size, there = math.prod(shape) * dtype.itemsize, member.file_size - file.tell()
        if size != there or min(shape, default=0) < 0:
            raise ValueError(
                f"array {excerpt(name, 60)!r} has {there:,} bytes, but its header claims {size:,}"
            )
        content = read_exactly(file, size)
    array = content.view(dtype) if size else np.empty(0, dtype)
    array = array.reshape(shape, order="F" if columns_first else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
