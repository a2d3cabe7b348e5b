"""``check``: whether a field is wired as its network was trained, in words and numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._json import finite
from .._network import state_type
from .._progress import progress_bar
from .._transforms import RescheduledField, ReversedField
from ..field import Field
from ._judge import Finding, Judgement, with_data, without_data
from ._measure import Law, Probe
from ._wiring import declared, rewired

__all__ = ["Check", "check"]

#: How many wirings that cannot be told apart are named.
_NAMED = 4


@dataclass(frozen=True)
class Check:
    """What :func:`check` found.

    Args:
        field: the field, in words.
        findings: what is wrong; none where the field is as it should be.
        suggestion: how the network seems to be meant, where another wiring passes.
        corrected: the field wired like that.
        alike: other wirings that do as well as the one suggested, or as the one declared.
        loss: logarithm of the denoising error over that of the best linear filter, below 0 in a field of
            data that are not Gaussian.
        calibration: logarithm of the denoising error over what an affine correction would leave of it.
        data: whether it was judged on real data.
        samples: samples a network call.
        calls: network calls, each of a batch of samples.
        notes: what to know besides.
    """

    field: str
    findings: tuple[Finding, ...]
    suggestion: str | None
    corrected: Field | None
    alike: tuple[str, ...]
    loss: float
    calibration: float
    data: bool
    samples: int
    calls: int
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """All of it, JSON-ready."""
        facts = {key: value for key, value in vars(self).items() if key != "corrected"}
        return {"ok": self.ok, **facts, "findings": [finding._asdict() for finding in self.findings]}

    def to_json(self) -> str:
        """All of it as JSON; ``null`` stands for what is not finite."""
        return json.dumps(finite(self.to_dict()), indent=2, allow_nan=False) + "\n"

    def __str__(self) -> str:
        source = "real data" if self.data else "its own samples"
        lines = [self.field, f"judged on {source}: {self.samples} at a time, {self.calls} network calls"]
        if self.ok:
            better, correction = 1 - math.exp(self.loss), 1 - math.exp(-self.calibration)
            lines += [
                "ok: nothing speaks against how it is wired",
                f"  it denoises with {better:.1%} less error than the best linear filter",
                f"  an affine correction would take off another {max(correction, 0):.1%}",
            ]
        for finding in self.findings:
            lines += [
                f"found ({finding.name}): {finding.words}",
                f"  measured {finding.measured:.4g}, allowed {finding.allowed:.4g}",
            ]
        if self.findings:
            lines += [f"=> {self.suggestion or 'no other wiring that was tried passes, either'}"]
        lines += [f"cannot be told apart from a network that seems {words}" for words in self.alike]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def check(
    field: Field,
    data: Tensor | None = None,
    *,
    samples: int = 128,
    seed: int = 0,
    shape: tuple[int, ...] | None = None,
    progress: bool = False,
    conditions: Mapping[str, Any] | None = None,
    per_sample: Mapping[str, Any] | None = None,
) -> Check:
    """Find out whether a field is wired as its network was trained.

    A field is mis-wired where what it declares of its network is wrong: the prediction or its sign, the
    direction or the scale of the time that the network is told, the schedule. It then samples without an
    error, and badly. A correct field denoises to conditional expectations ``d = E[x1 | x_t]``, so that

    - no other reading of the same network denoises real data better;
    - nor does the best linear filter, and on data that are not Gaussian it does worse;
    - nor does an affine combination of the state and the output (``E<x1 - d, d> = 0``).

    Without data the field's own samples stand in for them, and must agree with the field in the last two
    respects. That finds gross mistakes. Those that the network hardly minds (a data prediction under a
    neighbouring schedule) need data, and a field of Gaussian data fails, as most mis-wired ones sample noise.

    Flows of learned or straightened couplings pass: with data because no other wiring does better,
    without because they denoise their own pairs of noise and sample. Guidance is switched off, as a guided
    field is no conditional expectation.

    Args:
        field: the field; the states are put where its network is.
        data: real data as the network was trained on, ``(N, ...)``; rows are taken evenly.
        samples: samples a network call; fewer if there are fewer data.
        seed: of all noises.
        shape: shape of a sample where there are no data, by default the field's.
        progress: show a progress bar of the network calls.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row a sample, as many as data (or without data, as ``samples``), or one row
            for all; see :meth:`fewstep.Field.bind`.

    Returns:
        The findings, and where there are some, how the network seems to be meant. With data that takes
        around 60 network calls, and up to 240 where something is wrong; without, around 30, and up to some
        750 where something is wrong.

    Raises:
        ValueError: when the shape is unknown, data are too few or not finite, a condition has a wrong number
            of rows, or the field was derived from another one.
    """
    if isinstance(field, RescheduledField | ReversedField):
        raise ValueError(f"check: {field!r} was derived from another field; check that one, its .field.")
    if samples < 16 or (data is not None and len(data) < 16):
        raise ValueError(
            f"check: needs 16 samples or more, not samples={samples}"
            + ("." if data is None else f" of {len(data)} data; pass more.")
        )
    shape = shape or field.shape if data is None else tuple(data.shape[1:])
    if shape is None:
        raise ValueError(
            "check: does not know the shape of a sample; pass shape=..., data=..., or Field(..., shape=...)."
        )
    bound = field.bind(conditions, per_sample, samples if data is None else len(data))
    rows = None
    if data is not None:
        if not bool(data.isfinite().all()):
            raise ValueError("data: must be finite, but hold NaN or infinity.")
        samples = min(samples, len(data))
        rows = torch.linspace(0, len(data) - 1, samples).long()
        bound = bound.rows(rows)

    dtype = state_type(torch.float32 if data is None else data.dtype)
    with progress_bar(progress, desc="check", unit="call") as bar:
        probe = Probe(bound, samples, shape, seed, dtype, field.device, bar)
        if data is None:
            judgement = without_data(probe)
        else:
            every = data.double().cpu()
            judgement = with_data(probe, every[rows], Law.of(every))
    return _report(field, probe, judgement, data is not None)


def _report(field: Field, probe: Probe, judgement: Judgement, data: bool) -> Check:
    own, better = declared(field), judgement.better
    chosen = better or own
    notes = []
    if field.guidance is not None:
        notes.append("guidance was switched off: a guided field is no conditional expectation")
    if not data:
        notes.append("with real data (data=...) smaller mistakes can be seen, and the cause is surer")
    return Check(
        field=repr(field),
        findings=tuple(judgement.findings),
        suggestion=None
        if better is None
        else f"the network seems {better.describe(own)}: try {better.expression()}",
        corrected=None if better is None else rewired(field, better),
        alike=tuple(other.describe(chosen) for other in judgement.alike[:_NAMED]),
        loss=judgement.score.loss,
        calibration=judgement.score.calibration,
        data=data,
        samples=probe.samples,
        calls=probe.calls,
        notes=tuple(notes),
    )
