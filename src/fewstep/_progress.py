"""Progress of long work: a tqdm bar with rate and ETA, or silence."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Protocol

from ._extras import require

__all__ = ["ProgressBar", "progress_bar"]


class ProgressBar(Protocol):
    """The part of tqdm's interface that is used here."""

    def update(self, n: int = 1) -> object: ...
    def set_postfix(self, **values: Any) -> None: ...
    def close(self) -> None: ...
    def __enter__(self) -> ProgressBar: ...
    def __exit__(self, *exception: Any) -> None: ...


class _Silent:
    def update(self, n: int = 1) -> None: ...
    def set_postfix(self, **values: Any) -> None: ...
    def close(self) -> None: ...

    def __enter__(self) -> _Silent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_bar(show: bool = True, **options: Any) -> ProgressBar:
    """Return a tqdm bar on standard error, or a silent stand-in that needs no tqdm.

    If standard error is not a terminal, the bar writes a line every half minute.
    """
    if not show:
        return _Silent()
    options = {"mininterval": 0.1 if sys.stderr.isatty() else 30.0, **options}
    bar: ProgressBar = require("tqdm", "fit").tqdm(dynamic_ncols=True, **options)
    return bar
