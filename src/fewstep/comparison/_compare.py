"""Comparison of solvers on the same noises."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from .. import reference
from .._conditions import refuse_conditions
from .._device import device_name
from .._names import check_name
from .._progress import progress_bar
from .._ranges import COUNT, NATURAL, check_range
from ..field import Field, check_field
from ..lifted import Lifted
from ..metrics import METRICS, estimate_error
from ..pairs import Pairs, field_noise
from ..solver import Solver
from ._cells import REFERENCE, Cells
from ._comparison import Comparison, Kept
from ._measure import Measured, OfReference, Quality, measure, measure_reference

__all__ = ["check_metrics", "compare", "shown_name"]


def compare(
    field: Field,
    solvers: Solver | Iterable[Solver] | Mapping[str, Solver | Sequence[Solver]],
    *,
    noise: int | Tensor | Pairs = 256,
    metrics: Sequence[str] = ("rmse", "psnr"),
    seed: int = 1_000_003,
    rtol: float | None = None,
    atol: float | None = None,
    steps: int | None = None,
    batch: int = 256,
    device: torch.device | str | None = None,
    keep: int = 0,
    quality: Quality | None = None,
    model: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> Comparison:
    """Score solvers against the reference solution from the same noises.

    Samples that are not finite, because the solver is unstable or the network returns NaN, do not raise: the
    row of the solver has NaN for every metric, and the reason in ``failure``.

    Args:
        field: the model.
        solvers: one or several, named by :func:`shown_name`; or a mapping from names to a solver or several
            with different NFE.
        noise: number of noises to draw, or the noises, or pairs with their reference.
        metrics: names in :data:`fewstep.metrics.METRICS`.
        seed: seed of the noises that are drawn; not the default seed of fitting.
        rtol: relative tolerance of the reference; by default :func:`fewstep.reference.finest` of the field.
        atol: absolute tolerance of the reference; likewise.
        steps: steps of a fixed grid for the reference instead of adaptive ones, for networks that are rough
            in time; see :func:`fewstep.reference.pairs`.
        batch: samples per batch.
        device: device of the noises if ``noise`` is a number; by default that of the network.
        keep: number of samples of every solver to keep for the page.
        quality: metrics of all samples of a solver together, such as :class:`FeatureQuality`; those of the
            reference's samples are in the protocol. With ``keep`` or this, the model's curvature is
            measured too, on its first reference paths.
        model: name of the model, by default the field's name.
        cache: folder for measurements, which are reused from it.
        progress: show a progress bar.
        conditions: keyword arguments of the network that all noises share.
        per_sample: those with one row per noise, or one row for all; see :meth:`fewstep.Field.bind`.

    Raises:
        ValueError: on an unknown metric, no solver or one that adds noise, noise without a known shape,
            conditions besides pairs, or a cache for a model without weights or a name.
    """
    check_field(field, "compare")
    metrics = [metrics] if isinstance(metrics, str) else metrics
    check_metrics(metrics)
    (batch,) = check_range("compare", COUNT, batch=batch)
    (keep,) = check_range("compare", NATURAL, keep=keep)
    named = _apart(_named(solvers))
    model = model or _model_name(field)
    if not named:
        raise ValueError("compare: there is no solver to score; pass at least one.")
    rtol, atol = (reference.finest(field) if given is None else given for given in (rtol, atol))
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "steps": steps, "batch": batch}
    options |= {"progress": progress, "conditions": conditions, "per_sample": per_sample}
    pairs = _with_reference(field, noise, seed, device, options)
    machine = {
        "batch": batch,
        "device": device_name(pairs.x0.device),
        "threads": torch.get_num_threads(),
    }
    cells = Cells(cache, field, pairs, keep, quality, {**machine, "rtol": rtol, "atol": atol})
    calls = len(pairs) * sum(solver.nfe for _, solver in named)
    found: list[Measured] = []
    with progress_bar(progress, total=calls, desc=model, unit="call", unit_scale=True) as bar:
        for _, solver in named:
            key = solver.describe()["fingerprint"]
            measured = cells.load(key, Measured)
            if measured is None:
                try:
                    measured = measure(
                        field, solver, pairs, batch=batch, keep=keep, quality=quality, advance=bar.update
                    )
                except FloatingPointError as error:
                    # Not saved: it is found again within one batch, and the machine may be at fault.
                    measured = Measured.failed(str(error), solver, pairs, keep, quality)
                else:
                    cells.save(key, measured)
            else:
                bar.update(len(pairs) * solver.nfe)
            found.append(measured)
    columns = (*metrics, *(() if quality is None else quality.names))
    rows = tuple(
        {"model": model, "solver": name, **_row(field, solver, metrics, measured)}
        for (name, solver), measured in zip(named, found, strict=True)
    )
    protocol: dict[str, Any] = {
        "field": field.describe(),
        "fitted": list(dict.fromkeys(name for name, solver in named if solver.family)),
        "samples": len(pairs),
        "seed": seed if isinstance(noise, Integral) else pairs.provenance.get("seed"),
        "reference": {**pairs.provenance, "nfe": pairs.nfe, "error": pairs.error},
        **machine,
    }
    if quality is not None:
        protocol["quality"] = quality.describe()
    kept = None
    if keep or quality is not None:
        known = cells.load(REFERENCE, OfReference)
        if known is None:
            known = measure_reference(
                field, pairs, rtol=rtol, atol=atol, batch=batch, keep=keep, quality=quality
            )
            cells.save(REFERENCE, known)
        protocol["reference"] |= known.figures
        protocol["curvature"] = known.describe()
        if keep:
            kept = _kept([solver for _, solver in named], found, pairs, known.path, keep)
    return Comparison(rows, columns, protocol, kept)


def check_metrics(metrics: Sequence[str]) -> None:
    """Raise a ``ValueError`` when there are no metrics, or unknown ones."""
    if not metrics:
        raise ValueError(f"compare: there is no metric; pass at least one of {', '.join(METRICS)}.")
    for name in metrics:
        check_name("compare: metrics", name, METRICS)


def shown_name(solver: Solver) -> str:
    """Return the name of a solver in a comparison: its family if fitted, the same for every NFE."""
    kind = "lifted" if isinstance(solver, Lifted) else "fitted"
    return f"{kind} {solver.family['name']}" if solver.family else solver.name


def _row(field: Field, solver: Solver, metrics: Sequence[str], found: Measured) -> dict[str, Any]:
    row: dict[str, Any] = {"nfe": solver.nfe, "forwards": solver.nfe * field.forwards_per_call}
    for metric in metrics:
        known = estimate_error(metric, found.mse)
        row |= {metric: known.value, f"{metric}_low": known.low, f"{metric}_high": known.high}
    row |= found.figures | {"milliseconds": 1000 * found.seconds / len(found.mse)}
    return row if found.failure is None else {**row, "failure": found.failure}


def _named(
    solvers: Solver | Iterable[Solver] | Mapping[str, Solver | Sequence[Solver]],
) -> Iterator[tuple[str, Solver]]:
    if not isinstance(solvers, Mapping):
        several = solvers if isinstance(solvers, Iterable) and not isinstance(solvers, str) else [solvers]
        yield from ((shown_name(_table(solver)), _table(solver)) for solver in several)
        return
    for name, group in solvers.items():
        yield from ((name, _table(each)) for each in (group if isinstance(group, list | tuple) else [group]))


def _model_name(field: Field) -> str:
    """Return the name of a field, or of the function that it was made of without a name."""
    if field.name not in ("function", "method", "partial"):
        return field.name
    name: str = getattr(field.model, "__name__", "<lambda>")
    return "model" if name == "<lambda>" else name


def _apart(named: Iterable[tuple[str, Solver]]) -> list[tuple[str, Solver]]:
    """Number different solvers of one name and NFE, and leave out those given twice."""
    found: dict[tuple[str, int], Solver] = {}
    for name, solver in named:
        for own in chain([name], (f"{name} ({k})" for k in count(2))):
            if found.setdefault((own, solver.nfe), solver) == solver:
                break
    return [(name, solver) for (name, _), solver in found.items()]


def _table(solver: Any) -> Solver:
    """Return a solver, or that of a fit with one."""
    found = getattr(solver, "solver", solver)
    if not isinstance(found, Solver):
        raise ValueError(
            f"compare: solvers must be Solver objects, alone, in a list or by name, not {solver!r:.60}; "
            "fs.classical.named('midpoint', 8) makes a classical one."
        )
    found.check_ode("compare")  # its samples differ from the reference by the noise alone
    return found


def _with_reference(
    field: Field,
    noise: int | Tensor | Pairs,
    seed: int,
    device: torch.device | str | None,
    options: Mapping[str, Any],
) -> Pairs:
    if isinstance(noise, Pairs):
        refuse_conditions("compare", options["conditions"], options["per_sample"])
        noise.warn_of_another(field, "compare")
        return noise
    if not isinstance(noise, Tensor):
        noise = field_noise(field, noise, seed, device)
    return reference.pairs(field, noise, **options)


def _kept(
    solvers: Sequence[Solver], found: Sequence[Measured], pairs: Pairs, path: Tensor | None, keep: int
) -> Kept:
    return Kept(
        solvers=tuple(solvers),
        samples=tuple(measured.samples for measured in found),
        reference=pairs.x1[:keep].cpu().clone(),  # a view would keep them all
        paths=tuple(measured.path for measured in found if measured.path is not None),
        reference_path=path,
    )
