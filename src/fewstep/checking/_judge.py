"""Judgement of wirings by consistency, with and without data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from ..schedules import DDPM, Discrete
from ._measure import BOUND, REFUSALS, SPAN, Law, Probe, Score
from ._remarks import misread_labels, other_ranges, runaway
from ._whole import Whole, table_sizes, wants_whole
from ._wiring import Wiring, alternatives, declared, kinds, mistakes

__all__ = ["Finding", "Judgement", "with_data", "without_data"]

#: With data: what another wiring must gain in the logarithm of the error to be believed. No other wiring did
#: better than that of a correct field, of 240 each; a mistake costs 0.025 and more.
ADVANTAGE = 0.015
#: With data: the largest loss and calibration. Only straightened flows come near the second.
LOSS, CALIBRATION = 0.1, 0.2
#: Without: samples with a loss above this in their own field are indistinguishable from Gaussian.
STRUCTURE = -0.03
#: Without: the largest calibration of samples in fresh noise; and in fields that denoise their own
#: noise-sample pairs well, with a calibration of at most PAIRS.
FRESH, COUPLED, PAIRS = 0.07, 0.15, 0.4
#: The loss on its own pairs below which a field is so straight that fresh noise says little; and the
#: largest calibration in fresh noise then.
STRAIGHT, BENT = -4.5, 0.5
#: Largest deviation of a straight flow's samples from data: of the mean, in standard deviations, and ratio of
#: the variances.
MEAN, VARIANCE = 0.3, 1.6
#: Largest error of a straight flow's data prediction at the noise end, in variances of the data.
EARLY = 0.05
#: Without: network calls after which the search for another wiring ends.
PATIENCE = 700
#: Difference in loss within which two wirings are indistinguishable.
TIE = 0.003
#: The score of a wiring without finite outputs.
NEVER = Score(math.inf, math.inf)
#: Mean square of data predictions in almost pure noise, beyond which a wiring need not be tried.
WILD = 10.0


class Finding(NamedTuple):
    """A measurement that exceeds the limit for correct fields.

    Attributes:
        name: ``"finite"``, ``"denoising"``, ``"calibration"``, ``"wiring"``, ``"structure"``, ``"time"`` if
            the network refuses the times that it is passed, or ``"range"`` if it is the data's.
        measured: the number.
        allowed: the largest number that passes.
        words: description of the measurement.
    """

    name: str
    measured: float
    allowed: float
    words: str


class Judgement(NamedTuple):
    """Findings on the declared wiring, its score, and the wirings that pass."""

    findings: list[Finding]
    score: Score
    better: Wiring | None
    alike: list[Wiring]
    advice: str | None = None  # in place of another wiring
    remarks: Sequence[str] = ()


def with_data(probe: Probe, x1: Tensor, law: Law) -> Judgement:
    """Judge by real data: the wiring that denoises them best is that of the training."""
    own, slack = declared(probe.field), _slack(x1)
    scores: dict[Wiring, Score] = {}
    refusal = _add_scores(scores, probe, [own], x1, law)
    single, further = alternatives(own, _counts(own, probe, refusal))
    _add_scores(scores, probe, single, x1, law)
    findings = _refused(refusal) or _unlike_expectation(scores[own], slack)
    if findings:
        for other in other_ranges(x1):
            score = probe.score(own, probe.denoise(own, *other.of(x1, law)))
            if _plausible(score) and score.loss < min(each.loss for each in scores.values()) - ADVANTAGE:
                words = f"error of denoising the data as they are, over that of the data in {other.name}"
                range_ = _beyond("range", scores[own].loss - score.loss, ADVANTAGE, words)
                return Judgement(range_, scores[own], None, [], other.advice)
    best = _best(scores, probe, own)
    if findings and not _plausible(scores[best]):
        _add_scores(scores, probe, further, x1, law)
        best = _best(scores, probe, own)
    words = "error of denoising as declared, over that with the network understood in another way"
    if refusal is None:
        findings += _beyond("wiring", scores[own].loss - scores[best].loss, ADVANTAGE + slack, words)
    elif not math.isfinite(scores[best].loss):
        raise refusal  # whatever it is passed
    # Flows are straightened as velocities; a data prediction may jump to a far mode under any schedule.
    if findings and own.prediction == "velocity" and refusal is None and _flows_straight(probe, own, law):
        findings = []
    if not findings:
        best = own
    equal = [wiring for wiring in scores if scores[wiring].loss <= scores[best].loss + TIE]
    equal = [wiring for wiring in equal if wiring in (own, best) or probe.runs(wiring)]
    # Of wirings that do as well, the one with the fewest mistakes is the likeliest.
    best = min([best, *equal], key=lambda wiring: mistakes(wiring, own))
    better = best if findings and best != own else None
    remarks: list[str] = []
    if not findings:
        remarks += runaway(probe, own, x1, law)
        remarks += misread_labels(probe, own, x1, law, Score(LOSS + slack, CALIBRATION + slack))
    alike = [wiring for wiring in equal if wiring != best]
    return Judgement(findings, scores[own], better, alike, None, remarks)


def without_data(probe: Probe) -> Judgement:
    """Judge by the field's own samples, with which it must be consistent."""
    own, refusal = declared(probe.field), None
    try:
        score, findings = _self_consistency(probe, own)
    except REFUSALS as error:
        refusal, score, findings = error, NEVER, _refused(error)
    if not findings:
        return Judgement([], score, None, [])
    single, further = alternatives(own, _counts(own, probe, refusal))
    passing = _passing(probe, single)
    if not passing:
        # Two mistakes with the prediction and the time are likelier than two with the schedule.
        further.sort(key=lambda wiring: (mistakes(wiring, own), wiring.schedule != own.schedule))
        passing = _passing(probe, (wiring for wiring in further if _tame(probe, wiring)))
    if not passing:
        if refusal is not None:
            raise refusal
        return Judgement(findings, score, None, [])
    best = min(passing, key=lambda wiring: passing[wiring].loss)
    equal = [wiring for wiring in passing if passing[wiring].loss <= passing[best].loss + TIE]
    return Judgement(findings, score, best, [wiring for wiring in equal if wiring != best])


