"""Reference solutions, nearly exact, with counted calls and a cache.

They are by adaptive Dormand-Prince. Of a network that is rough in time, as one with rounded timesteps is, its
step sizes collapse: the classical Runge-Kutta method on a fixed grid takes over, whose error is measured.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ._device import widest
from ._dopri5 import CallLimitError, answers_differ
from ._files import write_text
from ._fixed_grid import ChosenGrid, choose_grid, most_steps, steps_onto
from ._hashing import fingerprint
from ._network import state_type
from ._path import check_noise
from ._progress import progress_bar
from ._ranges import COUNT, NOT_NEGATIVE, check_range
from ._reference import Solution, finest, solve
from .field import Field, check_field
from .pairs import Pairs

__all__ = ["CallLimitError", "Solution", "finest", "pairs", "remarks", "solve"]

#: Number of samples on which the error of a reference is estimated.
ERROR_SAMPLES = 8
#: Limit on the calls of the error estimate, in multiples of that of a batch.
_ERROR_CALLS = 4
#: Known jumps up to this number are left to Dormand-Prince; a fixed grid steps onto more with fewer calls.
_FEW_JUMPS = 8


def pairs(
    field: Field,
    x0: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    dtype: torch.dtype | None = None,
    steps: int | None = None,
    batch: int = 256,
    cache: str | Path | None = None,
    progress: bool = False,
    provenance: Mapping[str, Any] | None = None,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> Pairs:
    """Compute the reference samples of given noises in batches.

    Args:
        field: the field.
        x0: standard normal noise, ``(B, ...)``; :func:`fewstep.noise` draws it.
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_nfe: most network calls per batch, and as many again on a fixed grid; see below.
        dtype: type of the integrated state; see :func:`solve`.
        steps: steps of a fixed grid for all batches, as in :func:`solve`. Of networks that are rough in time,
            it is nearer to the exact samples than adaptive steps of as many calls.
        batch: samples solved together, with one step size.
        cache: folder for finished batches, which are reused for the same noises, field and tolerances, so
            that an interrupted run can be resumed.
        progress: show a progress bar of the samples.
        provenance: further facts to record, such as the seed of the noise.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row per sample, or one row for all; see :meth:`Field.bind`.

    Returns:
        The pairs, with call counts and an estimate of their error: NaN, with ``error_note`` in the
        provenance, if that takes more than four times ``max_nfe`` calls or the device lacks the precision.
        On a fixed grid, ``provenance["steps"]`` are its steps, and ``error`` is the RMSE to twice as many.
        One is taken where the clock of the field has many known jumps, onto which it steps, and, with a
        ``grid_note`` in the provenance, where ``max_nfe`` calls of adaptive steps are not enough.

    Raises:
        ValueError: when ``x0`` is no batch of noise, a condition has a wrong number of rows, or a number is
            out of range.
        CallLimitError: when ``max_nfe`` calls are not enough for a batch, and the error of a fixed grid of as
            many is above 1% of the samples.
        FloatingPointError: when the network returns NaN, or float32 cannot resolve the tolerance.
    """
    check_field(field, "reference.pairs")
    check_noise(x0, "reference.pairs: x0", some=True)
    batch, max_nfe = check_range("reference.pairs", COUNT, batch=batch, max_nfe=max_nfe)
    rtol, atol = check_range("reference.pairs", NOT_NEGATIVE, rtol=rtol, atol=atol)
    if steps is not None:
        (steps,) = check_range("reference.pairs", COUNT, steps=steps)
    x0 = x0.to(state_type(x0.dtype))
    bound = field.bind(conditions, per_sample, len(x0), "pairs")
    facts = {
        "field": field.describe(),
        "method": "dopri5",
        "rtol": rtol,
        "atol": atol,
        "state_dtype": str(dtype or x0.dtype),
        **({} if steps is None else {"steps": steps}),
        "batch": batch,
        **(provenance or {}),
    }
    known = [x0, conditions or {}, per_sample or {}]
    folder = None if cache is None else _cache_folder(Path(cache), field, known, facts)
    options = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe, "dtype": dtype, "steps": steps}
    parts: list[Pairs] = []
    with progress_bar(progress, total=len(x0), desc="reference", unit="sample") as bar:
        for first in range(0, len(x0), batch):
            index = slice(first, first + batch)
            file = None if folder is None else folder / f"{first:07d}.safetensors"
            if file is not None and file.exists():
                parts.append(Pairs.load(file, device=x0.device))
            else:
                parts.append(_batch(bound.rows(index), x0[index], parts, options))
                if file is not None:
                    parts[-1].save(file)
            bar.update(len(parts[-1]))
    found = {key: value for part in reversed(parts) for key, value in part.provenance.items()}
    return Pairs(
        x0,
        torch.cat([part.x1 for part in parts]),
        nfe=max(part.nfe for part in parts),
        calls=sum(part.calls for part in parts),
        error=max((part.error for part in parts if part.error >= 0), default=math.nan),
        conditions=dict(conditions or {}),
        per_sample=dict(per_sample or {}),
        provenance={**facts, **found},
    )


def remarks(provenance: Mapping[str, Any]) -> list[str]:
    """Return what users of pairs should know: a fixed grid that took over, an error that is unknown."""
    notes = (provenance.get(key) for key in ("grid_note", "error_note"))
    return [f"reference: {note}." for note in notes if note]


def _batch(field: Field, x0: Tensor, before: Sequence[Pairs], options: Mapping[str, Any]) -> Pairs:
    """Solve one batch; the first one of a method gets its error estimated.

    Args:
        field: the field, bound to the conditions of the batch.
        x0: the noises of the batch.
        before: the batches before, which show whether a fixed grid is needed.
        options: options of :func:`solve`.
    """
    grids = [part.provenance["steps"] for part in before if "steps" in part.provenance]
    if grids:
        return _on_grid(field, x0, grids[0], options)
    jumps, most, facts = field.discontinuities, options["max_nfe"], {"method": "rk4 on a fixed grid"}
    grid, lost = None, 0
    if options["steps"] is not None:
        grid = _choose_grid(field, x0, options, options["steps"], 0)
    elif len(jumps) > _FEW_JUMPS and steps_onto(jumps, most):
        grid = _choose_grid(field, x0, options, steps_onto(jumps, most), most)
    if grid is None:
        try:
            states, nfe = solve(field, x0, **options)
        except CallLimitError as limit:
            lost = most * len(x0)
            few = slice(0, ERROR_SAMPLES)
            if answers_differ(lambda: field.rows(few)(x0[few], 0.5)):
                raise
            try:
                grid = _choose_grid(field, x0, options, most_steps(jumps, most), 0)
            except FloatingPointError:  # its states diverge
                raise limit from None
            if grid.useless:
                raise
            facts["grid_note"] = (
                f"the network is rough: {most} calls of an adaptive solver did not meet "
                f"rtol={options['rtol']:g}, atol={options['atol']:g}; a fixed grid of {grid.nfe} calls took "
                f"over, with an error of {grid.error:.2g} by halving its steps"
            )
        else:
            part = Pairs(x0, states[-1], nfe, nfe * len(x0))
            return part if before else _with_error(field, part, options)
    part = _on_grid(field, x0, grid.steps, options)
    calls = lost + part.calls + grid.calls * min(len(x0), ERROR_SAMPLES)
    return replace(part, error=grid.error, calls=calls, provenance={**facts, "steps": grid.steps})


def _on_grid(field: Field, x0: Tensor, steps: int, options: Mapping[str, Any]) -> Pairs:
    states, nfe = solve(field, x0, **{**options, "steps": steps})
    return Pairs(x0, states[-1], nfe, nfe * len(x0))


def _choose_grid(
    field: Field, x0: Tensor, options: Mapping[str, Any], fewest: int, max_nfe: int
) -> ChosenGrid:
    """Choose the fixed grid of a batch on a few of its samples."""
    few = slice(0, ERROR_SAMPLES)
    field, x0 = field.rows(few), x0[few]

    def solved(steps: int) -> tuple[Tensor, int]:
        made = _on_grid(field, x0, steps, options)
        return made.x1, made.nfe

    return choose_grid(solved, fewest, max_nfe, (options["rtol"], options["atol"]))


def _with_error(field: Field, part: Pairs, options: Mapping[str, Any]) -> Pairs:
    """Estimate the error on a few samples by ten times tighter tolerances, in float64 if available.

    Args:
        field: the field, bound to the conditions of the batch.
        part: the first batch.
        options: options of :func:`solve`.
    """
    few, cap = slice(0, ERROR_SAMPLES), _ERROR_CALLS * options["max_nfe"]
    x0, x1 = part.x0[few], part.x1[few]
    tighter = {"rtol": options["rtol"] / 10, "atol": options["atol"] / 10, "max_nfe": cap}
    try:
        states, nfe = solve(field.rows(few), x0, dtype=widest(x0.device), **tighter)
    except (CallLimitError, FloatingPointError) as failure:
        limited = isinstance(failure, CallLimitError)
        note = (
            f"the error is unknown: ten times tighter tolerances than rtol={options['rtol']:g}, "
            f"atol={options['atol']:g}, which measure it, "
            + (f"take more than {cap} calls" if limited else "are beyond the network's precision")
        )
        return replace(part, calls=part.calls + cap * len(x0), provenance={"error_note": note})
    error = (states[-1] - x1).square().mean().sqrt().item()
    return replace(part, error=error, calls=part.calls + nfe * len(x0))


def _cache_folder(cache: Path, field: Field, known: Sequence[Any], facts: Mapping[str, Any]) -> Path:
    """Return the cache folder of these arguments, with its provenance file; ``known``: noises, conditions."""
    record = {**facts, "fingerprint": field.fingerprint(), "noise": fingerprint(known)}
    text = json.dumps(record, indent=2, sort_keys=True)
    folder = cache / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / "provenance.json").exists():
        write_text(folder / "provenance.json", text + "\n")
    return folder
