"""Atomic writing of files: a reader never finds half of one."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ._locks import let_go, lock_folder, try_lock, unlock_folder

__all__ = [
    "check_room", "only_writer", "plain_name", "replacing", "room_told", "sweep", "write_safetensors",
    "write_text",
]  # fmt: skip

#: How the names of temporary files begin, and what they are.
_PART = ".fewstep-"
_PARTS = re.compile(r"\.fewstep-[0-9a-f]{8}-.+", re.DOTALL)

#: Errors of a full disk, a used-up quota and a limit on file sizes.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def replacing(path: str | os.PathLike[str], size: int | None = None) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it is renamed to ``path`` on success, else removed.

    Args:
        path: the file.
        size: its bytes, if known, for the message of a full disk.

    Raises:
        OSError: when it cannot be written; of a full disk, with the bytes needed and left.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with room_told(target, size), _temporary(target) as temporary:
        yield temporary
        os.replace(temporary, target)


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """Make a temporary file, locked as long as its writer lives, with the permissions of any new file."""
    while True:
        temporary = target.with_name(f"{_PART}{secrets.token_hex(4)}-{target.name[-32:]}")  # with the suffix
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if try_lock(handle) is not False and temporary.exists():
            break
        let_go(handle)  # a sweep has come in between
    process, windows = os.getpid(), os.name == "nt"  # which has no locks, and renames no open files
    if windows:
        let_go(handle)
    try:
        yield temporary
    finally:
        if os.getpid() == process:  # else it is a fork, and the file its parent's
            temporary.unlink(missing_ok=True)
            if not windows:
                let_go(handle)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Let nobody else write in a folder, without what killed writers have left there.

    Raises:
        OSError: when the folder cannot be written.
        ValueError: when something else is writing there.
    """
    lock_folder(folder, writing=True)
    try:
        sweep(folder)
        yield
    finally:
        unlock_folder(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary files below a folder whose writers were killed."""
    for path in folder.rglob(f"{_PART}*"):
        if not (_PARTS.fullmatch(path.name) and path.is_file() and not path.is_symlink()):
            continue
        with suppress(OSError):
            handle = os.open(path, os.O_RDWR)
            if try_lock(handle):
                path.unlink()
            let_go(handle)


@contextmanager
def room_told(path: Path, size: int | None = None) -> Iterator[None]:
    """Give errors of a full disk the name of the file, the bytes that it needs and those that are left."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        needed = "more" if size is None else f"{size:,} bytes"
        raise OSError(
            f"{path}: cannot be written ({error.strerror}): it needs {needed}, and the disk has {free:,} "
            "bytes left; free some space, or choose another folder."
        ) from error


def check_room(folder: Path, needed: int, what: str, advice: str) -> None:
    """Raise ``OSError`` unless a folder has room for so many bytes of ``what``."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder}: {what} need {needed:,} bytes, but the disk has {free:,} bytes left; free some space, "
            f"or {advice}."
        )


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    content = text.encode()
    with replacing(path, len(content)) as temporary:
        temporary.write_bytes(content)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors with string metadata, atomically, and byte for byte the same each time.

    Tensors that share memory (tied weights, views) are written as copies.

    Raises:
        OSError: when the file cannot be written, on a full disk for instance.
    """
    content = _apart({name: x.detach() for name, x in tensors.items()})
    size = sum(x.numel() * x.element_size() for x in content.values())
    with replacing(path, size) as temporary:
        try:
            save_file(content, temporary, dict(metadata))
        except SafetensorError as error:
            for number in _FULL:  # which safetensors puts in words alone
                if os.strerror(number) in str(error):
                    raise OSError(number, os.strerror(number)) from error
            raise OSError(f"{path}: could not be written ({error}).") from error
        _sort_metadata(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # without it, a power cut may leave an empty file under this name


def plain_name(name: str) -> str:
    """Return the name of a tensor in the network that ``torch.compile`` wrapped."""
    return name.replace("_orig_mod.", "")


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous tensors without shared memory, which the format cannot express."""
    found: dict[str, Tensor] = {}
    seen = set()
    for name, x in tensors.items():
        x = x.contiguous()
        place = x.device, x.untyped_storage().data_ptr()
        found[name] = x.clone() if place in seen else x
        seen.add(place)
    return found


def _sort_metadata(path: Path) -> None:
    """Sort the metadata, which safetensors writes in the order of a hash map, another one each time."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        file.seek(8)
        file.write(text.ljust(size))  # as long as it was, or padded
