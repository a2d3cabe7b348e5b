"""The check of a field's wiring against its network, and its report."""

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
from ..field import Field, check_field, is_derived
from ._judge import Finding, Judgement, with_data, without_data
from ._measure import Law, Probe
from ._remarks import labels_not_passed
from ._wiring import declared, rewired

__all__ = ["Check", "check"]

#: Number of indistinguishable wirings that are named.
_NAMED = 4


@dataclass(frozen=True)
class Check:
    """The result of :func:`check`.

    Args:
        field: description of the field.
        findings: the faults; empty for a correct field.
        suggestion: the likely training of the network, if another wiring or another range of data passes.
        corrected: the field with that wiring.
        alike: other wirings that do as well as the suggested or the declared one.
        loss: logarithm of the denoising error relative to the best linear filter, below 0 for non-Gaussian
            data.
        calibration: logarithm of the denoising error relative to that after the best affine correction.
        data: whether real data were used.
        samples: samples per network call.
        calls: network calls, each with a batch of samples.
        notes: further remarks.
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
        """True without findings."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return the result ready for JSON."""
        facts = {key: value for key, value in vars(self).items() if key != "corrected"}
        return {"ok": self.ok, **facts, "findings": [finding._asdict() for finding in self.findings]}

    def to_json(self) -> str:
        """Return the result as JSON, with ``null`` for numbers that are not finite."""
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
            lines += [f"found ({finding.name}): {finding.words}"]
            if math.isfinite(finding.measured):
                lines += [f"  measured {finding.measured:.4g}, allowed {finding.allowed:.4g}"]
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
    """Check whether a field is wired as its network was trained.

    A field is mis-wired if it declares its network wrongly: the prediction or its sign, the direction or
    scale of the time passed to the network, the schedule. It then samples badly, without an error. A correct
    field denoises to conditional expectations ``d = E[x1 | x_t]``, so that none of these has a lower
    denoising error on real data:

    - another wiring of the same network;
    - the best linear filter, which is strictly worse on non-Gaussian data;
    - an affine combination of the state and the output (``E<x1 - d, d> = 0``).

    Without data, the field's own samples replace them in the last two comparisons. This finds gross mistakes.
    Mistakes with little effect on the network (a data prediction under a similar schedule) need data. A field
    of Gaussian data fails without data, as most mis-wired fields sample Gaussian noise.

    Flows of learned or straightened couplings pass: with data, as no other wiring does better; without, as
    they denoise their own noise-sample pairs. Guidance is switched off, as a guided field is not a
    conditional expectation.

    Args:
        field: the field; states are moved to the device of its network.
        data: real data like the training data, ``(N, ...)``, of which evenly spaced rows are used.
        samples: samples per network call; fewer if there are fewer data.
        seed: seed of all noises.
        shape: shape of a sample if there are no data; by default the field's.
        progress: show a progress bar of the network calls.
        conditions: keyword arguments of the network that all samples share.
        per_sample: those with one row per sample, as many as data (or without data, as ``samples``), or one
            row for all; see :meth:`fewstep.Field.bind`.

    Returns:
        The findings and, if there are any, the likely wiring. With data it takes around 80 network calls, and
        up to 300 for a faulty field; without, around 30, and up to about 750.

    Raises:
        ValueError: when the shape is unknown, data are too few or not finite, a condition has a wrong number
            of rows, or the field was derived from another one.
    """
    if is_derived(check_field(field, "check")):
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
    return _report(field, probe, judgement, data is not None, {**(conditions or {}), **(per_sample or {})})


def _report(field: Field, probe: Probe, judgement: Judgement, data: bool, passed: Mapping[str, Any]) -> Check:
    own, better = declared(field), judgement.better
    chosen = better or own
    notes = list(judgement.remarks)
    if judgement.findings:
        notes += labels_not_passed(field, passed)
    if field.guidance is not None:
        notes.append("guidance was switched off: a guided field is no conditional expectation")
    if not data:
        notes.append("with real data (data=...) smaller mistakes can be seen, and the cause is surer")
    return Check(
        field=repr(field),
        findings=tuple(judgement.findings),
        suggestion=judgement.advice
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
