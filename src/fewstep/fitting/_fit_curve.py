"""Fit a curve to a field: one fit, a solver for every number of calls."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._json_file import read_json, write_json
from ..families import Curve, Family
from ..field import Field
from ..pairs import Pairs
from ..solver import Solver
from ._arguments import ITERATIONS, check_arguments, check_budget
from ._follow import PATIENCE, follow
from ._reference_pairs import held_back, reference_pairs
from ._rollout import Rollout
from .curve_report import CurveReport
from .joint import JointGaussNewton
from .losses import ENDPOINT_LOSSES

__all__ = ["CurveFit", "fit_curve"]

FORMAT = "fewstep.curve"
SCHEMA = 1


@dataclass(frozen=True, eq=False)
class CurveFit:
    """A fitted curve, from which a solver with any number of calls is read.

    Args:
        curve: the functions, up to theta.
        theta: their parameters, float64 of shape ``(curve.size,)``.
        report: the record of the fit.
        fitted_for: the field it was fitted to.
    """

    curve: Curve
    theta: Tensor
    report: CurveReport
    fitted_for: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.theta.shape != (self.curve.size,):
            raise ValueError(
                f"theta: a curve of {self.curve.describe()} has {self.curve.size} numbers, "
                f"not {self.theta.numel()}."
            )

    def solver(self, nfe: int) -> Solver:
        """The solver with ``nfe`` calls, with what it was fitted for and how.

        Args:
            nfe: number of network calls, from the least fitted one on. Between fitted numbers the curve
                interpolates, least surely where calls are few; beyond the largest it extrapolates.

        Raises:
            ValueError: when the base cannot make exactly ``nfe`` calls, or fewer were not fitted.
        """
        member, least = self.curve.member(nfe), min(self.report.nfes)
        if nfe < least:
            raise ValueError(
                f"CurveFit: nfe={nfe} is below the least number of calls fitted, {least}, and no curve "
                f"holds there; fit it with nfes that begin at {nfe}."
            )
        protocol = self.report.to_dict()
        errors = protocol.pop("errors")
        scores = [{key: row[key] for key in ("fitted", "start")} for row in errors if row["nfe"] == nfe]
        facts: dict[str, Any] = {
            "fitted_for": self.fitted_for,
            "protocol": protocol,
            "scores": {"validation_rmse": scores[0]} if scores else None,
        }
        return member.solver(self.theta, **facts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the curve as a JSON file that a person can read; theta keeps every bit."""
        content = {
            "format": FORMAT,
            "schema": SCHEMA,
            "curve": self.curve.describe(),
            "theta": self.theta.tolist(),
            "fitted_for": self.fitted_for,
            "report": self.report.to_dict(),
        }
        write_json(path, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CurveFit:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is truncated, newer than this version, or not a curve.
        """
        keys = ("curve", "theta", "fitted_for", "report")
        content = read_json(path, "curve", "CurveFit.save()", FORMAT, SCHEMA, keys)
        try:
            theta = torch.tensor(content["theta"], dtype=torch.float64)
            if not bool(theta.isfinite().all()):
                raise ValueError("theta: must be finite numbers.")
            report = CurveReport.from_dict(content["report"])
            return cls(Curve(**content["curve"]), theta, report, content["fitted_for"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: {error}") from None


def fit_curve(
    field: Field,
    nfes: Sequence[int] = (2, 3, 4, 5, 6, 8, 12, 16),
    *,
    curve: str | Curve = "ab2",
    also: Sequence[int] | None = None,
    pairs: int | Pairs = 128,
    shape: Sequence[int] | None = None,
    validation: float = 0.25,
    iterations: int | None = None,
    max_calls: int | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-6,
    seed: int = 0,
    batch: int = 4096,
    device: torch.device | str = "cpu",
    cache: str | Path | None = None,
    progress: bool = False,
    **conditions: Any,
) -> CurveFit:
    """Fit one curve from which solvers with any number of calls are read.

    Gauss-Newton on the mean over ``nfes`` of the logarithm of the endpoint RMSE; the network is only ever
    called. The iterate with the best mean PSNR on the held-out pairs is returned, over ``nfes`` and ``also``
    and with the plain base solvers among the iterates.

    Args:
        field: the model.
        nfes: numbers of calls to fit.
        curve: a :class:`~fewstep.families.Curve`, or the name of the base method of one.
        also: numbers of calls that are not fitted, but looked at in validation; by default those midway
            between two of ``nfes`` that the base can make.
        pairs: how many reference pairs to make, at least 4, or the pairs themselves.
        shape: shape of one sample, where the field does not know it.
        validation: share of the pairs kept for validation, at least two pairs.
        iterations: most iterations, 40 by default.
        max_calls: stop before the fit makes more network calls than this, the reference included.
        rtol: relative tolerance of the reference.
        atol: absolute tolerance of the reference.
        seed: seed of the noises.
        batch: most samples the network is given at once.
        device: where the noises are put, when ``pairs`` is a number.
        cache: folder to keep reference samples in.
        progress: show progress bars.
        **conditions: passed to the network; tensors with one row a pair go with the pairs.

    Raises:
        ValueError: on arguments that do not fit together.
    """
    check_arguments("gauss_newton", "rmse", validation, iterations)
    curve = Curve(curve) if isinstance(curve, str) else curve
    fitted = _members(curve, nfes)
    looked_at = _midway(curve, nfes) if also is None else [curve.member(nfe) for nfe in also]
    everyone = [*fitted, *(member for member in looked_at if member.nfe not in nfes)]
    started = time.perf_counter()
    pairs = reference_pairs(
        field,
        pairs,
        shape,
        seed,
        batch,
        device,
        conditions,
        rtol=rtol,
        atol=atol,
        cache=cache,
        progress=progress,
    )
    train, held_out = held_back(pairs, validation)
    calls, seconds = {"reference": pairs.calls}, {"reference": time.perf_counter() - started}

    started = time.perf_counter()
    rollout = Rollout(field, batch)
    if max_calls is not None:
        start = sum(nfe * len(train) for nfe in nfes) + sum(member.nfe * len(held_out) for member in everyone)
        rollout.limit = check_budget(max_calls, pairs.calls, start)
    optimizer = "gauss_newton"
    iterations = ITERATIONS[optimizer] if iterations is None else iterations
    iterates = JointGaussNewton(rollout, fitted, train, ENDPOINT_LOSSES["rmse"])(iterations)
    chosen = follow(iterates, everyone, rollout, held_out, iterations, PATIENCE[optimizer], progress)
    calls["fit"], seconds["fit"] = rollout.calls, time.perf_counter() - started

    started = time.perf_counter()
    judge = Rollout(field, batch)

    def error(member: Family, theta: Tensor) -> float:
        return float(judge.squared_error(member.table(theta).unroll(), held_out).sqrt().mean())

    zero = torch.zeros_like(chosen.theta)
    errors = tuple(
        {"nfe": member.nfe, "fitted": error(member, chosen.theta), "start": error(member, zero)}
        for member in sorted(everyone, key=lambda member: member.nfe)
    )
    calls["errors"], seconds["errors"] = judge.calls, time.perf_counter() - started
    report = CurveReport(
        nfes=tuple(nfes),
        parameters=curve.size,
        pairs={"train": len(train), "validation": len(held_out)},
        errors=errors,
        calls=calls,
        seconds=seconds,
        reference_error=None if pairs.error != pairs.error else pairs.error,
        best_iteration=chosen.iteration,
        stopped=chosen.stopped,
        curve=tuple(chosen.curve),
        notes=_notes(errors, pairs),
    )
    return CurveFit(curve, chosen.theta, report, field.describe())


def _members(curve: Curve, nfes: Sequence[int]) -> list[Family]:
    if isinstance(nfes, int) or len(nfes) == 0 or len(set(nfes)) < len(nfes):
        raise ValueError(f"fit_curve: nfes must be different numbers of calls, at least one, not {nfes}.")
    return [curve.member(nfe) for nfe in nfes]


def _midway(curve: Curve, nfes: Sequence[int]) -> list[Family]:
    """Between each fitted number of calls and the next, the number midway that the base can make."""
    order, stages = sorted(nfes), curve.stages
    middles = {(low + high) // 2 // stages * stages for low, high in zip(order, order[1:], strict=False)}
    return [curve.member(nfe) for nfe in sorted(middles)]


def _notes(errors: Sequence[Mapping[str, float]], pairs: Pairs) -> tuple[str, ...]:
    worse = [str(row["nfe"]) for row in errors if row["fitted"] > row["start"]]
    notes = []
    if worse:
        notes.append(
            f"with {', '.join(worse)} calls the curve is worse on validation than the plain base solver; fit "
            "that number of calls too, or more pairs."
        )
    least = min(row["fitted"] for row in errors)
    if pairs.error > 0.2 * least:
        notes.append(
            f"the reference's own error ({pairs.error:.2g}) is not small against the least of the curve's; "
            "tighten rtol and atol."
        )
    return tuple(notes)
