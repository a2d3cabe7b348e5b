"""The files below a folder, through links."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from .._reading import excerpt

__all__ = ["visible", "walk"]


def walk(root: Path) -> list[str]:
    """Return the sorted relative names of all visible files below a folder, with slashes.

    Links are followed. A folder is read once, at its own place if it has one below ``root``: links may lead
    back to where they are.

    Raises:
        ValueError: when a link leads nowhere.
        OSError: when a folder cannot be read.
    """
    names: list[str] = []
    dangling: list[str] = []
    again: list[str] = []
    seen: set[tuple[int, int]] = set()
    linked: list[str] = []
    waiting = [""]
    while waiting or linked:
        folder = waiting.pop() if waiting else linked.pop(0)
        status = os.stat(root / folder)
        if (status.st_dev, status.st_ino) in seen:
            again.append(folder)
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(root / folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = f"{folder}/{entry.name}" if folder else entry.name
                if not visible(name):
                    continue
                if entry.is_symlink() and not _leads_somewhere(entry):
                    dangling.append(name)
                elif not entry.is_dir():
                    names.append(name)
                elif entry.is_symlink():
                    linked.append(name)
                else:
                    waiting.append(name)
    if dangling:
        more = f" (and {len(dangling) - 1} more)" if len(dangling) > 1 else ""
        target = os.readlink(root / dangling[0])
        raise ValueError(
            f"{root}: {excerpt(dangling[0])}{more} is a link to {excerpt(target)}, which is not there; "
            "mend or remove it."
        )
    if again:
        warnings.warn(
            f"{root}: {excerpt(', '.join(again[:3]))}{' ...' if len(again) > 3 else ''}: links to folders "
            "that are read already; each folder is read once.",
            stacklevel=5,
        )
    return sorted(names)


def visible(name: str) -> bool:
    """Return whether a file is neither hidden nor macOS metadata in a zip."""
    return not (name.startswith((".", "__MACOSX")) or "/." in name or "/__MACOSX" in name)


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    try:
        entry.stat()
    except OSError:  # also of a link to itself
        return False
    return True
