"""Stopping a run after the current step, on a signal or on demand."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch

__all__ = ["Stop"]

#: Steps after which several processes ask each other whether to stop, which waits for the device.
_AGREED = 10


class Stop:
    """The wish to stop a run, with the number of the signal that brought it, or 0."""

    def __init__(self) -> None:
        self._wish: int | None = None

    def ask(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Stop after the current step; a handler of signals."""
        self._wish = number

    def agreed(self, step: int, accelerator: Any) -> bool:
        """Return whether to stop after this step, the same in all processes: they wait for each other."""
        wished = self._wish is not None
        if accelerator.num_processes == 1:
            return wished
        if step % _AGREED:
            return False
        return bool(accelerator.reduce(torch.tensor(float(wished), device=accelerator.device), "sum"))

    def error(self) -> KeyboardInterrupt:
        """Return the error to raise, with the signal if there was one."""
        return KeyboardInterrupt(self._wish) if self._wish else KeyboardInterrupt()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM ask for it."""
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread may handle signals
            return
        before = {kind: signal.signal(kind, self.ask) for kind in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
