"""The metrics of a training run, read from ``metrics.jsonl``."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Metrics", "read_metrics", "thinned"]


@dataclass(frozen=True)
class Metrics:
    """Metrics by name and step.

    Args:
        figures: values by name and step, in the order of the steps; ``None`` for a value that was not finite.
        damaged: number of unreadable lines, not counting an incomplete last line.
    """

    figures: Mapping[str, Mapping[int, float | None]] = field(default_factory=dict)
    damaged: int = 0

    def of(self, name: str) -> dict[int, float]:
        """Return the finite values of a metric by step; empty for an unknown metric."""
        return {step: y for step, y in self.figures.get(name, {}).items() if y is not None}

    def last(self, name: str) -> float | None:
        """Return the newest finite value of a metric, or ``None``."""
        return next(reversed(self.of(name).values()), None)


def read_metrics(path: Path) -> Metrics:
    """Read a file of metrics in one pass; a missing file has no metrics."""
    figures: dict[str, dict[int, float | None]] = defaultdict(dict)
    damaged, whole = 0, True
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                whole = True
                try:
                    line = json.loads(text)
                    step = int(line["step"])
                except (ValueError, KeyError, TypeError):
                    damaged += 1
                    whole = text.endswith("\n")
                    continue
                for name, value in line.items():
                    if type(value) is float or type(value) is int or value is None:
                        figures[name][step] = value if value is not None and math.isfinite(value) else None
    except FileNotFoundError:
        return Metrics()
    figures.pop("step", None)
    in_order = {name: dict(sorted(values.items())) for name, values in figures.items()}
    return Metrics(in_order, damaged if whole else damaged - 1)


def thinned(y: Sequence[float | None], most: int = 1000) -> list[int]:
    """Return indices of about ``most`` points: the ends, the gaps, and the extremes of every stretch.

    Charts thin their points as well, but slowly for a hundred thousand of them.
    """
    if len(y) <= most:
        return list(range(len(y)))
    size = math.ceil(2 * len(y) / most)
    kept = {0, len(y) - 1}
    for start in range(0, len(y), size):
        stretch = y[start : start + size]
        finite = [value for value in stretch if value is not None]
        kept |= {start + stretch.index(value) for value in (min(finite), max(finite))} if finite else set()
        if len(finite) < len(stretch):
            kept |= {start + k for k, value in enumerate(stretch) if value is None}
    return sorted(kept)
