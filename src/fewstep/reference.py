"""The reference: nearly exact solutions by adaptive Dormand-Prince, capped, counted and cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._device import widest
from ._dopri5 import CallLimitError, dopri5
from ._files import write_text
from ._hashing import fingerprint
from ._progress import progress_bar
from .field import Field
from .pairs import Pairs, take

__all__ = ["CallLimitError", "Solution", "pairs", "solve"]

#: How many samples the error of a reference is estimated on.
ERROR_SAMPLES = 8


class Solution(NamedTuple):
    """A reference solution of one batch.

    Shape:
        ``states``: ``(T, B, ...)``, at the times asked for; ``nfe``: network calls a sample.
    """

    states: Tensor
    nfe: int


def solve(
    field: Field,
    x0: Tensor,
    *,
    times: Sequence[float] = (0.0, 1.0),
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    dtype: torch.dtype | None = None,
    **conditions: Any,
) -> Solution:
    """Solve the sampling ODE from noise by torchdiffeq's ``dopri5``, one step size for the batch.

    Args:
        field: the field.
        x0: standard normal noise, ``(B, ...)``.
        times: where to return the state, increasing from 0; the last one is where to stop.
        rtol: relative tolerance of the local error.
        atol: absolute tolerance of the local error.
        max_nfe: network calls after which to give up.
        dtype: type of the integrated state, ``x0``'s by default; float64 keeps rounding out of
            the state while the network still sees ``x0``'s type.
        **conditions: passed to the network untouched.

    Raises:
        CallLimitError: when ``max_nfe`` calls are not enough.
        FloatingPointError: when the network returns NaN, or float32 cannot resolve the tolerance.
    """

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        return field(x.to(x0.dtype), t, **conditions).to(x.dtype)

    state = field.initial_state(x0).to(dtype or x0.dtype)
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
    states, nfe = dopri5(velocity, state, times, "reference", jumps=field.discontinuities, **options)
    return Solution(states.to(x0.dtype), nfe)


def pairs(
    field: Field,
    x0: Tensor,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 2000,
    dtype: torch.dtype | None = None,
    batch: int = 256,
    cache: str | Path | None = None,
    progress: bool = False,
    provenance: Mapping[str, Any] | None = None,
    **conditions: Any,
) -> Pairs:
    """Reference samples of given noises, batch by batch.

    Args:
        field: the field.
        x0: standard normal noise, ``(B, ...)``; :func:`fewstep.noise` draws it.
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_nfe: network calls a batch after which to give up.
        dtype: type of the integrated state; see :func:`solve`.
        batch: samples solved together; the step size is common to them.
        cache: folder to keep finished batches in. The same noises, field and tolerances are read
            back from it, and an interrupted run goes on where it stopped.
        progress: show a progress bar of the samples.
        provenance: further facts to record, such as the seed of the noise.
        **conditions: passed to the network; tensors with first dimension ``B`` go with the samples.

    Returns:
        The pairs, with call counts and an estimate of their error.
    """
    facts = {
        "field": field.describe(),
        "method": "dopri5",
        "rtol": rtol,
        "atol": atol,
        "state_dtype": str(dtype or x0.dtype),
        "batch": batch,
        **(provenance or {}),
    }
    folder = None if cache is None else _cache_folder(Path(cache), field, x0, conditions, facts)
    parts: list[Pairs] = []
    with progress_bar(progress, total=len(x0), desc="reference", unit="sample") as bar:
        for first in range(0, len(x0), batch):
            index = slice(first, first + batch)
            file = None if folder is None else folder / f"{first:07d}.safetensors"
            if file is not None and file.exists():
                parts.append(Pairs.load(file, device=x0.device))
            else:
                given = take(conditions, index, len(x0))
                options: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": max_nfe}
                states, nfe = solve(field, x0[index], dtype=dtype, **options, **given)
                parts.append(Pairs(x0[index], states[-1], nfe, nfe * len(states[-1])))
                if first == 0:
                    few = take(conditions, slice(0, min(batch, ERROR_SAMPLES)), len(x0))
                    parts[0] = _with_error(field, parts[0], options, few)
                if file is not None:
                    parts[-1].save(file)
            bar.update(len(parts[-1]))
    return Pairs(
        x0,
        torch.cat([part.x1 for part in parts]),
        nfe=max(part.nfe for part in parts),
        calls=sum(part.calls for part in parts),
        error=parts[0].error,
        conditions=conditions,
        provenance=facts,
    )


def _with_error(field: Field, part: Pairs, options: dict[str, Any], conditions: Mapping[str, Any]) -> Pairs:
    """Estimate the error of a few samples against ten times tighter tolerances, in float64 if there is."""
    few = slice(0, ERROR_SAMPLES)  # whose conditions these are
    tighter = {**options, "rtol": options["rtol"] / 10, "atol": options["atol"] / 10}
    states, nfe = solve(field, part.x0[few], dtype=widest(part.x0.device), **tighter, **conditions)
    error = (states[-1] - part.x1[few]).square().mean().sqrt().item()
    return replace(part, error=error, calls=part.calls + nfe * len(states[-1]))


def _cache_folder(
    cache: Path, field: Field, x0: Tensor, conditions: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """The folder of this very request, with its provenance written down."""
    record = {**facts, "fingerprint": field.fingerprint(), "noise": fingerprint([x0, conditions])}
    text = json.dumps(record, indent=2, sort_keys=True)
    folder = cache / hashlib.sha256(text.encode()).hexdigest()[:16]
    if not (folder / "provenance.json").exists():
        write_text(folder / "provenance.json", text + "\n")
    return folder
