"""Fit solvers to a guided field: one fit, a solver for every guidance scale and number of calls."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from .. import reference
from ..families import Guided, NonStationary
from ..families.guided import Curves
from ..field import Field
from ..pairs import Pairs
from ..solver import Solver
from ._arguments import check_arguments, resolve_family
from ._fit_curve import check_nfes, midway, resolve_curve
from ._fit_shared import fit_shared
from ._reference_pairs import held_back, reference_pairs
from ._rollout import Rollout
from ._shared_file import Content, check_theta, load_shared, save_shared
from .curve_report import CurveReport
from .joint import Task

__all__ = ["GuidedFit", "fit_guidance"]

#: A field at every guidance scale.
Fields = Callable[[float], Field]


@dataclass(frozen=True, eq=False)
class GuidedFit:
    """Fitted solvers for every guidance scale in a range.

    Args:
        guided: the functions of the scale, up to theta.
        theta: their parameters, float64 of shape ``(guided.size,)``.
        report: the record of the fit.
        fitted_for: the field it was fitted to, at the largest scale.
    """

    guided: Guided
    theta: Tensor
    report: CurveReport
    fitted_for: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_theta("guided fit", self.guided.describe(), self.guided.size, self.theta)

    def solver(self, guidance: float, nfe: int | None = None) -> Solver:
        """The solver for a guidance scale, with what it was fitted for and how.

        Args:
            guidance: the scale that the field will have, within those fitted.
            nfe: number of network calls, needed where several were fitted; from the least of them on.

        Raises:
            ValueError: on a scale out of range, or a number of calls that was not fitted for.
        """
        member = self.guided.member(guidance, nfe)
        facts = self.report.facts(self.fitted_for, member.nfe, guidance=float(guidance))
        return member.solver(self.theta, **facts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that a person can read; theta keeps every bit."""
        content = Content(self.theta, self.report, self.fitted_for)
        save_shared(path, "guided", self.guided.describe(), content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GuidedFit:
        """Read a file that :meth:`save` wrote.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is truncated, newer than this version, or not a guided fit.
        """
        return load_shared(
            path,
            "guided",
            "GuidedFit.save()",
            lambda facts, content: cls(Guided.from_dict(facts), *content),
        )


def fit_guidance(
    field: Field | Fields,
    nfe: int | Sequence[int] = 8,
    *,
    scales: Sequence[float] = (1, 1.5, 2, 3, 4, 5),
    terms: int = 2,
    init: str | Curves | None = None,
    also: Sequence[float] | None = None,
    pairs: int | Mapping[float, Pairs] = 128,
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
) -> GuidedFit:
    """Fit solvers at several guidance scales together, from which one for any scale between is read.

    Gauss-Newton on the mean over scales of the logarithm of the endpoint RMSE; every scale has the same
    noises. The iterate with the best mean PSNR on the held-out pairs is returned, over ``scales`` and
    ``also``. A network call is one of the field, which asks the network twice where it is guided.

    Args:
        field: the model: a field with ``unconditional`` or ``guide``, whose guidance scale is replaced, or
            a function from a scale to the field, for models that apply guidance themselves.
        nfe: network calls of the solvers: a number, for non-stationary solvers; or several, for a
            curve in the number of calls as well, which should name all that matter: between few of them the
            curve can be worse than the classical solver.
        scales: guidance scales to fit, above 0.
        terms: polynomials in the logarithm of the scale, at most as many as there are scales.
        init: the classical solver that corrections are made to, by name; with several ``nfe`` also what
            ``curve`` is in :func:`fewstep.fit_curve`. The default is that of the other fits.
        also: scales that are not fitted, but looked at in validation; by default those midway between two.
        pairs: how many reference pairs to make at each scale, at least 4, or the pairs by scale, of the same
            noises and conditions.
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
    scales = _check_scales(scales)
    fields: Fields = field.with_guidance if isinstance(field, Field) else field
    top = fields(scales[-1])
    guided = Guided(_solvers(nfe, init, top), scales[0], scales[-1], min(terms, len(scales)))
    nfes = [nfe] if isinstance(nfe, int) else list(nfe)
    middles = midway(guided.solvers, nfes) if not isinstance(guided.solvers, NonStationary) else []
    looked_at = _between(scales) if also is None else [float(w) for w in also]
    for w in looked_at:
        guided.basis(w)  # raises where the scale is out of range

    started = time.perf_counter()
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "cache": cache, "progress": progress}
    given = _pairs_by_scale(
        fields, scales, pairs, (shape, seed, batch, device, conditions, per_sample), options
    )
    split = {w: held_back(those, validation) for w, those in given.items()}
    train = {w: split[w][0] for w in scales}
    held_out = {w: part for w, (_, part) in split.items() if w in (*scales, *looked_at)}
    like = held_out[scales[-1]]
    for w in looked_at:
        if w not in held_out:
            made = reference.pairs(like.bind(fields(w)), like.x0, batch=min(batch, 256), **options)
            own: dict[str, Any] = {
                "conditions": like.conditions,
                "per_sample": like.per_sample,
                "origin": like.origin,
            }
            held_out[w] = replace(made, **own)
    references = [*given.values(), *(those for w, those in held_out.items() if w not in given)]

    first = Rollout(top, batch)
    rollouts = {w: first.sharing(fields(w)) for w in held_out}
    at = list(product(sorted({*nfes, *middles}), sorted(held_out)))
    shared = fit_shared(
        [Task(rollouts[w], guided.member(w, n), train[w]) for n, w in at if n in nfes and w in train],
        [Task(rollouts[w], guided.member(w, n), held_out[w]) for n, w in at],
        [{"nfe": n, "guidance": w} for n, w in at],
        {"calls": sum(those.calls for those in references), "seconds": time.perf_counter() - started},
        iterations=iterations,
        max_calls=max_calls,
        progress=progress,
        desc=f"fitting {', '.join(map(str, nfes))} calls at {len(scales)} scales",
    )
    report = CurveReport.of(shared.record, shared.errors, references, nfes, scales)
    return GuidedFit(guided, shared.theta, report, top.describe())


def _check_scales(scales: Sequence[float]) -> tuple[float, ...]:
    wrong = isinstance(scales, (int, float)) or len(scales) == 0 or len(set(scales)) < len(scales)
    if wrong or not all(0 < w < math.inf for w in scales):
        raise ValueError(
            f"fit_guidance: scales must be different guidance scales above 0, at least one, not {scales}."
        )
    return tuple(sorted(float(w) for w in scales))


def _solvers(nfe: int | Sequence[int], init: str | Curves | None, field: Field) -> NonStationary | Curves:
    if not isinstance(nfe, int):
        check_nfes("fit_guidance", nfe)
        return resolve_curve(init, nfe, field)
    if not (init is None or isinstance(init, str)):
        raise ValueError(
            f"fit_guidance: with nfe={nfe} init must be the name of a classical solver, not {init!r}; curves "
            f"go with several numbers of calls, as in nfe=(4, 6, {nfe})."
        )
    return cast(NonStationary, resolve_family("non_stationary", nfe, init, field))


def _between(scales: Sequence[float]) -> list[float]:
    return [(low + high) / 2 for low, high in zip(scales, scales[1:], strict=False)]


def _pairs_by_scale(
    fields: Fields,
    scales: Sequence[float],
    pairs: int | Mapping[float, Pairs],
    drawn: tuple[Any, ...],
    options: Mapping[str, Any],
) -> dict[float, Pairs]:
    if isinstance(pairs, int):
        return {w: reference_pairs(fields(w), pairs, *drawn, **options) for w in scales}
    given = {float(w): those for w, those in pairs.items()}
    missing = [f"{w:g}" for w in scales if w not in given]
    if missing:
        raise ValueError(f"fit_guidance: pairs has none for the scales {', '.join(missing)}.")
    for those in given.values():
        reference_pairs(fields(scales[0]), those, *drawn)  # raises where they cannot serve
        if not torch.equal(those.x0, given[scales[0]].x0):
            raise ValueError(
                "fit_guidance: pairs must have the same noises at every scale; make them all from one x0."
            )
    return given
