"""Locks of folders and files: one writer a run, and leftovers told from what is being written.

The kernel holds them (``flock``) and drops them when their process ends, however it ends, so that they are
right whatever became of process numbers and host names; these are written for people. On Windows, which has
none, nothing is locked.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "let_go", "lock_folder", "try_lock", "unlock_folder"]

#: Name of the file in a folder that is being written.
LOCK = ".lock"

#: Open files that this process has locked, and among them those of folders.
_HELD: set[int] = set()
_FOLDERS: dict[Path, int] = {}


def try_lock(handle: int) -> bool | None:
    """Lock an open file until :func:`let_go`, or this process ends.

    Returns:
        ``False`` when another process has locked it, ``None`` where there are no locks.
    """
    _HELD.add(handle)
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except BlockingIOError:
        return False
    except OSError:
        pass  # of a file system without locks
    return None


def let_go(handle: int) -> None:
    """Close a file, and so unlock it."""
    _HELD.discard(handle)
    os.close(handle)


def lock_folder(folder: Path) -> None:
    """Make this process the only writer of a folder, until :func:`unlock_folder` or its end.

    Raises:
        OSError: when the folder cannot be written.
        ValueError: when another process is writing there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    if folder in _FOLDERS or fcntl is None:
        return
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        writer = _writer(handle)
        if not _free(handle, writer):
            let_go(handle)
            raise ValueError(
                f"out: {folder} is being written by {_words(writer)}; wait for it or stop it, or choose "
                f"another folder (if it is gone, remove {path})."
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                break
        let_go(handle)  # its holder removed it meanwhile
    _FOLDERS[folder] = handle
    if writer:
        warnings.warn(f"{folder}: taken over from {_words(writer)}, which is gone.", stacklevel=4)
    now = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.strftime("%Y-%m-%d %H:%M:%S%z")}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(now).encode(), 0)


def unlock_folder(folder: Path) -> None:
    """Let other processes write in a folder."""
    folder = folder.resolve()
    handle = _FOLDERS.pop(folder, None)
    if handle is not None:
        (folder / LOCK).unlink(missing_ok=True)
        let_go(handle)


def _free(handle: int, writer: dict[str, Any]) -> bool:
    """Lock the file of a folder; without locks, believe the process that it names."""
    locked = try_lock(handle)
    if locked is not None or not writer:
        return locked is not False
    return writer.get("host") == socket.gethostname() and not _lives(writer.get("pid"))


def _lives(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, TypeError, ValueError):
        return False
    except OSError:
        return True  # of another user
    return True


def _writer(handle: int) -> dict[str, Any]:
    """Return what the file of a folder says of its writer: nothing if it is new or damaged."""
    with suppress(ValueError):
        found = json.loads(os.pread(handle, 1000, 0))
        return found if isinstance(found, dict) else {}
    return {}


def _words(writer: dict[str, Any]) -> str:
    pid, host, since = (str(writer.get(key, "?"))[:60] for key in ("pid", "host", "time"))
    return f"process {pid} on {host} since {since}"


def _forget() -> None:
    """Drop the locks that a forked child inherits: they are its parent's, and would outlive it."""
    for handle in _HELD:
        with suppress(OSError):
            os.close(handle)
    _HELD.clear()
    _FOLDERS.clear()


def _unlock_all() -> None:
    for folder in list(_FOLDERS):
        with suppress(OSError):
            unlock_folder(folder)


atexit.register(_unlock_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
