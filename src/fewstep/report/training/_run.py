"""The state and metrics of a training run, read from its folder."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..._json_file import read_json
from ..._reading import check, check_regular, parse_json, read_tensors, reading

__all__ = ["FORMAT", "SCHEMA", "Metrics", "Run", "holds_training", "read_metrics", "read_run"]

#: Format of ``run.json``.
FORMAT, SCHEMA = "fewstep.run", 1

_RUN = {str: (dict, None)}
_REQUIRED = {
    "run": _RUN,
    "started": float,
    "ended": ({"how": str, "why": (str, None), "time": float}, None),
}
_OPTIONAL = {
    "data": {"name": (str, None), "shape": ([int], None)},
    "validation": dict,
    "parameters": {str: int},
    "device": dict,
    "versions": dict,
}

_PREVIEW = re.compile(r"step-(\d+)-(.+)\.png")

#: Least time in seconds without a sign of life after which a run without an orderly end counts as stopped, as
#: validations and previews take a while.
_PATIENCE = 600.0

State = Literal["running", "finished", "interrupted", "failed", "silent"]


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


@dataclass(frozen=True)
class Run:
    """The state of a training run."""

    folder: Path
    record: Mapping[str, Any]  # of run.json; without that file, at most "run", from the newest checkpoint
    metrics: Metrics
    previews: Mapping[str, Mapping[int, Path]]  # images by kind ("samples", ...) and step
    state: State  # "silent": no orderly end, and no sign of life for a long time
    seen: float | None  # time of its last sign of life, in seconds since 1970, if known

    def fact(self, part: str, name: str) -> Any:
        """Return one of the facts that a resumed run must share, such as ``("settings", "steps")``."""
        return (self.record.get("run", {}).get(part) or {}).get(name)

    @property
    def step(self) -> int:
        """Number of the last logged step."""
        return max((list(values)[-1] for values in self.metrics.figures.values()), default=0)

    @property
    def steps(self) -> int | None:
        """Number of requested steps."""
        return self.fact("settings", "steps")  # type: ignore[no-any-return]

    @property
    def saved(self) -> int:
        """The step of the newest checkpoint, or 0."""
        return max((int(path.stem[5:]) for path in _checkpoints(self.folder)), default=0)

    @property
    def rate(self) -> float | None:
        """Recent samples per second."""
        rates = list(self.metrics.of("samples_per_second").values())[-10:]
        return statistics.median(rates) if rates else None

    @property
    def seconds(self) -> float:
        """Training time, without validations, previews and interruptions."""
        samples, rates = self.metrics.of("samples"), self.metrics.of("samples_per_second")
        total, before = 0.0, 0.0
        for step, rate in rates.items():
            now = samples.get(step, before)
            total += (now - before) / rate if rate > 0 else 0.0
            before = now
        return total


def holds_training(folder: Path) -> bool:
    """True for the folder of a training run."""
    return any((folder / name).exists() for name in ("run.json", "metrics.jsonl", "checkpoints"))


def read_run(folder: Path) -> Run:
    """Read the state of a run; preview images are only listed."""
    record = _record(folder)
    metrics = read_metrics(folder / "metrics.jsonl")
    previews: dict[str, dict[int, Path]] = {}
    for path in sorted((folder / "previews").glob("step-*.png")):
        if match := _PREVIEW.fullmatch(path.name):
            previews.setdefault(match[2], {})[int(match[1])] = path
    state, seen = _state(folder, record, metrics)
    return Run(folder, record, metrics, previews, state, seen)


def read_metrics(path: Path) -> Metrics:
    """Read a file of metrics in one pass; a missing file has no metrics."""
    figures: dict[str, dict[int, float | None]] = defaultdict(dict)
    damaged, whole = 0, True
    try:
        check_regular(path)
        with path.open(encoding="utf-8", errors="replace") as file:
            for text in file:
                whole = True
                try:
                    line = parse_json(text)
                    check(line, {"step": int}, "")
                    step = line["step"]
                except ValueError:
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


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "run.json"
    if path.exists():
        return read_json(path, "run", "fewstep train", FORMAT, SCHEMA, _REQUIRED, _OPTIONAL)
    for path in reversed(_checkpoints(folder)):
        try:
            with reading(path, "checkpoint", "fewstep train"):
                saved = read_tensors(path, "fewstep.checkpoint", only=()).facts
                check(saved, {"run": _RUN}, "")
            return {"run": saved["run"], "torch": saved.get("torch")}
        except (OSError, ValueError):
            continue  # damaged, or just removed by the run
    return {}


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    return sorted((folder / "checkpoints").glob("step-*[0-9].safetensors"))


def _state(folder: Path, record: Mapping[str, Any], metrics: Metrics) -> tuple[State, float | None]:
    """Return the state of a run, and the time of its last sign of life."""
    times = list(metrics.of("time").values())
    signs = [*times[-1:], *([record["started"]] if "started" in record else [])]
    if not signs:
        signs = [path.stat().st_mtime for path in (folder / "metrics.jsonl",) if path.exists()]
    seen = max(signs, default=None)
    ended = record.get("ended")
    if ended:
        return ended["how"], ended["time"]
    steps = record.get("run", {}).get("settings", {}).get("steps")
    if "started" not in record and steps in metrics.figures.get("samples_per_second", {}):
        return "finished", seen
    times = [t for t in times[-20:] if t >= record.get("started", 0)]  # not across an interruption
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    patience = max(_PATIENCE, 3 * max(gaps, default=0.0))
    return ("running" if seen is not None and time.time() - seen < patience else "silent"), seen
