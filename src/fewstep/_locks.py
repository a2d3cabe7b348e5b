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
import stat
import threading
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
LOCK = ".fewstep.lock"

#: Open files that this process has locked, among them those of folders, and the folders it is writing in.
_HELD: set[int] = set()
_FOLDERS: dict[Path, int] = {}
_WRITING: set[Path] = set()
_THREADS = threading.RLock()

#: How the file of a folder is opened: never another file by a link, and without waiting for a pipe.
_OPEN = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


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


def lock_folder(folder: Path, writing: bool = False) -> None:
    """Make this process the only writer of a folder, until :func:`unlock_folder` or its end.

    Args:
        folder: the folder, which is made.
        writing: from now on, so that no other part of this process may.

    Raises:
        OSError: when the folder cannot be written.
        ValueError: when something else is writing there, or its lock is a file of another program.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    with _THREADS:
        if writing and folder in _WRITING:
            raise ValueError(
                f"out: {folder} is being written by this process already; wait for that, or choose another "
                "folder."
            )
        if folder not in _FOLDERS and fcntl is not None:
            _FOLDERS[folder] = _locked(folder)
        if writing:
            _WRITING.add(folder)


def _locked(folder: Path) -> int:
    """Lock the file of a folder, and write this process into it."""
    path = folder / LOCK
    while True:
        handle = _opened(path)
        writer = _writer(handle)
        if writer is None:
            let_go(handle)
            raise ValueError(f"out: {path} is of another program; remove it, or choose another folder.")
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
    if writer:
        warnings.warn(f"{folder}: taken over from {_words(writer)}, which is gone.", stacklevel=5)
    now = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.strftime("%Y-%m-%d %H:%M:%S%z")}
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(now).encode(), 0)
    return handle


def _opened(path: Path) -> int:
    try:
        return os.open(path, _OPEN, 0o666)
    except OSError:
        if not (path.is_symlink() or path.is_dir()):
            raise
    raise ValueError(f"out: {path} is of another program; remove it, or choose another folder.")


def unlock_folder(folder: Path) -> None:
    """Let other processes write in a folder."""
    folder = folder.resolve()
    with _THREADS:
        _WRITING.discard(folder)
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


def _writer(handle: int) -> dict[str, Any] | None:
    """Return what the file of a folder says of its writer: nothing if new, ``None`` if it is not ours."""
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        return None
    content = os.pread(handle, 1000, 0)
    if not content:
        return {}
    with suppress(ValueError, RecursionError):
        found = json.loads(content)
        kinds = {"host": str, "pid": int, "time": str}
        if isinstance(found, dict) and {key: type(value) for key, value in found.items()} == kinds:
            return found if f"{found['host']}{found['time']}".isprintable() else None
    return None


def _words(writer: dict[str, Any]) -> str:
    return f"process {writer['pid']} on {writer['host']:.60} since {writer['time']:.60}"


def _forget() -> None:
    """Drop the locks that a forked child inherits: they are its parent's, and would outlive it."""
    for handle in _HELD:
        with suppress(OSError):
            os.close(handle)
    for kept in (_HELD, _FOLDERS, _WRITING):
        kept.clear()


def _unlock_all() -> None:
    for folder in list(_FOLDERS):
        with suppress(OSError):
            unlock_folder(folder)


atexit.register(_unlock_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
