"""Further remarks with real data: their range, samples that leave it, labels that are missing."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from torch import Tensor

from ..field import Field
from ._measure import STEPS, Law, Probe, Score
from ._wiring import Wiring

__all__ = ["Range", "labels_not_passed", "misread_labels", "other_ranges", "runaway"]

#: Largest distance of samples from the range of the data, root mean square in standard deviations of these.
_OUTSIDE = 0.5
#: Signal in pure noise, alpha(0), above which samples must start from the moments of the data.
_SIGNAL = 0.02
#: Names of arguments that are labels or prompts.
_LABELS = re.compile(r"label|class|cond|prompt|context|encoder_hidden_states|^[yc]$", re.IGNORECASE)


class Range(NamedTuple):
    """A range that data may be scaled to, by ``scale * data + shift``."""

    name: str
    given: str
    scale: float
    shift: float
    expression: str

    @property
    def advice(self) -> str:
        """Describe the mistake, and the remedy."""
        return (
            f"the network seems trained on data in {self.name}, not {self.given}, and wired right for these: "
            f"pass {self.expression}"
        )

    def of(self, x1: Tensor, law: Law) -> tuple[Tensor, Law]:
        """Return data and their law in that range."""
        moved = Law(self.scale * law.mean + self.shift, self.scale**2 * law.variance)
        return self.scale * x1 + self.shift, moved


def other_ranges(x1: Tensor) -> list[Range]:
    """Return the usual ranges of pictures other than that of the data."""
    low, high = float(x1.min()), float(x1.max())
    if low >= 0 and high <= 1:
        return [Range("[-1, 1]", "[0, 1]", 2, -1, "2 * data - 1")]
    if low >= -1 and high <= 1:
        return [Range("[0, 1]", "[-1, 1]", 0.5, 0.5, "(data + 1) / 2")]
    if low >= 0 and high <= 255:
        return [
            Range("[-1, 1]", "[0, 255]", 2 / 255, -1, "data / 127.5 - 1"),
            Range("[0, 1]", "[0, 255]", 1 / 255, 0, "data / 255"),
        ]
    return []


def runaway(probe: Probe, wiring: Wiring, x1: Tensor, law: Law) -> Iterator[str]:
    """Yield a remark if the samples of a field that denoises well leave the range of the data."""
    low, high = float(x1.min()), float(x1.max())
    try:
        samples = probe.sample()
    except FloatingPointError:
        samples = x1 * math.nan
    outside = (samples - samples.clamp(low, high)).square().mean().sqrt() / law.variance.mean().sqrt()
    if outside <= _OUTSIDE:
        return
    means = samples.flatten(1).mean(dim=1)
    least, most = float(means.min()), float(means.max())
    alpha = float(wiring.schedule(0.0).alpha)
    hint = (
        f"; its noise contains signal (alpha(0) = {alpha:.2g}), so give the field data_moments=(mean, std)"
        if alpha > _SIGNAL and probe.field.data_moments is None
        else ""
    )
    yield (
        f"wired right, but its ODE diverges: samples by {STEPS} calls have means from {least:.2g} to "
        f"{most:.2g}, while the data lie in [{low:.2g}, {high:.2g}]{hint}"
    )


def misread_labels(probe: Probe, wiring: Wiring, x1: Tensor, law: Law, allowed: Score) -> Iterator[str]:
    """Yield a remark if guidance leads away from predictions that denoise the data badly."""
    field = probe.field
    if not field.unconditional or field.guide is not None:
        return
    score = probe.score(wiring, probe.denoise_away(wiring, x1, law))
    if not (score.loss <= allowed.loss and score.calibration <= allowed.calibration):
        names = ", ".join(field.unconditional)
        yield (
            f"with {names} as in unconditional the network denoises the data badly: unless this is a "
            "negative prompt, it misreads missing labels, or never saw them, and guidance leads astray"
        )


def labels_not_passed(field: Field, passed: Collection[str]) -> Iterator[str]:
    """Yield a remark if the network takes labels, but got none."""
    try:
        parameters = list(inspect.signature(getattr(field.model, "forward", field.model)).parameters.values())
    except (TypeError, ValueError):  # builtins have none
        return
    names = [p.name for p in parameters[2:] if p.kind is not p.VAR_KEYWORD and _LABELS.search(p.name)]
    if names and not passed:
        yield (
            f"the network takes {', '.join(names)}, which was not passed (by conditions or per_sample): one "
            "that misreads missing labels denoises badly then, however it is wired"
        )
