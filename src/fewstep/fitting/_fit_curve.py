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

from ..families import SmoothCorrections
from ..families.guided import Curves, curves_from_dict, describe_curves
from ..families.smooth_corrections import TERMS
from ..field import Field
from ..pairs import Pairs
from ..solver import Solver
from ._arguments import check_arguments, default_init
from ._fit_shared import fit_shared
from ._reference_pairs import held_back, reference_pairs
from ._rollout import Rollout
from ._shared_file import Content, check_theta, has_format, load_shared, save_shared
from .curve_report import CurveReport
from .joint import Task

__all__ = ["CurveFit", "fit_curve", "is_curve_file"]


@dataclass(frozen=True, eq=False)
class CurveFit:
    """A fitted curve, from which a solver with any number of calls is read.

    Args:
        curve: the functions, up to theta.
        theta: their parameters, float64 of shape ``(curve.size,)``.
        report: the record of the fit.
        fitted_for: the field it was fitted to.
    """

    curve: Curves
    theta: Tensor
    report: CurveReport
    fitted_for: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_theta("curve", self.curve.describe(), self.curve.size, self.theta)

    def solver(self, nfe: int) -> Solver:
        """The solver with ``nfe`` calls, with what it was fitted for and how.

        Args:
            nfe: number of network calls, from the least fitted one on. Between fitted numbers the curve
                interpolates, least surely where calls are few; beyond the largest it extrapolates.

        Raises:
            ValueError: when the base cannot make exactly ``nfe`` calls, or fewer were not fitted.
        """
        facts = self.report.facts(self.fitted_for, nfe)
        return self.curve.solver(self.theta, nfe, **facts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the curve as a JSON file that a person can read; theta keeps every bit."""
        content = Content(self.theta, self.report, self.fitted_for)
        save_shared(path, "curve", describe_curves(self.curve), content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CurveFit:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is truncated, newer than this version, or not a curve.
        """
        return load_shared(
            path,
            "curve",
            "CurveFit.save()",
            lambda facts, content: cls(curves_from_dict(facts), *content),
        )


def fit_curve(
    field: Field,
    nfes: Sequence[int] = (4, 5, 6, 7, 8, 9, 10, 12, 14, 16),
    *,
    curve: str | Curves | None = None,
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
    device: torch.device | str | None = None,
    cache: str | Path | None = None,
    progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> CurveFit:
    """Fit one curve from which solvers with any number of calls are read.

    Gauss-Newton on the mean over ``nfes`` of the logarithm of the endpoint RMSE; the network is only ever
    called. The iterate with the best mean PSNR on the held-out pairs is returned, over ``nfes`` and ``also``
    and with the plain base solvers among the iterates.

    Args:
        field: the model.
        nfes: numbers of calls to fit. Those between are less sure, most of all where calls are few.
        curve: what is fitted: a classical solver with one call a step by name, such as ``"ab2"`` or
            ``"deis3/cosine"``, to which smooth corrections are fitted; a
            :class:`~fewstep.families.SmoothCorrections` or :class:`~fewstep.families.Curve`. By default
            DEIS of order 3 on the cosine grid or, where that has no velocities, Adams-Bashforth 2.
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
        device: where the noises are put, when ``pairs`` is a number; by default where the network is.
        cache: folder to keep reference samples in.
        progress: show progress bars.
        conditions: keyword arguments of the network that all pairs share.
        per_sample: those with one row a pair, or one row for all; see :meth:`fewstep.Field.bind`.

    Raises:
        ValueError: on arguments that do not fit together.
    """
    check_arguments("gauss_newton", validation, iterations)
    check_nfes("fit_curve", nfes)
    curve = resolve_curve(curve, nfes, field)
    also = midway(curve, nfes) if also is None else also
    everyone = [curve.member(nfe) for nfe in sorted({*nfes, *also})]
    started = time.perf_counter()
    pairs = reference_pairs(
        field,
        pairs,
        shape,
        seed,
        batch,
        device,
        conditions,
        per_sample,
        rtol=rtol,
        atol=atol,
        cache=cache,
        progress=progress,
    )
    train, held_out = held_back(pairs, validation)
    rollout = Rollout(field, batch)
    shared = fit_shared(
        [Task(rollout, member, train) for member in everyone if member.nfe in nfes],
        [Task(rollout, member, held_out) for member in everyone],
        [{"nfe": member.nfe} for member in everyone],
        {"calls": pairs.calls, "seconds": time.perf_counter() - started},
        iterations=iterations,
        max_calls=max_calls,
        progress=progress,
        desc=f"fitting {', '.join(map(str, nfes))} calls",
    )
    report = CurveReport.of(shared.record, shared.errors, [pairs], nfes)
    return CurveFit(curve, shared.theta, report, field.describe())


def is_curve_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a file at ``path`` that says it is one of :meth:`CurveFit.save`."""
    return has_format(path, "curve")


def check_nfes(function: str, nfes: Sequence[int]) -> None:
    """Raise a ``ValueError`` unless these are different numbers of calls."""
    if isinstance(nfes, int) or len(nfes) == 0 or len(set(nfes)) < len(nfes):
        raise ValueError(f"{function}: nfes must be different numbers of calls, at least one, not {nfes}.")


def resolve_curve(curve: str | Curves | None, nfes: Sequence[int], field: Field) -> Curves:
    """The curves of a name: smooth corrections, with no more terms than there are numbers of calls."""
    if curve is None:
        curve = default_init(max(nfes), field)
    if not isinstance(curve, str):
        return curve
    return SmoothCorrections(curve, field.schedule, terms=min(TERMS, len(nfes)))


def midway(curve: Curves, nfes: Sequence[int]) -> list[int]:
    """Between each fitted number of calls and the next, the number midway that the base can make."""
    order, stages = sorted(nfes), curve.stages
    return sorted({(low + high) // 2 // stages * stages for low, high in zip(order, order[1:], strict=False)})
