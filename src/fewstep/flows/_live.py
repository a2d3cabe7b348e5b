"""What others see of a run while it goes on: ``run.json``, which says what it is, and its page."""

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

#: The largest share of the time that is spent on pages.
_SHARE = 0.01


class Live:
    """Keeps ``run.json`` and ``index.html`` of a run up to date, from its start to its end.

    Nothing that goes wrong with them stops the run, or is told more than once.

    Args:
        folder: of the run.
        facts: what the run is, ready for JSON.
        every: least seconds between two writes of the page; 0 for no page.
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
        self._record({"how": how, "why": None if error is None else str(error), "time": time.time()})
        self._due = 0.0
        self.show()

    def show(self) -> None:
        """Write the page, if it is time to."""
        began = time.monotonic()
        if not self.every or began < self._due:
            return
        try:
            training_page(self.folder).write(self.folder / "index.html")
        except Exception as error:  # whatever it is, training matters more
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
