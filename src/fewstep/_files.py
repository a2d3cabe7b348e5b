"""Atomic writing of files: a reader never finds half of one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["replacing", "write_safetensors", "write_text"]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it is renamed to ``path`` on success, else removed."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # the rename would keep mkstemp's 0600
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors with string metadata, atomically.

    Raises:
        OSError: when the file cannot be written, on a full disk for instance.
    """
    with replacing(path) as temporary:
        try:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, dict(metadata))
        except SafetensorError as error:
            raise OSError(f"{path}: could not be written ({error}).") from error
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # without it, a power cut may leave an empty file under this name
