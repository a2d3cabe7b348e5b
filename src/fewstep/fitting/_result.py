"""Result of a fit: the fitted solver or solvers, the record, and their file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path as FilePath
from typing import Any, ClassVar
from weakref import ReferenceType

import torch
from torch import Tensor

from .. import _solver_file, classical, schedules
from .._card import fitted_card
from .._hub import Shared
from .._hub_files import FIT
from .._json_file import read_json, write_json
from .._reading import reading
from ..families import Guided, SmoothCorrections
from ..families.guided import describe_solvers, solvers_from_dict
from ..field import Field
from ..solver import Path, Solver
from ._report import KINDS, FitReport

__all__ = ["Fit"]

FORMAT, SCHEMA = "fewstep.fit", 1
_REQUIRED = {"fitted_for": _solver_file.FITTED_FOR, "report": KINDS}
_OPTIONAL = {"solver": _solver_file.KINDS, "family": {"name": str}, "theta": [float]}


@dataclass(frozen=True, eq=False)
class Fit(Shared):
    """Fitted solvers and the record of the fit.

    Args:
        solvers: the fitted solver, without the facts of its file; or solvers for several numbers of calls,
            guidance scales or both, as functions of theta.
        theta: parameters of these functions, float64; ``None`` for a single solver.
        report: the record of the fit.
        fitted_for: the field it was fitted to (at the largest scale), with further fields under ``also``.
        field: a weak reference to that field, for :func:`fewstep.lift`; no file holds it.

    Raises:
        ValueError: when theta does not have the size that the solvers need.
    """

    solvers: Solver | SmoothCorrections | Guided
    theta: Tensor | None
    report: FitReport
    fitted_for: Mapping[str, Any]
    field: ReferenceType[Field] | None = field(default=None, repr=False)

    _FILE: ClassVar[str] = FIT
    #: Name of the format of its file.
    FORMAT: ClassVar[str] = FORMAT

    def __post_init__(self) -> None:
        size = None if isinstance(self.solvers, Solver) else self.solvers.size
        given = None if self.theta is None else self.theta.numel()
        if size != given:
            raise ValueError(f"theta: these solvers have {size} numbers, not {given}.")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "field": None}  # nothing can hold a weak reference but memory

    @property
    def any_nfe(self) -> bool:
        """True if it has solvers for every number of calls from the least fitted on."""
        own = self.solvers.solvers if isinstance(self.solvers, Guided) else self.solvers
        return isinstance(own, SmoothCorrections)

    @property
    def nfe(self) -> int:
        """Network calls of the only solver."""
        return self.solver.nfe

    @property
    def solver(self) -> Solver:
        """The fitted solver of a fit with one number of calls and one guidance scale.

        Raises:
            ValueError: when there are several.
        """
        if isinstance(self.solvers, Solver):
            return self.at()
        trained = [(row["nfe"], row["guidance"]) for row in self.report.rows if row["trained"]]
        if len(set(trained)) > 1:
            places = ", ".join(f"nfe={n}" + ("" if w is None else f" guidance={w:g}") for n, w in trained)
            raise ValueError(
                f"fit: one solver for each of {places}; take one with fit.at(nfe=..., guidance=...)."
            )
        return self.at(*trained[0])

    def at(self, nfe: int | None = None, guidance: float | None = None) -> Solver:
        """Return the solver for a number of calls and a guidance scale, with the facts of its file.

        Args:
            nfe: number of network calls; needed if several were fitted, and at least the least of them.
                Between fitted numbers the solvers interpolate, least reliably for few calls; beyond the
                largest they extrapolate.
            guidance: guidance scale of the field; needed if several were fitted, and within their range.

        Where a classical solver was better on validation, it is that one, under its name.

        Raises:
            ValueError: on a number of calls or a scale outside this fit.
        """
        for label, value, kind in (("nfe", nfe, Integral), ("guidance", guidance, Real)):
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"fit: {label} must be a number, whole for nfe, not {value!r}.")
        nfe, guidance = nfe and int(nfe), guidance and float(guidance)
        if isinstance(self.solvers, Solver):
            return self._only(nfe, guidance)
        if nfe is not None:
            self._check_least(nfe)
        scales = isinstance(self.solvers, Guided)
        if guidance is not None and not scales:
            self._check_scale(guidance)
        assert self.theta is not None
        member = self.solvers.member(nfe, guidance)
        at = None if guidance is None or not scales else float(guidance)
        facts = self.report.facts(member.nfe, at)
        for row in self.report.rows:
            if (row["nfe"], row["guidance"]) == (member.nfe, at) and row.get("returned"):
                schedule = schedules.from_dict(self.fitted_for["schedule"])
                solver = classical.named(row["returned"], member.nfe, schedule)
                return replace(solver, name=row["returned"], fitted_for=self._fitted_at(at), **facts)
        return member.solver(self.theta, fitted_for=self._fitted_at(at), **facts)

    def sample(self, *args: Any, **options: Any) -> Tensor | Path:
        """Sample with the only solver; see :meth:`fewstep.Solver.sample`."""
        found: Tensor | Path = self.solver.sample(*args, **options)
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a readable JSON file with exact numbers, for :func:`fewstep.load`."""
        if isinstance(self.solvers, Solver):
            facts: dict[str, Any] = {"solver": self.solvers.to_dict()}
        else:
            assert self.theta is not None
            facts = {"family": describe_solvers(self.solvers), "theta": self.theta.tolist()}
        head = {"format": FORMAT, "schema": SCHEMA}
        write_json(path, {**head, **facts, "fitted_for": self.fitted_for, "report": self.report.to_dict()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Fit:
        """Read a file written by :meth:`save`.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is truncated, newer than this version, or not a fit.
        """
        content = read_json(path, "fit", "fit.save()", FORMAT, SCHEMA, _REQUIRED, _OPTIONAL)
        with reading(path, "fit file", "fit.save()"):
            report = FitReport.from_dict(content["report"])
            if "solver" in content:
                solver = Solver(**_solver_file.arguments(content["solver"]))
                return cls(solver, None, report, content["fitted_for"])
            theta = torch.tensor(content["theta"], dtype=torch.float64)
            if not bool(theta.isfinite().all()):
                raise ValueError("theta: must be finite numbers.")
            return cls(solvers_from_dict(content["family"]), theta, report, content["fitted_for"])

    def __str__(self) -> str:
        return str(self.report)

    def _write(self, path: FilePath, facts: dict[str, Any]) -> None:
        self.save(path)

    @classmethod
    def _read(cls, path: FilePath) -> Fit:
        return cls.load(path)

    def _body(self, name: str, facts: dict[str, Any]) -> str:
        report = self.report.to_dict()
        places = [(row["nfe"], row["guidance"]) for row in report["rows"] if row["trained"]]
        load = f"solver = fs.Fit.from_pretrained({json.dumps(name)})"
        if isinstance(self.solvers, Solver):
            solver, load = self.solver, f"{load}.solver"
        else:
            nfe, guidance = min(places, key=lambda place: (place[0], -(place[1] or 0)))
            solver = self.at(nfe, guidance)
            load += f".at(nfe={nfe}" + ("" if guidance is None else f", guidance={guidance!r}") + ")"
        calls = sorted({nfe for nfe, _ in places})
        rows = report.pop("rows")
        return fitted_card(name, (FIT,), load, calls, solver, report, rows)

    def _fitted_at(self, scale: float | None) -> Mapping[str, Any]:
        """Return the facts of the fields at one scale of several.

        Models that apply guidance themselves are fields without it; the scale stands under a name of its own.
        """
        if scale is None:
            return self.fitted_for
        key = "scale" if self.fitted_for.get("guidance") is None else "guidance"
        facts = {**self.fitted_for, key: scale}
        if "also" in facts:
            facts["also"] = [{**field, key: scale} for field in facts["also"]]
        return facts

    def _only(self, nfe: int | None, guidance: float | None) -> Solver:
        assert isinstance(self.solvers, Solver)
        if nfe not in (None, self.solvers.nfe):
            raise ValueError(
                f"fit: nfe={nfe}, but this fit has one solver, of {self.solvers.nfe} calls; fit "
                f"nfe=({self.solvers.nfe}, {nfe}) for both."
            )
        if guidance is not None:
            self._check_scale(guidance)
        facts = self.report.facts(self.solvers.nfe, None)
        return replace(self.solvers, fitted_for=self.fitted_for, **facts)

    def _check_scale(self, guidance: float) -> None:
        own = self.fitted_for.get("guidance") or 1
        if guidance != own:
            raise ValueError(
                f"fit: guidance={guidance:g}, but this fit is for the scale {own:g}; fit "
                f"guidance=({own:g}, {guidance:g}) for both."
            )

    def _check_least(self, nfe: int) -> None:
        least = min(row["nfe"] for row in self.report.rows if row["trained"])
        if nfe < least:
            raise ValueError(
                f"fit: nfe={nfe} is below the least number of calls fitted, {least}, and nothing is known "
                f"there; fit numbers of calls that begin at {nfe}."
            )
