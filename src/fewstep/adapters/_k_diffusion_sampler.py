"""Our solvers as samplers of k-diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from .._denoiser import Denoiser
from .._fitted_for import own_schedule
from .._network import state_type
from .._progress import progress_bar
from ..schedules import Reversed, Schedule
from ..solver import Solver
from ._denoise import check_denoiser
from ._solver import checked_solver
from ._stepper import Stepper

__all__ = ["Coordinates", "Sampler", "level_at", "sampler"]

#: The states of a denoiser: ``data + sigma noise``, or ``(1 - sigma) data + sigma noise``.
Coordinates = Literal["VE", "straight"]

#: How far inside [0, 1] a denoiser is called instead of at an infinite noise level, or at none.
_MARGIN = 1e-5
#: Largest relative difference of two noise levels that are taken as one; float32 and text round them.
_SAME = 1e-3


def sampler(solver: Solver, schedule: Schedule | None = None, coordinates: Coordinates = "VE") -> Sampler:
    """Return a sampler of k-diffusion, ``f(model, x, sigmas, extra_args=None, callback=None, disable=None)``.

    Use it with its own levels, ``x = randn * f.sigmas[0]``; there is one level per network call, those of
    stages too, and the last is that of the sample.

    Args:
        solver: the solver.
        schedule: the schedule of the field that it was made for; by default that of its table, or of the
            field that it was fitted for.
        coordinates: the states of the denoiser: ``data + sigma noise`` (``"VE"``, as in k-diffusion), or
            ``(1 - sigma) data + sigma noise`` (``"straight"``, as ComfyUI has them for flow matching).

    Raises:
        ValueError: when the schedule is missing, leads from data to noise, or is another than the table's.
    """
    checked_solver(solver, "sampler")
    schedule = own_schedule(solver) if schedule is None else schedule
    if isinstance(schedule, Reversed):
        raise ValueError(
            f"sampler: solver {solver.name!r} leads from data to noise, for which a denoiser's samplers are "
            "not made; sample the reversed field with it."
        )
    if schedule is None:
        raise ValueError(
            f"sampler: solver {solver.name!r} is a table of velocities, which names no schedule; pass "
            "schedule=field.schedule."
        )
    # A field of data predictions, as one that a solver was fitted for, is none of a preconditioned denoiser.
    preconditioned = (solver.fitted_for or {}).get("prediction") != "data"
    stepper = replace(Stepper.of(solver, "data", schedule), preconditioned=preconditioned)
    return Sampler(stepper, solver.name, coordinates)


def level_at(schedule: Schedule, t: float, coordinates: Coordinates) -> tuple[float, float]:
    """Return the factor ``s`` between our states and a denoiser's, and its noise level ``sigma / s``."""
    alpha, sigma = (float(c) for c in schedule(t)[:2])
    scale = alpha if coordinates == "VE" else alpha + sigma
    return scale, sigma / scale if scale else math.inf


