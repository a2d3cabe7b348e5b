"""Pipelines, U-Nets and transformers of diffusers, with their schedulers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .._network import floating_type
from ..field import Field
from ._denoiser import Denoise, precondition
from ._diffusers_schedulers import convention
from ._network import Network, adapted_field

__all__ = ["field"]

#: Transformers that are told the level itself, not a thousand times it; their pipelines divide.
_UNIT_TIME = ("Flux", "Chroma", "QwenImage", "LongCatImage", "OvisImage", "AuraFlow")
#: Transformers that know time and velocity as we do, from noise to data; their pipelines turn both round.
_OUR_TIME = ("Lumina2",)


def field(model_or_pipeline: Any, scheduler: Any = None, **options: Any) -> Field:
    """The field of a diffusers model, as its scheduler's settings tell how to read it.

    diffusers counts timesteps up from data to noise; here time runs up from noise to data.

    - *Betas* (DDIM, DDPM, PNDM, DPM-Solver, UniPC, Euler, Heun and the rest): timestep ``k`` of ``T`` is at
      ``t = (T - 1 - k) / T``, told as a float, and pure data at ``t = 1``. ``epsilon``, ``v_prediction`` and
      ``sample`` are noise, v and data. The state is the variance-preserving one of DDIM; that of Euler and
      its kin is larger by ``1 / alpha``. A learned variance behind the prediction is left out.
    - *Flow matching* (FlowMatchEuler, FlowMatchHeun, others with ``use_flow_sigmas``): ``CondOT()``; the
      network is told ``num_train_timesteps (1 - t)`` and predicts noise minus data, the negative of the
      velocity. Transformers of Flux, Chroma, QwenImage, LongCatImage, OvisImage and AuraFlow are told
      ``1 - t``, as by their pipelines, and Lumina2 ``t``, whose velocity is ours; for another that is
      special, pass ``clock``. A ``shift`` moves the scheduler's steps and not the field: it belongs to
      the grid, :func:`fewstep.grids.flow_shift`.
    - *EDM* (EDMEuler, EDMDPMSolverMultistep, and EulerDiscrete with continuous timesteps): a raw network,
      preconditioned by EDM's formulas with the scheduler's ``sigma_data``; see
      :class:`fewstep.adapters.edm.Preconditioned`. Under ``v_prediction`` its output is negated.

    The network's other arguments (``encoder_hidden_states``, ``class_labels``, ``pooled_projections`` ...)
    are conditions. Guidance is the field's:
    ``guidance=7.5, unconditional={"encoder_hidden_states": empty}``.

    Two things that schedulers do are no part of the ODE and left out: clipping the predicted data
    (``clip_sample``, on by default in DDIM and DDPM; dynamic thresholding, which is warned about), and noise
    added on the way. And the start differs a little: a solver here starts at :meth:`Field.initial_state`,
    which is ``sigma(0)`` times the noise; theirs at ``init_noise_sigma`` times it, which is 1 where
    ``sigma(0)`` is not quite, and ``sqrt(sigma_max^2 + 1)`` instead of ``sigma_max`` for EDM. For the very
    same samples, give ours ``field.initial_noise(state)`` of their state.

    Args:
        model_or_pipeline: a pipeline, of which ``unet`` or ``transformer``, and ``scheduler``, are taken; or
            a network called as ``(sample, timestep)`` or with ``hidden_states=`` and ``timestep=``, returning
            a tensor, a tuple or an output with ``.sample``.
        scheduler: a scheduler, or its settings as a mapping; needed without a pipeline.
        **options: of :class:`~fewstep.Field`. ``shape`` is otherwise read from the settings of
            two-dimensional networks that name their ``sample_size``.

    Raises:
        ValueError: when there is no network or scheduler, or one whose convention is not known.
    """
    network, scheduler = _parts(model_or_pipeline, scheduler)
    reading = convention(scheduler)
    kind = type(network).__name__
    if reading.prediction == "velocity" and kind.startswith(_UNIT_TIME):
        reading = reading._replace(clock=(1, 0))
    if reading.prediction == "velocity" and kind.startswith(_OUR_TIME):
        reading = reading._replace(clock=(0, 1), sign=1)
    settings = getattr(network, "config", None)
    settings = settings if isinstance(settings, Mapping) else {}
    options.setdefault("shape", _shape(kind, settings))
    options.setdefault("clock", reading.clock)
    half = reading.learned_variance or _doubles_channels(settings)
    call = _Call(_takes_keywords(network), half, reading.sign, reading.sigma_data, reading.sigma_min)
    return adapted_field(network, call, reading.schedule, reading.prediction, **options)


@dataclass(frozen=True)
class _Call:
    """How a network of diffusers is called, and what is made of its output."""

    keywords: bool
    half: bool
    sign: int
    sigma_data: float | None
    sigma_min: float

    @property
    def casts_input(self) -> bool:
        """True where states are preconditioned, before the network gets them in its own type."""
        return self.sigma_data is not None

    def __call__(self, network: Network, x: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        def raw(x: Tensor, time: Tensor) -> Tensor:
            return self._raw(network, x.to(floating_type(network) or x.dtype), time, conditions)

        s, lowest = self.sigma_data, self.sigma_min
        if s is None:
            return self._raw(network, x, time, conditions)
        return Denoise(lowest)(lambda x, sigma: precondition(raw, x, sigma, s, lowest), x, time)

    def _raw(self, network: Network, x: Tensor, time: Tensor, conditions: Mapping[str, Any]) -> Tensor:
        if self.keywords:
            output = network(hidden_states=x, timestep=time, **conditions)
        else:
            output = network(x, time, **conditions)
        if not isinstance(output, Tensor):
            output = output[0] if isinstance(output, tuple) else output.sample
        if self.half and output.shape[1] == 2 * x.shape[1]:
            output = output.chunk(2, dim=1)[0]
        prediction: Tensor = output if self.sign == 1 else -output
        return prediction


def _parts(given: Any, scheduler: Any) -> tuple[Network, Any]:
    """The network and the scheduler of a pipeline, or those given."""
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
            "trained with, which says what it predicts."
        )
    return network, scheduler


def _takes_keywords(network: Network) -> bool:
    """Whether the state is an argument ``hidden_states``, whose place among the others varies."""
    network = getattr(network, "_orig_mod", network)  # as torch.compile keeps it
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
    """The shape of a sample, where the settings of a two-dimensional network tell it."""
    channels, size, out = (settings.get(key) for key in ("in_channels", "sample_size", "out_channels"))
    # With other channels going in than coming out, part of the input is a condition.
    if "2D" not in kind or channels is None or size is None or out not in (None, channels, 2 * channels):
        return None
    height, width = (size, size) if isinstance(size, int) else size
    return (channels, height, width)
