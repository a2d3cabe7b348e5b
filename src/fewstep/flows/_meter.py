"""Mean losses and speed between two lines of metrics."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from torch import Tensor

__all__ = ["Meter"]


class Meter:
    """Sums of losses, kept on the device, and the training time."""

    def __init__(self, step: int) -> None:
        self.reset(step)

    def reset(self, step: int) -> None:
        self.since, self._count, self._started = step, 0, time.perf_counter()
        self._sums: dict[str, Tensor] = {}

    def add(self, losses: dict[str, Tensor]) -> None:
        self._count += 1
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss

    def means(self) -> dict[str, Tensor]:
        return {name: total / self._count for name, total in self._sums.items()}

    def rate(self, step: int) -> float:
        """Return steps per second since the last reset."""
        return (step - self.since) / (time.perf_counter() - self._started)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Exclude the time spent in this context."""
        before = time.perf_counter()
        yield
        self._started += time.perf_counter() - before
