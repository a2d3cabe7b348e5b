"""Downloads of single files: bounded, complete and atomic."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from ._files import replacing
from ._progress import progress_bar

__all__ = ["download"]

_CHUNK = 1 << 20


def download(
    address: str,
    path: Path,
    *,
    most: int,
    check: Callable[[str], None] | None = None,
    title: str = "download",
    progress: bool = False,
) -> None:
    """Write what an address sends to a file, which is only made when all of it has come.

    Args:
        address: the URL.
        path: the file.
        most: most bytes to take.
        check: called with the sha256 before the file is kept; it may raise.
        title: name of the progress bar.
        progress: show one.

    Raises:
        OSError: when the address cannot be reached, or sends too much or too little.
    """
    digest, taken = sha256(), 0
    try:
        with urllib.request.urlopen(address, timeout=30) as answer, replacing(path) as temporary:
            if answer.geturl().partition(":")[0] != address.partition(":")[0]:
                raise OSError(f"it leads to {answer.geturl()}, by another protocol")
            size = int(answer.headers.get("Content-Length") or 0)
            with (
                temporary.open("wb") as file,
                progress_bar(progress, total=size or None, desc=title, unit="B", unit_scale=True) as bar,
            ):
                while chunk := answer.read(_CHUNK):
                    taken += len(chunk)
                    if max(size, taken) > most:
                        raise OSError(f"it sends {max(size, taken):,} bytes or more, and may send {most:,}")
                    digest.update(chunk)
                    file.write(chunk)
                    bar.update(len(chunk))
            if taken < size:
                raise OSError(f"only {taken:,} of {size:,} bytes came")
            if check is not None:
                check(digest.hexdigest())
    except urllib.error.URLError as error:  # whose own message is of Python
        raise OSError(str(error.reason)) from error
    except http.client.HTTPException as error:  # a broken answer, or an address that is none
        raise OSError(str(error) or type(error).__name__) from error