@dataclass(frozen=True)
class Sampler:
    """A sampler of k-diffusion; see :func:`sampler`.

    Our states, ``x = alpha data + sigma noise``, are ``s`` times those of the denoiser, at ``s`` times its
    noise level: ``s`` is ``alpha``, or ``alpha + sigma``. A denoiser is a data prediction, and a
    preconditioned one (see :mod:`fewstep._ends`) unless it is that of a field with data predictions.

    Args:
        stepper: the steps of the solver, with data predictions.
        name: name of the solver.
        coordinates: the states of the denoiser.
    """

    stepper: Stepper
    name: str
    coordinates: Coordinates = "VE"

    @cached_property
    def sigmas(self) -> Tensor:
        """The noise levels of the calls, and of the sample: ``N + 1`` numbers in float32, on the CPU.

        The first is that of the noise handed in: a fitted solver may make its first call at a later time.
        """
        later = [level for _, level in self._levels[1:]]
        return torch.tensor([self.scale, *later], dtype=torch.float32)

    @property
    def scale(self) -> float:
        """What standard normal noise is multiplied by: a solver starts at ``sigma(0)`` times the noise."""
        return float(self.stepper.schedule(0.0).sigma) / self._levels[0][0]

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor | None = None,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        """Return the samples of noise, or of a noised image.

        Args:
            model: ``model(x, sigma, **extra_args) -> denoised``, with ``sigma`` of shape ``(B,)``.
            x: noise, ``randn * sigmas[0]``, or a noised image: ``(B, ...)``.
            sigmas: :attr:`sigmas`, or the last of them, to begin later: those calls are then made by
                DPM-Solver++ 2M.
            extra_args: further arguments of the model.
            callback: called after each call of the model with ``x``, ``i``, ``sigma``, ``sigma_hat`` and
                ``denoised`` in a dict.
            disable: a progress bar is shown if it is ``False``.

        Raises:
            ValueError: when ``sigmas`` are other levels, or ``model`` is no denoiser.
        """
        check_denoiser(model, "sampler")
        first, own = self._first(sigmas), self.fitting(model, x.dtype)
        stepper, levels = own.stepper.entered(first), own._levels[first:]
        wide = x.to(state_type(x.dtype))
        history = stepper.begin(levels[0][0] * wide)
        state = history.states[0]
        bar = progress_bar(disable is False, total=stepper.nfe, unit="call", desc=self.name)
        with torch.no_grad(), bar:
            for i, (scale, sigma) in enumerate(levels[:-1]):
                given = (state / scale).to(x.dtype)
                level = given.new_full((len(x),), sigma)
                denoised = model(given, level, **(extra_args or {}))
                if callback is not None:
                    facts = {"x": given, "i": i, "sigma": level[0], "sigma_hat": level[0]}
                    callback({**facts, "denoised": denoised})
                history, state = stepper.step(history, denoised)
                bar.update()
        return (state / levels[-1][0]).to(x.dtype)

    def fitting(self, model: Callable[..., Tensor], dtype: torch.dtype) -> Sampler:
        """Return this sampler with its last calls as near to pure data as a model and its precision allow."""
        stepper = self.stepper
        preconditioned = stepper.preconditioned
        if isinstance(model, Denoiser):
            preconditioned = model.field.prediction != "data"
        # States in float64 say nothing of the model's precision.
        coarse = torch.float32 if dtype == torch.float64 else dtype
        if (preconditioned, coarse) == (stepper.preconditioned, stepper.dtype):
            return self
        return replace(self, stepper=replace(stepper, preconditioned=preconditioned, dtype=coarse))

    def _first(self, sigmas: Tensor | None) -> int:
        """Return the call that a list of levels begins with."""
        if sigmas is None:
            return 0
        own, given = self.sigmas, torch.as_tensor(sigmas).float().cpu()
        first = len(own) - len(given)
        if not (len(given) > 1 and first >= 0 and torch.allclose(given, own[first:], rtol=_SAME, atol=1e-6)):
            raise ValueError(
                f"sampler {self.name!r}: sigmas must be its own levels, {_shown(own)}, or the last of them, "
                f"not {_shown(given)}; pass sampler.sigmas."
            )
        return first

    @cached_property
    def _levels(self) -> list[tuple[float, float]]:
        """Scale and level (see :func:`level_at`) at the calls, where both are positive, and at the sample."""
        schedule, times = self.stepper.schedule, self.stepper.times
        found = []
        for t in self.stepper.called:
            if not 0 < level_at(schedule, t, self.coordinates)[1] < math.inf:
                t = min(max(t, _MARGIN), 1 - _MARGIN)
            found.append(level_at(schedule, t, self.coordinates))
        return [*found, level_at(schedule, times[-1], self.coordinates)]


def _shown(levels: Tensor) -> list[float]:
    return [float(f"{float(level):.4g}") for level in levels]