def _add_scores(
    scores: dict[Wiring, Score], probe: Probe, wirings: Iterable[Wiring], x1: Tensor, law: Law
) -> Exception | None:
    """Score every prediction under the clocks and schedules of some wirings, without further calls.

    Returns:
        The last error of the network.
    """
    refusal = None
    for wiring in wirings:
        if wiring not in scores:
            try:
                seen = probe.denoise(wiring, x1, law)
            except REFUSALS as error:
                refusal = error
                scores |= dict.fromkeys(kinds(wiring), NEVER)
                continue
            scores |= {kind: probe.score(kind, seen) for kind in kinds(wiring)}
    return refusal


def _best(scores: dict[Wiring, Score], probe: Probe, own: Wiring) -> Wiring:
    """Return the wiring with the least loss of those that a solver can call; forget the others."""
    while True:
        best = min(scores, key=lambda wiring: scores[wiring].loss)
        if best == own or not math.isfinite(scores[best].loss) or probe.runs(best):
            return best
        scores[best] = NEVER


def _refused(refusal: Exception | None) -> list[Finding]:
    if refusal is None:
        return []
    told = str(refusal).strip().splitlines()
    error = f"{type(refusal).__name__}: {told[0] if told else ''}"
    takes = "takes whole numbers as time, as embedding tables do, and " if wants_whole(refusal) else ""
    return [
        Finding("time", math.inf, 0.0, f"the network {takes}refuses the times that it is passed ({error})")
    ]


def _counts(own: Wiring, probe: Probe, refusal: Exception | None) -> list[int]:
    """Return how many whole numbers the network may take as time; none if it takes others."""
    if own.clock != "integer" and not isinstance(own.clock, Whole) and not wants_whole(refusal):
        return []
    declared_count = [own.schedule.count] if isinstance(own.schedule, DDPM | Discrete) else []
    return list(dict.fromkeys([*declared_count, *table_sizes(probe.field.model)]))


