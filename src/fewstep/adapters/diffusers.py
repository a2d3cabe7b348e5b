"""Fields from diffusers pipelines and networks, and our solvers as their scheduler."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from torch import nn

from .._extras import require
from ..field import Field
from ._diffusers_call import Call
from ._diffusers_grid import grid
from ._diffusers_pipeline import from_pipeline
from ._diffusers_schedulers import Convention, convention
from ._diffusers_task import Task
from ._network import Network, adapted_field

if TYPE_CHECKING:
    from ._diffusers_scheduler import FewStepScheduler

__all__ = ["FewStepScheduler", "Task", "field", "from_pipeline", "grid"]

# A network alone does not tell its clock and sign under flow matching; its pipeline does. These are known.
#: Networks that take sigma itself, not a thousand times it; their pipelines divide the timestep.
_UNIT_TIME = ("Flux", "Chroma", "QwenImage", "LongCatImage", "OvisImage", "AuraFlow", "PRX")
#: Networks with our time and velocity, from noise to data; their pipelines reverse both.
_OUR_TIME = ("Lumina2",)
#: Networks that take the scheduler's timestep.
_TIMESTEP = ("UNet", "SD3", "Sana", "Wan", "HunyuanVideo", "LTXVideo", "Mochi")


def __getattr__(name: str) -> Any:
    """Load what needs diffusers itself on first use; it looks for its base class where it loads a class."""
    if name not in ("FewStepScheduler", "SchedulerMixin"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("diffusers", "diffusers")
    return getattr(import_module("._diffusers_scheduler", __package__), name)


def field(model_or_pipeline: Any, scheduler: Any = None, **options: Any) -> Field:
    """Return the field of a diffusers model, with the convention given by its scheduler's settings.

    In diffusers, timesteps increase from data to noise; here time increases from noise to data.

    - *Betas* (DDIM, DDPM, PNDM, DPM-Solver, UniPC, Euler, Heun and others): timestep ``k`` of ``T`` is at
      ``t = (T - 1 - k) / T`` and passed as a float; pure data is at ``t = 1``. ``epsilon``, ``v_prediction``
      and ``sample`` are noise, v and data. The state is variance preserving, as in DDIM; that of Euler and
      related schedulers is larger by ``1 / alpha``. A learned variance is dropped from the output.
    - *Flow matching* (FlowMatchEuler, FlowMatchHeun, others with ``use_flow_sigmas``): ``CondOT()``; the
      network takes ``num_train_timesteps (1 - t)`` and predicts noise minus data, the negative of the
      velocity. As in their pipelines, transformers of Flux, Chroma, QwenImage, LongCatImage, OvisImage,
      AuraFlow and PRX take ``1 - t``, and Lumina2 takes ``t`` and predicts our velocity. For a network that
      is not among those known, this is a guess, with a warning: use :func:`from_pipeline`, which watches
      what the pipeline does, or pass ``clock``. A ``shift`` moves the scheduler's steps and not the field:
      it is a property of the grid, :func:`fewstep.grids.flow_shift`.
    - *EDM* (EDMEuler, EDMDPMSolverMultistep, and EulerDiscrete with continuous timesteps): a raw network,
      preconditioned by EDM's formulas with the scheduler's ``sigma_data``; see
      :class:`fewstep.adapters.edm.Preconditioned`. Under ``v_prediction`` its output is negated.

    The network's other arguments (``encoder_hidden_states``, ``class_labels``, ``pooled_projections`` ...)
    are conditions. Guidance is an option of the field:
    ``guidance=7.5, unconditional={"encoder_hidden_states": empty}``.

    Two operations of schedulers are not part of the ODE and are omitted: clipping of the predicted data
    (``clip_sample``, on by default in DDIM and DDPM, and dynamic thresholding, which gives a warning), and
    added noise. The initial state differs slightly: a solver here starts at :meth:`Field.initial_state`,
    ``sigma(0)`` times the noise, but diffusers at ``init_noise_sigma`` times the noise, which is 1 where
    ``sigma(0)`` is slightly smaller, and ``sqrt(sigma_max^2 + 1)`` instead of ``sigma_max`` for EDM. For
    identical samples, start here from ``field.initial_noise(state)`` of the state in diffusers.

    Args:
        model_or_pipeline: a pipeline with a ``unet`` or ``transformer`` and a ``scheduler``; or a network
            called as ``(sample, timestep)`` or with ``hidden_states=`` and ``timestep=``, returning a tensor,
            a tuple or an output with ``.sample``.
        scheduler: a scheduler, or its settings as a mapping; required without a pipeline.
        **options: options of :class:`~fewstep.Field`. ``shape`` defaults to that of the settings of
            two-dimensional networks with a ``sample_size``.

    Raises:
        ValueError: when the network or the scheduler is missing, or its convention is unknown.
    """
    network, scheduler = _parts(model_or_pipeline, scheduler)
    reading = convention(scheduler)
    kind = type(getattr(network, "_orig_mod", network)).__name__  # the one inside torch.compile's wrapper
    settings = getattr(network, "config", None)
    settings = settings if isinstance(settings, Mapping) else {}
    if reading.prediction == "velocity":
        reading = _known(kind, settings, reading, "clock" in options)
    options.setdefault("shape", _shape(kind, settings))
    options.setdefault("clock", reading.clock)
    names = ("hidden_states", "timestep") if _takes_keywords(network) else None
    cut = (1,) if reading.learned_variance or _doubles_channels(settings) else ()
    call = Call(names, reading.sign, reading.sigma_data, reading.sigma_min, cut)
    return adapted_field(network, call, reading.schedule, reading.prediction, **options)


def _known(kind: str, settings: Mapping[str, Any], reading: Convention, timed: bool) -> Convention:
    """Return the convention of a flow-matching network by its name; warn if that is not known."""
    if kind.startswith(_UNIT_TIME):
        return reading._replace(clock=(1, 0))
    if kind.startswith(_OUR_TIME):
        return reading._replace(clock=(0, 1), sign=1)
    if isinstance(reading.clock, tuple) and "timestep_scale" in settings:  # Sana
        scale = settings["timestep_scale"]
        reading = reading._replace(clock=(scale * reading.clock[0], scale * reading.clock[1]))
    if not (kind.startswith(_TIMESTEP) or timed):
        warnings.warn(
            f"diffusers: {kind} is not among the flow-matching networks known, and is guessed to take the "
            f"time {reading.clock} at noise and data and to predict {'-' if reading.sign < 0 else ''}dx/dt; "
            "use from_pipeline, which watches what its pipeline does, or pass clock.",
            stacklevel=3,
        )
    return reading


def _parts(given: Any, scheduler: Any) -> tuple[Network, Any]:
    """Return the network and the scheduler of a pipeline, or those given."""
    network = given
    if not isinstance(given, nn.Module) and hasattr(given, "scheduler"):
        parts = [getattr(given, name, None) for name in ("unet", "transformer")]
        network = next((part for part in parts if part is not None), None)
        scheduler = given.scheduler if scheduler is None else scheduler
    if network is None:
        raise ValueError(
            f"diffusers: {type(given).__name__} has neither unet nor transformer; pass its network and "
            "scheduler."
        )
    if scheduler is None:
        raise ValueError(
            "diffusers: scheduler is missing; pass the pipeline, or the scheduler that the network was "
            "trained with, which determines its prediction."
        )
    return network, scheduler


def _takes_keywords(network: Network) -> bool:
    """True for networks that take the state as ``hidden_states``, whose position varies."""
    network = getattr(network, "_orig_mod", network)  # the network inside torch.compile's wrapper
    try:
        parameters = inspect.signature(
            network.forward if isinstance(network, nn.Module) else network
        ).parameters
    except (TypeError, ValueError):  # not every callable has one
        return False
    return "hidden_states" in parameters


def _doubles_channels(settings: Mapping[str, Any]) -> bool:
    channels, out = settings.get("in_channels"), settings.get("out_channels")
    return channels is not None and out == 2 * channels


def _shape(kind: str, settings: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of a sample from the settings of a two-dimensional network, or ``None``."""
    channels, size, out = (settings.get(key) for key in ("in_channels", "sample_size", "out_channels"))
    # With more channels in than out, part of the input is a condition.
    if "2D" not in kind or channels is None or size is None or out not in (None, channels, 2 * channels):
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return (channels, height, width)
