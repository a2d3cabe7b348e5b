"""The figures of a training, as its ``metrics.jsonl`` holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Metrics", "read_metrics"]


@dataclass(frozen=True)
class Metrics:
    """Figures by name and step.

    Args:
        figures: values by name and step, in the order of the steps; ``None`` where one was not finite.
        damaged: how many lines could not be read; a last line that is still being written does not count.
    """

    figures: Mapping[str, Mapping[int, float | None]] = field(default_factory=dict)
    damaged: int = 0

    def of(self, name: str) -> dict[int, float]:
        """The finite values of a figure by step; none where there is no such figure."""
        return {step: y for step, y in self.figures.get(name, {}).items() if y is not None}

    def last(self, name: str) -> float | None:
        """The newest finite value of a figure, if it has one."""
        return next(reversed(self.of(name).values()), None)


def read_metrics(path: Path) -> Metrics:
    """Read a file of metrics in one pass; a file that is not there (yet) has no figures."""
    figures: dict[str, dict[int, float | None]] = {}
    damaged, whole = 0, True
    try:
        with path.open("rb") as file:
            for text in file:
                whole = True
                try:
                    line = json.loads(text)
                    step = int(line["step"])
                except (ValueError, KeyError, TypeError):
                    damaged += 1
                    whole = text.endswith(b"\n")
                    continue
                for name, value in line.items():
                    if name == "step" or not (value is None or type(value) in (int, float)):
                        continue
                    finite = value is not None and math.isfinite(value)
                    figures.setdefault(name, {})[step] = value if finite else None
    except FileNotFoundError:
        return Metrics()
    in_order = {name: dict(sorted(values.items())) for name, values in figures.items()}
    return Metrics(in_order, damaged if whole else damaged - 1)