def _unlike_expectation(score: Score, slack: float) -> list[Finding]:
    """Return the findings on the declared wiring from real data."""
    if not math.isfinite(score.loss):
        return [Finding("finite", math.inf, 0.0, "the network returns NaN or infinity in noised data")]
    linear = "error of denoising, over that of a linear filter that knows mean and variance of the data"
    affine = "error of denoising, over that of an affine combination of the state and the output"
    return [
        *_beyond("denoising", score.loss, LOSS + slack, linear),
        *_beyond("calibration", score.calibration, CALIBRATION + slack, affine),
    ]


def _self_consistency(probe: Probe, wiring: Wiring) -> tuple[Score, list[Finding]]:
    """Return the score of a wiring on its own samples, and the findings."""
    x0, x1 = probe.generate(wiring)
    if not bool(x1.isfinite().all()):
        words = "root mean square of its samples, which have left all bounds"
        return NEVER, [Finding("finite", math.inf, BOUND, words)]
    law, slack = Law.of(x1), _slack(x1)
    score = probe.score(wiring, probe.denoise(wiring, x1, law))
    words = (
        "error of denoising its own samples, over that of a linear filter: to the network they are no "
        "better than Gaussian noise"
    )
    findings = _beyond("structure", score.loss, STRUCTURE, words)
    if score.calibration > FRESH + slack:
        pairs = probe.score(wiring, probe.denoise(wiring, x1, law, x0))
        allowed = COUPLED if pairs.calibration <= PAIRS else FRESH
        allowed = (BENT if pairs.loss <= STRAIGHT else allowed) + slack
        words = "error of denoising its own samples, over that of an affine combination of state, output"
        findings += _beyond("calibration", score.calibration, allowed, words)
    return score, findings


def _beyond(name: str, value: float, allowed: float, words: str) -> list[Finding]:
    """Return a finding if the logarithm of an error is larger than allowed."""
    return [Finding(name, math.exp(value), math.exp(allowed), words)] if value > allowed else []


def _flows_straight(probe: Probe, wiring: Wiring, law: Law) -> bool:
    """True if noise flows to the data on straight lines; such a field does not denoise fresh noise."""
    x0, x1 = probe.generate(wiring)
    if not bool(x1.isfinite().all()):
        return False
    own, variance = Law.of(x1), law.variance.mean()
    mean_gap = (own.mean - law.mean).square().mean().sqrt() / variance.sqrt()
    arrives = mean_gap <= MEAN and 1 / VARIANCE <= own.variance.mean() / variance <= VARIANCE
    if not arrives or probe.score(wiring, probe.denoise(wiring, x1, own, x0)).loss > STRAIGHT:
        return False
    # Every field distinguishes far modes at moderate noise; only a straight one does so from the start.
    t = float(wiring.schedule.inverse_log_snr(SPAN[0]))
    x = wiring.schedule(t).sigma * x0
    early = (x1 - wiring.denoised(x, probe.output(wiring, x, t), t)).square().mean()
    return bool(early <= EARLY * own.variance.mean())


def _passing(probe: Probe, wirings: Iterable[Wiring]) -> dict[Wiring, Score]:
    """Return the wirings that are consistent with their own samples."""
    passing = {}
    for wiring in wirings:
        if probe.calls > PATIENCE:
            break
        try:
            score, findings = _self_consistency(probe, wiring)
        except REFUSALS:
            continue
        if not findings and probe.runs(wiring):
            passing[wiring] = score
    return passing


def _tame(probe: Probe, wiring: Wiring) -> bool:
    """True if almost pure noise is denoised to the scale of data; costs one call."""
    t = float(wiring.schedule.inverse_log_snr(SPAN[0]))
    x = wiring.schedule(t).sigma * probe.noise(0)
    try:
        return bool(wiring.denoised(x, probe.output(wiring, x, t), t).square().mean() < WILD)
    except REFUSALS:
        return False


def _plausible(score: Score) -> bool:
    return score.loss <= LOSS and score.calibration <= CALIBRATION


def _slack(x1: Tensor) -> float:
    """Return the expected gain of an affine fit by chance: its parameters over the count of numbers."""
    return 6 / x1.numel()
