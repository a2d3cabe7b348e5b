"""Lifted solvers: a table, and small networks that correct its states."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, ClassVar

import torch
from torch import Tensor

from ._execute import Correct, Readied
from ._files import only_writer
from ._hashing import fingerprint
from ._hub_files import CORRECTOR, SOLVER
from ._predictions import Prediction
from ._reading import reading
from .networks import Corrector, load_network, network_config, save_network
from .schedules import Schedule
from .solver import Solver

__all__ = ["Lifted"]

#: Before the name of the table.
_PREFIX = "lifted "


@dataclass(frozen=True)
class Lifted(Solver):
    """A solver whose states are corrected by small networks; :func:`fewstep.lift` makes one.

    It samples like a solver, with as many network calls. After row ``i`` of the table, state ``x_i`` becomes
    ``x_i + c_i(x_0, u_0, ..., u_{i-1}, x_i)``, for some ``i`` or the last alone. The predictions ``u_j`` are
    those that the table reads, whatever the network predicts.

    A lifted solver is a folder: the table in ``solver.json``, the corrections in ``corrector.safetensors``.

    Args:
        corrector: the corrections.
        lift: how they were trained, and their errors on validation pairs.
    """

    _MORE: ClassVar[tuple[str, ...]] = (CORRECTOR,)

    corrector: Corrector = field(kw_only=True, hash=False)
    lift: Mapping[str, Any] = field(kw_only=True, default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        calls = self.corrector.config["calls"]
        if calls != self.nfe:
            raise ValueError(
                f"Lifted: corrector is for solvers of {calls} calls, but {self.name!r} makes {self.nfe}; use "
                "the one that was trained with it."
            )

    @classmethod
    def of(cls, solver: Solver, corrector: Corrector, lift: Mapping[str, Any] | None = None) -> Lifted:
        """Return a solver with corrections.

        Raises:
            ValueError: when they are for another number of calls.
        """
        facts = {each.name: getattr(solver, each.name) for each in fields(Solver)}
        facts["name"] = _PREFIX + solver.name.removeprefix(_PREFIX)
        return cls(**facts, corrector=corrector, lift=lift or {})

    @property
    def uncorrected(self) -> Solver:
        """The table alone, without corrections."""
        return Solver(**{**self._arguments, "name": self.name.removeprefix(_PREFIX)})

    def __str__(self) -> str:
        if not self.lift:
            return f"{self.name}, {self.nfe} calls"
        rmse, pairs = self.lift["validation_rmse"], self.lift["pairs"]
        before, after, share = rmse["solver"], rmse["lifted"], self.lift["share_of_a_call"]
        time = f"{share:.3g} times" if share > 1 else f"{share:.1%} of"
        return (
            f"{self.name}, {self.nfe} calls: RMSE {after:.4g} on {pairs['validation']:,} validation pairs, "
            f"{after / before:.2f} times that without corrections ({before:.4g})\n"
            f"trained on {pairs['train']:,} pairs; {self.lift['weights']:,} weights, which take {time} "
            "the time of a network call"
        )

    def correction(self, device: torch.device) -> Correct:
        corrector = self._on(device)

        def correct(i: int, states: dict[int, Tensor], predictions: dict[int, Tensor]) -> None:
            if corrector.corrects(i):
                states[i] = corrector(i, states[0], [predictions[j] for j in range(i)], states[i])

        return correct

    def unroll(self) -> Solver:
        """Refused, as later rows read corrected states; ``lifted.uncorrected`` is the table alone."""
        raise self._refusal("unroll")

    def to(self, prediction: Prediction, schedule: Schedule | None = None) -> Solver:
        """Return itself for its own prediction; the corrections read no other.

        Networks of any prediction can be sampled with it as it is.
        """
        if prediction != self.prediction:
            raise self._refusal("to")
        return super().to(prediction, schedule)

    def reschedule(self, source: Schedule, target: Schedule) -> Solver:
        """Refused: the corrections hold in the coordinates in which they were trained."""
        raise self._refusal("reschedule")

    def describe(self) -> dict[str, Any]:
        own = super().describe()
        weights = self.corrector.state_dict()
        return {**own, "fingerprint": fingerprint([own["fingerprint"], *sorted(weights), *weights.values()])}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write ``solver.json`` and ``corrector.safetensors`` to a folder, made if it is missing."""
        folder = FilePath(path)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder}: a lifted solver is a folder, but this is a file; name a folder.")
        with only_writer(folder):
            self.uncorrected.save(folder / SOLVER)
            facts = {"corrects": self.uncorrected.describe()["fingerprint"], "lift": dict(self.lift)}
            save_network(folder / CORRECTOR, self.corrector, **facts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lifted:
        """Read a folder written by :meth:`save`.

        Raises:
            FileNotFoundError: when one of its files is missing.
            ValueError: when a file is damaged, or the corrections are those of another solver.
        """
        file = FilePath(path) / CORRECTOR
        solver, config = Solver.load(FilePath(path) / SOLVER), network_config(file)
        with reading(file, "file of corrections", "Lifted.save()"):
            corrector, own = load_network(file), solver.describe()["fingerprint"]
            if not isinstance(corrector, Corrector) or config.get("corrects") != own:
                raise ValueError(f"its corrections are not those of the {SOLVER} beside it; save both again")
            return cls.of(solver, corrector, config.get("lift"))

    def _write(self, path: FilePath, facts: dict[str, Any]) -> None:
        self.save(path.parent)

    @classmethod
    def _read(cls, path: FilePath) -> Lifted:
        return cls.load(path.parent)

    @property
    def _arguments(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(Solver)}

    def _ready(self, prediction: Prediction, schedule: Schedule) -> Readied:
        # The predictions are converted, not the table, as the corrections read those of the table.
        return Readied.of(self.C, self.D, self.points, list(range(self.nfe)), self.S, keep=True)

    def _on(self, device: torch.device) -> Corrector:
        own = self.corrector.parts[next(iter(self.corrector.parts))].mix.device
        if device == own:
            return self.corrector
        if device not in self._copies:
            self._copies[device] = copy.deepcopy(self.corrector).to(device)
        return self._copies[device]

    @cached_property
    def _copies(self) -> dict[torch.device, Corrector]:
        return {}

    def _refusal(self, method: str) -> ValueError:
        return ValueError(
            f"Lifted: {method} would leave the corrections of {self.name!r} behind; the table alone is "
            f"lifted.uncorrected, as in lifted.uncorrected.{method}(...)."
        )
