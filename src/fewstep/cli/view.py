"""``fewstep view``: the page of a folder, updated once, watched or served."""

from __future__ import annotations

import contextlib
import functools
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from ..report.training import holds_training, training_page
from ._common import report
from ._options import AtLeast

__all__ = ["command"]

#: Seconds between updates of a served folder.
_OFTEN = 10.0


def command(
    folder: Path,
    *,
    watch: Annotated[float | None, AtLeast(0.1)] = None,
    serve: Annotated[int | None, AtLeast(0)] = None,
    as_json: bool = False,
) -> None:
    """Make the page of a folder for a browser; --watch and --serve keep it up to date.

    Args:
        folder: folder of a training, finished or not.
        watch: update the page at intervals of this many seconds, until Ctrl-C.
        serve: watch, and serve the folder on this port of this machine.
    """
    if not folder.is_dir():
        raise ValueError(f"FOLDER: there is no folder {folder}; give one that fewstep train --out wrote to.")
    if not holds_training(folder):
        raise ValueError(
            f"FOLDER: {folder} holds no training, as it has neither run.json nor metrics.jsonl nor "
            "checkpoints/; give one that fewstep train --out wrote to."
        )
    path = folder / "index.html"
    every = watch or (0.0 if serve is None else _OFTEN)
    page = training_page(folder, every or None)
    page.write(path)
    result = {"page": str(path), "title": page.title, "summary": page.summary}
    report(as_json, result, lambda: f"{page.title}\n{page.summary}\nwrote {path}")
    serving = contextlib.nullcontext() if serve is None else _served(folder, serve, as_json)
    with serving, contextlib.suppress(KeyboardInterrupt):
        seen = _newest(folder)
        while every:
            time.sleep(every)
            news, changed = training_page(folder, every), _newest(folder)
            if (news.summary, changed) != (page.summary, seen):
                news.write(path)
                page, seen = news, changed


def _newest(folder: Path) -> float:
    """Return the time of the last change in a folder, except that of its page."""
    times = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a checkpoint may have been removed
            times.append(path.stat().st_mtime if path.name != "index.html" else 0.0)
    return max(times, default=0.0)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None: ...

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")  # the page changes
        super().end_headers()


@contextlib.contextmanager
def _served(folder: Path, port: int, as_json: bool) -> Iterator[None]:
    """Serve a folder on this machine only, in a thread."""
    handler = functools.partial(_Quiet, directory=str(folder))
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    except (OSError, OverflowError) as error:
        raise OSError(f"--serve: port {port} cannot be had ({error}); choose another.") from None
    port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if not as_json:
        print(
            f"serving http://127.0.0.1:{port}/ until Ctrl-C; to see it from another machine, run there:\n"
            f"  ssh -N -L {port}:127.0.0.1:{port} USER@{socket.gethostname()}\n"
            f"and open http://127.0.0.1:{port}/",
            flush=True,
        )
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
