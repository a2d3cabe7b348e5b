"""Our solvers as samplers of ComfyUI: the mathematics of the nodes in ``integrations/comfyui``.

ComfyUI is not imported. A ``model_sampling`` is what its ``MODEL.get_model_object("model_sampling")``
returns: ``noise_scaling(sigma, noise, latent)`` gives the states of its denoiser, ``sigma_max`` the level of
pure noise, and ``sigmas`` the levels of the timesteps, if there are ``num_timesteps`` of them.

    ==================  =====================================  ================================
    models              states                                 levels of a solver
    ==================  =====================================  ================================
    EPS, V, EDM         ``data + sigma noise``                 ``sigma / alpha``
    CONST (flow)        ``(1 - sigma) data + sigma noise``     ``sigma / (alpha + sigma)``
    ==================  =====================================  ================================

The shift of a flow model moves the levels that ComfyUI's own schedulers choose, not the states, so that it
has no part here: a solver for :class:`~fewstep.schedules.CondOT` has levels of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .._fitted_for import own_schedule
from .._fitted_guidance import comfyui_settings, in_words
from ..schedules import DDPM, CondOT, Discrete, Schedule
from ..solver import Solver
from ._k_diffusion_sampler import Coordinates, Sampler, level_at
from ._k_diffusion_sampler import sampler as k_diffusion_sampler
from ._solver import read

__all__ = ["ComfySampler", "about", "read", "sampler"]

#: At ``sigma_max``, and within a relative 1e-5 of it, ComfyUI multiplies noise by ``sqrt(1 + sigma^2)``.
_BELOW = 1 - 2e-5
#: Largest relative difference of noise levels, and absolute one of ``alpha^2``, of one schedule.
_SAME, _SAME_SQUARE = 1e-3, 1e-6
#: ComfyUI has ``alpha^2 = 4.9e-8`` at the last timestep where zero terminal SNR has none.
_NO_SIGNAL = 1e-7


def sampler(solver: Solver, model_sampling: Any) -> ComfySampler:
    """Return a function for ``comfy.samplers.KSAMPLER``, and its SIGMAS.

    A table of velocities that names no schedule, as of ``fewstep.classical.midpoint``, takes the model's.

    Args:
        solver: the solver.
        model_sampling: that of the MODEL.

    Raises:
        ValueError: when the model's states are neither of the two above, or the solver is for another
            schedule than the model's.
    """
    coordinates = _coordinates(model_sampling)
    schedule = own_schedule(solver) or _schedule_of(model_sampling, coordinates)
    if schedule is None:
        raise ValueError(
            f"comfyui: solver {solver.name!r} names no schedule, and this MODEL has noise levels up to "
            f"{float(model_sampling.sigma_max):g} but no timesteps to take it from; fit one for its field."
        )
    mismatch = _mismatch(schedule, model_sampling, coordinates)
    if mismatch is not None:
        raise ValueError(
            f"comfyui: solver {solver.name!r} is for {schedule!r}, {mismatch}; use the model that it was "
            "fitted for, or fit a solver for this one."
        )
    inner = k_diffusion_sampler(solver, schedule, coordinates)
    highest = _BELOW * float(model_sampling.sigma_max) / float(inner.sigmas[0])
    return ComfySampler(inner, min(highest, 1.0) if coordinates == "VE" else 1.0)


def about(solver: Solver) -> str:
    """Return a sentence about a solver, with the guidance that it was fitted for and the settings for it."""
    text, facts = f"fewstep: {solver.name}, {solver.nfe} network calls", solver.fitted_for
    if not facts:
        return text
    return f"{text}, fitted for {in_words(facts) or 'no guidance'}: set {comfyui_settings(facts)}"


@dataclass(frozen=True)
class ComfySampler:
    """A sampler function of ComfyUI; see :func:`sampler`.

    Args:
        sampler: the solver in the coordinates of the model's denoiser.
        lowering: factor of the first level in SIGMAS, at most 1.
    """

    sampler: Sampler
    lowering: float = 1.0

    @cached_property
    def sigmas(self) -> Tensor:
        """The SIGMAS: one noise level per network call, those of stages too, and that of the sample."""
        levels = self.sampler.sigmas.clone()
        levels[0] *= self.lowering
        return levels

    def entered(self, denoise: float) -> Tensor:
        """Return the SIGMAS of a share of the calls, the last ones, for an image that is noised.

        Args:
            denoise: the share: all for 1; none for 0, which leaves the image as it is.

        Raises:
            ValueError: when the share is not in [0, 1].
        """
        if not 0 <= denoise <= 1:
            raise ValueError(f"comfyui: denoise must be in [0, 1], not {denoise}.")
        if denoise == 0:
            return self.sigmas[:0]
        calls = len(self.sigmas) - 1
        return self.sigmas[calls - max(1, math.floor(calls * denoise + 0.5)) :].clone()

    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
    ) -> Tensor:
        """Return the samples; called by ``KSAMPLER.sample``, which scales noise and samples.

        **Inpainting.** Inside each call ComfyUI mixes the noised image ``s L + sigma n`` into ``x``, and the
        image ``L`` into the result, with weight ``1 - mask``. So the calls see the right surroundings, and a
        share of ``1 - mask`` of what they return is constant. A fitted table is not exact for a constant:
        its states would be ``(1 - mask) (d L + e n)`` off, which is removed. The numbers ``d`` and ``e`` of
        each state are found by a run from ``s L + sigma n`` with ``L`` for all that is denoised.

        Raises:
            ValueError: when ``sigmas`` are other levels; or when the mask changes between the calls
                (differential diffusion) and the solver is not exact for a constant.
        """
        own, given = self.sigmas, sigmas.float().cpu()
        whole = given.shape == own.shape and torch.allclose(given, own, rtol=_SAME)
        start, levels = (x / self.lowering, None) if whole else (x, sigmas)
        arguments = extra_args or {}
        mask = arguments.get("denoise_mask")
        if mask is None:
            return self.sampler(model, start, levels, extra_args, callback, disable)
        excess = self._excess(None if whole else given)
        if "denoise_mask_function" in (arguments.get("model_options") or {}):
            self._check_exact(excess)
            return self.sampler(model, start, levels, extra_args, callback, disable)
        image, noise = model.latent_image, model.noise  # type: ignore[attr-defined]  # KSamplerX0Inpaint's
        left = iter(excess)

        def without(state: Tensor) -> Tensor:
            data, other = next(left)
            right: Tensor = state - (1 - mask) * (data * image + other * noise)
            return right.to(state.dtype)

        def corrected(state: Tensor, sigma: Tensor, **options: Any) -> Tensor:
            return model(without(state), sigma, **options)

        return without(self.sampler(corrected, start, levels, extra_args, callback, disable))

    def _excess(self, levels: Tensor | None) -> list[tuple[float, float]]:
        """Return ``d`` and ``e`` of the calls from the first of some levels on, and of the sample."""
        found: list[Tensor] = []

        def mixed(level: float) -> Tensor:
            """The noised image, in units of image and noise."""
            share = 1.0 if self.sampler.coordinates == "VE" else 1 - level
            return torch.tensor([[share, level]], dtype=torch.float64)

        def constant(state: Tensor, sigma: Tensor) -> Tensor:
            found.append(state - mixed(float(sigma)))
            return torch.tensor([[1.0, 0.0]], dtype=torch.float64)

        first, last = (float(self.sigmas[k] if levels is None else levels[k]) for k in (0, -1))
        start = mixed(first) / (self.lowering if levels is None else 1)
        found.append(self.sampler(constant, start, levels) - mixed(last))
        return [(float(data), float(noise)) for data, noise in torch.cat(found)]

    def _check_exact(self, excess: list[tuple[float, float]]) -> None:
        worst = max(abs(number) for pair in excess for number in pair)
        if worst > _SAME:
            raise ValueError(
                f"comfyui: solver {self.sampler.name!r} is not exact where a mask keeps the image (off by "
                f"{worst:.2g}), so that the mask must not change between calls, as it does with "
                "DifferentialDiffusion; take that node out, or use a solver such as dpmpp_2m."
            )


def _coordinates(model_sampling: Any) -> Coordinates:
    """Return the states of a model's denoiser, from what it makes of noise and data at one level."""
    level, one, zero = torch.tensor(0.5), torch.ones(1), torch.zeros(1)
    noise = float(model_sampling.noise_scaling(level, one.clone(), zero.clone()))
    data = float(model_sampling.noise_scaling(level, zero.clone(), one.clone()))
    known: dict[tuple[float, float], Coordinates] = {(0.5, 1.0): "VE", (0.5, 0.5): "straight"}
    if (noise, data) not in known:
        raise ValueError(
            f"comfyui: at sigma 0.5 this MODEL has the states {noise:g} noise + {data:g} data, but must have "
            "0.5 noise + 1 data (EPS, V, EDM) or 0.5 noise + 0.5 data (flow); use one of ComfyUI's samplers."
        )
    return known[noise, data]


