"""The convention of a diffusers network, read from its scheduler's settings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from .._clock import Clock
from .._predictions import Prediction
from ..schedules import DDPM, VE, CondOT, Discrete, Schedule
from ..schedules._discrete import Betas

__all__ = ["Convention", "convention"]

_PREDICTIONS: dict[str, Prediction] = {
    "epsilon": "noise",
    "v_prediction": "v",
    "sample": "data",
    "original_sample": "data",
}
_BETAS: dict[str, Betas] = {
    "linear": "linear",
    "scaled_linear": "scaled_linear",
    "squaredcos_cap_v2": "squared_cosine",
}
_EDM = {"EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"}


class Convention(NamedTuple):
    """The schedule, prediction and call of a network.

    Attributes:
        schedule: its schedule.
        prediction: its prediction.
        clock: the time argument passed to it; the schedule's own by default.
        sign: factor of its output.
        sigma_data: standard deviation of the data for a raw network to be preconditioned, else ``None``.
        sigma_min: for a raw network, the lowest noise level passed to it.
        learned_variance: whether its output also holds a variance.
    """

    schedule: Schedule
    prediction: Prediction
    clock: Clock | None = None
    sign: int = 1
    sigma_data: float | None = None
    sigma_min: float = 0.0
    learned_variance: bool = False


def convention(scheduler: Any) -> Convention:
    """Return the convention of a scheduler, or of its settings, if they determine it."""
    kept = getattr(scheduler, "convention", None)  # FewStepScheduler keeps that of the one before
    if isinstance(kept, Convention):
        return kept
    config = scheduler if isinstance(scheduler, Mapping) else getattr(scheduler, "config", None)
    if not isinstance(config, Mapping) or hasattr(scheduler, "scheduler"):
        raise ValueError(
            "diffusers: scheduler must be one of diffusers, such as pipe.scheduler, or the mapping of its "
            f"settings, not a {type(scheduler).__name__}."
        )
    classes = type(scheduler).__mro__
    names = [str(config.get("_class_name"))] if config is scheduler else [c.__name__ for c in classes]
    if config.get("thresholding"):
        warnings.warn(
            "diffusers: the scheduler's dynamic thresholding is not part of an ODE and is not applied.",
            stacklevel=4,
        )
    if not _EDM.isdisjoint(names):
        return _edm(config, float(config.get("sigma_data", 0.5)))
    if config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction":
        return _edm(config, 1.0)  # EulerDiscrete, as Stable Video Diffusion uses it
    if _is_flow(config, names):
        return _flow(config)
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is not None or config.get("trained_betas") is not None or "beta_schedule" in config:
        return _betas(config, table)
    raise ValueError(
        f"diffusers: the convention of {names[0]} is unknown: it has neither betas nor straight flow paths "
        "nor EDM's levels; pass the network to fewstep.Field with its schedule and prediction."
    )


def _is_flow(config: Mapping[str, Any], names: list[str]) -> bool:
    named = any(name.startswith(("FlowMatchEuler", "FlowMatchHeun")) for name in names)
    return named or config.get("prediction_type") == "flow_prediction" or bool(config.get("use_flow_sigmas"))


def _flow(config: Mapping[str, Any]) -> Convention:
    """Straight paths, with a network of ``T sigma`` that predicts noise minus data by default."""
    steps, kind = config.get("num_train_timesteps", 1000), config.get("prediction_type", "flow_prediction")
    if config.get("invert_sigmas"):  # Mochi: its sigma is our t, and its velocity has our sign
        return Convention(CondOT(), "velocity", (0, steps))
    if kind == "flow_prediction":
        return Convention(CondOT(), "velocity", (steps, 0), sign=-1)
    if kind == "v_prediction" or kind not in _PREDICTIONS:
        raise ValueError(
            f"diffusers: prediction_type={kind!r} has no meaning on straight flow paths; allowed are "
            "'flow_prediction', 'epsilon' and 'sample'."
        )
    return Convention(CondOT(), _PREDICTIONS[kind], (steps, 0))


def _edm(config: Mapping[str, Any], sigma_data: float) -> Convention:
    """A raw network under EDM's preconditioning, with the sign reversed under ``v_prediction``."""
    kind = config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"diffusers: prediction_type={kind!r} is unknown to EDM's schedulers.")
    if config.get("sigma_max") is None or config.get("sigma_min") is None:
        raise ValueError("diffusers: the scheduler's settings must hold sigma_min and sigma_max.")
    schedule = VE(float(config["sigma_max"]), 0.0, float(config.get("rho", 7.0)))
    sign = -1 if kind == "v_prediction" else 1
    return Convention(schedule, "data", "sigma", sign, sigma_data, float(config["sigma_min"]))


def _betas(config: Mapping[str, Any], table: Any) -> Convention:
    kind = config.get("prediction_type", "epsilon")
    if kind not in _PREDICTIONS:
        raise ValueError(
            f"diffusers: prediction_type={kind!r} is unknown; allowed are {', '.join(_PREDICTIONS)} and "
            "'flow_prediction'."
        )
    learned = str(config.get("variance_type")).startswith("learned")
    return Convention(_schedule(config, table), _PREDICTIONS[kind], learned_variance=learned)


def _schedule(config: Mapping[str, Any], table: Any) -> Schedule:
    """Return the named schedule if it matches the table, else the table."""
    named = _named(config)
    if table is None:
        if named is not None:
            return named
        betas = config.get("trained_betas")
        if betas is None or config.get("rescale_betas_zero_snr"):
            raise ValueError(
                f"diffusers: the settings alone (beta_schedule={config.get('beta_schedule')!r}) do not give "
                "alphas_cumprod; pass the scheduler itself."
            )
        return Discrete(torch.cumprod(1 - torch.as_tensor(betas, dtype=torch.float64), 0).tolist())
    own = torch.as_tensor(table).double().cpu()
    # diffusers multiplies in float32, and some schedulers keep a little signal at zero terminal SNR.
    if named is not None and named.count == len(own):
        if torch.allclose(own.new_tensor(named.table), own, rtol=2e-4, atol=1e-6):
            return named
    return Discrete(own.tolist())


def _named(config: Mapping[str, Any]) -> DDPM | None:
    keys = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
    if config.get("trained_betas") is not None or any(key not in config for key in keys):
        return None
    betas, start, end, steps = (config[key] for key in keys)
    if betas not in _BETAS:
        return None
    return DDPM(_BETAS[betas], start, end, steps, bool(config.get("rescale_betas_zero_snr")))
