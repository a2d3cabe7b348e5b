"""The folder of a training run: checkpoints, metrics, and the checks for resuming."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._files import write_safetensors, write_text
from .._json import finite
from ..models import save_network
from . import _checkpoint
from .settings import Settings

__all__ = ["RunFolder"]

_NAME = re.compile(r"step-(\d{8})\.safetensors")


class RunFolder:
    """The folder in which a run keeps its checkpoints, metrics and exported networks.

    Args:
        path: the folder; created if missing.
        facts: facts that identify the run; to resume, they must be the same except for ``Settings.FREE``.
        settings: the run's settings.
    """

    def __init__(self, path: str | os.PathLike[str], facts: dict[str, Any], settings: Settings) -> None:
        self.path, self.facts, self.settings = Path(path), facts, settings
        self.best = math.inf
        self._is_best = False

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(p for p in (self.path / "checkpoints").glob("*") if _NAME.fullmatch(p.name))

    def latest(self) -> Path | None:
        """Return the newest checkpoint, or ``None``."""
        return next(reversed(self.checkpoints), None)

    def resume(self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, scaler: Any) -> int:
        """Restore the newest checkpoint and return its step, or 0 without a checkpoint.

        Raises:
            ValueError: when the folder holds another run, or more steps than requested are done.
        """
        path = self.latest()
        if path is None:
            return 0
        saved = _checkpoint.read_facts(path)
        differing = _differences(saved["run"], self.facts)
        if differing:
            raise ValueError(
                f"{self.path}: holds a run with other settings ({'; '.join(differing)}); train into another "
                "folder, or set them back."
            )
        step: int = saved["step"]
        if step > self.settings.steps:
            raise ValueError(
                f"steps: {self.path} has been trained for {step} steps already, more than "
                f"{self.settings.steps}; ask for more, or train into another folder."
            )
        _checkpoint.restore(path, modules, optimizer)
        if scaler is not None and saved["scaler"]:
            scaler.load_state_dict(saved["scaler"])
        self.best = math.inf if saved["best"] is None else saved["best"]
        return step

    def save(
        self,
        step: int,
        modules: Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        scaler: Any,
        *,
        final: bool,
    ) -> None:
        """Write a checkpoint and remove the oldest beyond ``settings.keep``.

        If it cannot be written (a full disk), training continues with a warning, as the earlier checkpoint
        is kept.

        Raises:
            OSError: when the final checkpoint cannot be written.
        """
        facts = {
            "step": step,
            "samples": step * self.settings.batch,
            "best": self.best if math.isfinite(self.best) else None,
            "run": self.facts,
            "scaler": None if scaler is None else scaler.state_dict(),
            "torch": torch.__version__,
        }
        folder = self.path / "checkpoints"
        path = folder / f"step-{step:08d}.safetensors"
        try:
            _checkpoint.save(path, modules, optimizer, facts)
        except OSError as error:
            if final:
                raise OSError(
                    f"the last step could not be saved: {error} Free some space and train again; it will go "
                    f"on from {self.latest() or 'the start'}."
                ) from error
            warnings.warn(f"training goes on without this checkpoint: {error}", stacklevel=2)
            return
        if self._is_best:
            _link(path, folder / "best.safetensors")
            self._is_best = False
        for old in self.checkpoints[: -self.settings.keep]:
            old.unlink()

    def judge(self, loss: float) -> None:
        """Record a validation loss; if it is the lowest, the next checkpoint is the best one."""
        if loss < self.best:
            self.best, self._is_best = loss, True

    def check_space(self, weights: int) -> None:
        """Check that there is room for the checkpoints of ``weights`` bytes of weights.

        Raises:
            OSError: when there is not, with the free and the needed space.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        each = (3 + len(self.settings.ema)) * weights  # with Adam's two moments
        needed = each * max(1, self.settings.keep + 2 - len(self.checkpoints))
        free = shutil.disk_usage(self.path).free
        if free < needed:
            raise OSError(
                f"{self.path}: has {free / 1e6:.0f} MB free, but the checkpoints of this run need "
                f"{needed / 1e6:.0f} MB; free some space, or keep fewer (keep={self.settings.keep})."
            )

    def export(self, name: str, network: nn.Module, facts: dict[str, Any]) -> None:
        """Write a network for inference: a network file if it is one of this package, else its weights."""
        path = self.path / f"{name}.safetensors"
        try:
            save_network(path, network, **facts)
        except ValueError:  # a custom network: its state_dict, with the same facts
            write_safetensors(path, network.state_dict(), {"fewstep.training": json.dumps(facts)})

    def log(self, line: Mapping[str, float]) -> None:
        """Append a line of metrics."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(dict(line)), allow_nan=False) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that will be repeated, and an incomplete last line."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["step"] <= step]
            write_text(path, "".join(f"{line}\n" for line in kept))


def _differences(saved: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Describe the settings that a resumed run has changed."""
    found = []
    for part in now:
        before, after = saved.get(part, {}), now[part]
        free = Settings.FREE if part == "settings" else ()
        found += [
            f"{part} {key} was {before.get(key)!r} and is {after.get(key)!r}"
            for key in sorted(before.keys() | after.keys())
            if before.get(key) != after.get(key) and key not in free
        ]
    before, after = saved["settings"], now["settings"]
    if before["decay"] == "cosine" and before["steps"] != after["steps"]:
        found.append(
            f"settings steps was {before['steps']} and is {after['steps']}, which moves the cosine decay"
        )
    return found


def _link(source: Path, target: Path) -> None:
    """Make ``target`` a hard link to ``source``, or a copy if the file system has no links."""
    temporary = target.with_suffix(".part")
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    os.replace(temporary, target)
