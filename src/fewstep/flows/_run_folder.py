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
from torch import Tensor, nn

from .._files import check_room, plain_name, replacing, room_told, sweep, write_safetensors, write_text
from .._json import finite
from .._locks import lock_folder
from .._reading import check, parse_json, read_tensors, reading
from ..models import save_network
from .settings import Settings

__all__ = ["RunFolder"]

_NAME = re.compile(r"step-(\d{8})\.safetensors")

#: Version of the layout of a checkpoint; newer ones are refused.
_SCHEMA = 1

_FACTS = "fewstep.checkpoint"
#: Kinds of the facts of a checkpoint.
_KINDS = {
    "schema": int,
    "step": int,
    "best": (float, None),
    "run": {str: (dict, None), "settings": dict},
    "scaler": (dict, None),
}
_MEND = "a training, or remove it to go on from an earlier one"

#: What a folder holds that a run is about to begin in, trackers' folders among them.
_OWN = re.compile(r"\..*|config\.yaml|pairs|fewstep|wandb|mlruns")


class RunFolder:
    """The folder in which a run keeps its checkpoints, metrics and exported networks.

    ``facts`` identify the run; to resume, they must be the same except for ``Settings.FREE``.
    """

    def __init__(self, path: str | os.PathLike[str], facts: dict[str, Any], settings: Settings) -> None:
        self.path, self.facts, self.settings = Path(path), facts, settings
        self.best = math.inf
        self._is_best = False

    def lock(self) -> None:
        """Make the folder, and this process its only writer; remove what a killed one left half-written.

        Raises:
            ValueError: when another process is writing there.
        """
        lock_folder(self.path)
        sweep(self.path)
        others = sorted(path.name for path in self.path.iterdir() if not _OWN.fullmatch(path.name))
        if others and not (self.path / "run.json").exists():
            warnings.warn(
                f"{self.path}: holds other things, such as {others[0]}, and the files of this run will lie "
                "among them; name an empty folder to keep them apart.",
                stacklevel=4,
            )

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints, oldest first."""
        return sorted(p for p in (self.path / "checkpoints").glob("*") if _NAME.fullmatch(p.name))

    def latest(self) -> Path | None:
        """Return the newest checkpoint, or ``None``."""
        return next(reversed(self.checkpoints), None)

    def resume(self, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer, scaler: Any) -> int:
        """Restore the newest checkpoint and return its step, or 0 without a checkpoint."""
        path = self.latest()
        if path is None:
            return 0
        saved = _read_facts(path)
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
        _restore(path, modules, optimizer)
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
        is kept; the final one raises ``OSError``.
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
            _write(path, modules, optimizer, facts)
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
        """Raise ``OSError`` unless there is room for the checkpoints of ``weights`` bytes of weights."""
        each = (3 + len(self.settings.ema)) * weights  # with Adam's two moments
        needed = each * max(1, self.settings.keep + 2 - len(self.checkpoints))
        fewer = f"keep fewer (keep={self.settings.keep})"
        check_room(self.path, needed, "the checkpoints of this run", fewer)

    def export(self, name: str, network: nn.Module, facts: dict[str, Any]) -> None:
        """Write a network for inference: a network file if it is one of this package, else its weights."""
        path = self.path / f"{name}.safetensors"
        try:
            save_network(path, network, **facts)
        except ValueError:  # a custom network: its state_dict, with the same facts
            weights = {plain_name(k): v for k, v in network.state_dict().items()}
            write_safetensors(path, weights, {"fewstep.training": json.dumps(facts)})

    def log(self, line: Mapping[str, float]) -> None:
        """Append a line of metrics."""
        path, text = self.path / "metrics.jsonl", json.dumps(finite(dict(line)), allow_nan=False) + "\n"
        with room_told(path, len(text)), path.open("a", encoding="utf-8") as file:
            file.write(text)

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps that will be repeated, and an incomplete last line."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
            with reading(path, "file of metrics", "a training, if it is removed,"):
                kept = [line for line in lines if parse_json(line)["step"] <= step]
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
    with replacing(target) as temporary:
        temporary.unlink()
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def _write(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write a complete checkpoint, atomically."""
    tensors = {
        f"{name}.{plain_name(k)}": v
        for name, module in modules.items()
        for k, v in module.state_dict().items()
    }
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    write_safetensors(path, tensors, {_FACTS: json.dumps({"schema": _SCHEMA, **facts})})


def _read_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a checkpoint."""
    with reading(path, "checkpoint of a training", _MEND):
        facts = read_tensors(path, _FACTS, only=()).facts
        check(facts, _KINDS, "")
    if facts["schema"] > _SCHEMA:
        raise ValueError(
            f"{path}: has schema {facts['schema']}, but this version of fewstep reads up to {_SCHEMA}; "
            "update fewstep."
        )
    return facts


def _restore(path: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Load the saved state into modules and optimiser, of the same architecture."""
    with reading(path, "checkpoint of a training", _MEND):
        tensors = read_tensors(path, None).tensors
    for name, module in modules.items():
        own = {k.removeprefix(f"{name}."): tensors.pop(k) for k in list(tensors) if k.startswith(f"{name}.")}
        present = module.state_dict()
        names = {plain_name(key): key for key in present}
        expected = {plain: present[key] for plain, key in names.items()}
        odd = sorted(own.keys() ^ expected.keys())
        odd += [key for key in own.keys() & expected.keys() if own[key].shape != expected[key].shape]
        if odd:
            raise ValueError(
                f"{path}: is of another architecture; {name} differs in {len(odd)} tensors, such as "
                f"{odd[0]!r}; resume with the network it was made with, or train into another folder."
            )
        module.load_state_dict({names[key]: value for key, value in own.items()})
    state: dict[int, dict[str, Tensor]] = {}
    with reading(path, "checkpoint of a training", _MEND):
        for key, value in tensors.items():
            _, index, name = key.split(".")
            state.setdefault(int(index), {})[name] = value
        _check_state(state, optimizer)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _check_state(state: Mapping[int, Mapping[str, Tensor]], optimizer: torch.optim.Optimizer) -> None:
    """Raise ``ValueError`` unless each state is of a weight, and of its shape or a single number."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, values in state.items():
        for name, value in values.items():
            if not 0 <= index < len(weights) or value.shape not in ((), weights[index].shape):
                raise ValueError(f"the optimiser's {name} of weight {index} has shape {tuple(value.shape)}")
