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
    """A tqdm bar on standard error, or an object that shows nothing and needs no tqdm.

    Where standard error is a file, the bar leaves a line every half a minute.
    """
    if not show:
        return _Silent()
    options = {"mininterval": 0.1 if sys.stderr.isatty() else 30.0, **options}
    bar: ProgressBar = require("tqdm", "fit").tqdm(dynamic_ncols=True, **options)
    return bar
