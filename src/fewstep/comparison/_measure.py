"""Measurement of one solver, and of the reference, on the noises of a comparison."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Protocol

import torch
from torch import Tensor

from .. import reference
from .._device import wait
from ..field import Field
from ..metrics import CurvatureMeter, per_sample_mse
from ..pairs import Pairs
from ..solver import Path, Solver

__all__ = ["Measured", "Meter", "OfReference", "Quality", "measure", "measure_reference"]

#: Numbers of noises and of steps for the curvature of the model.
_CURVES, _STEPS = 64, 32

#: Most numbers of states held at once: a quarter of a gibibyte in float32.
_NUMBERS = 2**26


class Meter(Protocol):
    """Accumulates batches of samples and computes metrics of all of them."""

    def update(self, x1: Tensor) -> None:
        """Add a batch of samples, ``(B, ...)``."""

    def figures(self) -> dict[str, float]:
        """Return the metrics of all samples so far, by name."""


class Quality(Protocol):
    """Metrics of a set of samples without a pairing to noises; makes a meter for each solver."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the metrics."""

    def describe(self) -> dict[str, Any]:
        """Return JSON-ready facts that identify it."""

    def meter(self) -> Meter:
        """Return a new meter."""


@dataclass(frozen=True)
class Measured:
    """Measurements of a solver on some pairs.

    Args:
        mse: mean square error of each sample, float64 ``(B,)``.
        seconds: time of sampling alone: the median over full batches of the time per sample, which is robust
            to short interruptions, times the number of samples.
        figures: metrics of the quality, by name.
        samples: the first samples, ``(K, ...)``.
        path: their trajectory points, ``(P, K, 2)``, if samples are points in the plane.
        failure: the reason if sampling failed, in which case all of these are NaN.
    """

    mse: Tensor
    seconds: float
    figures: dict[str, float]
    samples: Tensor
    path: Tensor | None = None
    failure: str | None = None

    @classmethod
    def failed(cls, why: str, solver: Solver, pairs: Pairs, keep: int, quality: Quality | None) -> Measured:
        """Return the measurements of a solver that ended in NaN or infinity."""
        nothing = pairs.x1[:keep].cpu() * math.nan
        return cls(
            torch.full((len(pairs),), math.nan, dtype=torch.float64),
            math.nan,
            {} if quality is None else dict.fromkeys(quality.names, math.nan),
            nothing,
            nothing.expand(len(solver.points), *nothing.shape) if _has_path(pairs, keep) else None,
            why,
        )


@dataclass(frozen=True)
class OfReference:
    """Measurements of the reference."""

    curvature: Tensor  # of each of the first paths, (B,)
    displacement: Tensor  # likewise
    figures: dict[str, float]
    path: Tensor | None = None  # (P, K, 2), if samples are points in the plane

    def describe(self) -> dict[str, Any]:
        """Return the model's curvature, per dimension and relative to the displacement (a ratio of means)."""
        curvature, displacement = float(self.curvature.mean()), float(self.displacement.mean())
        return {
            "per_dimension": curvature,
            "relative": curvature / displacement if displacement else None,
            "samples": len(self.curvature),
            "steps": _STEPS,
        }


def measure(
    field: Field,
    solver: Solver,
    pairs: Pairs,
    *,
    batch: int,
    keep: int,
    quality: Quality | None,
    advance: Callable[[int], object],
) -> Measured:
    """Sample from all noises, keep the first samples, and ``advance`` by the network calls of each batch.

    Raises:
        FloatingPointError: when a sample is not finite.
    """
    errors, kept, seconds = [], [pairs.x0[:0].cpu()], []
    meter = None if quality is None else quality.meter()
    field = pairs.bind(field)
    for first in range(0, len(pairs), batch):
        part = slice(first, first + batch)
        x0, own = pairs.x0[part], field.rows(part)
        wait(x0.device)  # for the measurements of the previous batch
        started = time.perf_counter()
        x1 = solver.sample(own, x0)
        wait(x1.device)
        if len(x1) == min(batch, len(pairs)):  # a smaller last batch takes longer per sample
            seconds.append((time.perf_counter() - started) / len(x1))
        errors.append(per_sample_mse(x1, pairs.x1[part]).cpu())
        if meter is not None:
            meter.update(x1)
        if first < keep:
            kept.append(x1[: keep - first].cpu().clone())  # a view would keep the whole batch
        advance(len(x1) * solver.nfe)
    path = None
    if _has_path(pairs, keep):
        few = slice(0, keep)
        record: Path = solver.sample(field.rows(few), pairs.x0[few], trajectory=True)
        path = record.states.cpu()
    figures = {} if meter is None else meter.figures()
    return Measured(torch.cat(errors), median(seconds) * len(pairs), figures, torch.cat(kept), path)


def measure_reference(
    field: Field, pairs: Pairs, *, rtol: float, atol: float, batch: int, keep: int, quality: Quality | None
) -> OfReference:
    """Solve the first noises again, at equally spaced times, and measure the quality of all samples."""
    times = [i / _STEPS for i in range(_STEPS + 1)]
    options: dict[str, Any] = {"rtol": rtol, "atol": atol, "steps": pairs.provenance.get("steps")}
    count = min(len(pairs), _CURVES)
    size = max(1, min(batch, _NUMBERS // (len(times) * pairs.x0[0].numel())))
    curvature, displacement, paths = [], [], []
    field = pairs.bind(field)
    for first in range(0, count, size):
        part = slice(first, min(first + size, count))
        own = field.rows(part)
        states = reference.solve(own, pairs.x0[part], times=times, **options).states
        meter = CurvatureMeter.along(states, times)
        curvature.append(meter.curvature().cpu())
        displacement.append(meter.displacement().cpu())
        if _has_path(pairs, keep):
            paths.append(states.cpu())
    meters = None if quality is None else quality.meter()
    if meters is not None:
        for x1 in pairs.x1.split(batch):
            meters.update(x1)
    return OfReference(
        torch.cat(curvature),
        torch.cat(displacement),
        {} if meters is None else meters.figures(),
        torch.cat(paths, dim=1)[:, :keep] if paths else None,
    )


def _has_path(pairs: Pairs, keep: int) -> bool:
    """Return whether the paths of the first samples are kept, which are points in the plane."""
    return keep > 0 and pairs.x0.shape[1:] == (2,)
