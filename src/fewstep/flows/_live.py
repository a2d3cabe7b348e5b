"""The live view of a run: ``run.json`` and its page, ``index.html``."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .._json_file import write_json
from ..report.training import FORMAT, SCHEMA, training_page

__all__ = ["Live"]

#: Largest share of the run time spent on pages.
_SHARE = 0.01


class Live:
    """A context that keeps ``run.json`` and ``index.html`` of a run up to date.

    The page is written every so many seconds at most, and not at all if these are 0. Errors in writing do
    not stop the run; the first one is a warning.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], every: float) -> None:
        self.folder, self.facts, self.every = folder, facts, every
        self._due = 0.0
        self._warned = False

    def __enter__(self) -> Live:
        self._started = time.time()
        self._record(None)
        self.show()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        how = "finished" if kind is None else "interrupted" if kind is KeyboardInterrupt else "failed"
        why = str(error) if how == "failed" else None
        self._record({"how": how, "why": why, "time": time.time()})
        self._due = 0.0
        self.show()

    def show(self) -> None:
        """Write the page if it is due."""
        began = time.monotonic()
        if not self.every or began < self._due:
            return
        try:
            training_page(self.folder).write(self.folder / "index.html")
        except Exception as error:  # no error of the page may stop training
            self._warn("index.html", error)
        ended = time.monotonic()
        self._due = ended + max(self.every, (ended - began) / _SHARE)

    def _record(self, ended: Mapping[str, Any] | None) -> None:
        content = {"format": FORMAT, "schema": SCHEMA, **self.facts, "started": self._started, "ended": ended}
        try:
            write_json(self.folder / "run.json", content)
        except OSError as error:
            self._warn("run.json", error)

    def _warn(self, name: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"training goes on without a new {self.folder / name}: {error}", stacklevel=4)