def _schedule_of(model_sampling: Any, coordinates: Coordinates) -> Schedule | None:
    """Return the schedule of a model, if it determines one."""
    if coordinates == "straight":
        return CondOT()
    return Discrete(_table(model_sampling)) if _has_timesteps(model_sampling) else None


def _mismatch(schedule: Schedule, model_sampling: Any, coordinates: Coordinates) -> str | None:
    """Describe how a solver's schedule differs from a model's; ``None`` if it can serve it."""
    timesteps, top = _has_timesteps(model_sampling), float(model_sampling.sigma_max)
    if coordinates == "VE" and isinstance(schedule, DDPM | Discrete):
        if not timesteps:
            return "which has timesteps, but this MODEL has none"
        tables = schedule.table, _table(model_sampling)
        own, theirs = (torch.tensor(table, dtype=torch.float64) for table in tables)
        if len(own) != len(theirs):
            return f"with {len(own)} timesteps, but this MODEL has {len(theirs)}"
        if torch.allclose(own, theirs, rtol=_SAME, atol=_SAME_SQUARE):
            return None
        return f"but this MODEL has other noise levels at its {len(own)} timesteps, up to {top:g}"
    level = level_at(schedule, 0.0, coordinates)[1]
    # Any range of a continuous model's levels will do.
    below = coordinates == "VE" and not timesteps and level < top
    if below or math.isclose(level, top, rel_tol=_SAME):
        return None
    return f"which starts at noise level {level:g}, but this MODEL at {top:g}"


def _has_timesteps(model_sampling: Any) -> bool:
    return hasattr(model_sampling, "num_timesteps")


def _table(model_sampling: Any) -> list[float]:
    """Return ``alphas_cumprod`` of a model with timesteps."""
    squares: list[float] = (1 / (1 + model_sampling.sigmas.double().cpu().square())).tolist()
    return [*squares[:-1], squares[-1] if squares[-1] > _NO_SIGNAL else 0.0]
