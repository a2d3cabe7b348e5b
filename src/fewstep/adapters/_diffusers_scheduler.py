"""A diffusers scheduler that runs our solvers inside its pipelines."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import diffusers
import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from torch import Tensor

from .._broadcast import like
from .._network import state_type
from ..fitting import Fit
from ..solver import Solver
from . import _diffusers_arguments as arguments
from ._diffusers_arguments import OURS
from ._diffusers_dialect import SAME, convention_from_dict, convention_to_dict, times_of, timestep_at, wire
from ._diffusers_schedulers import Convention, convention
from ._stepper import History, Stepper

__all__ = ["FewStepScheduler"]


class FewStepScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # both name the file
    """Solvers as a scheduler: ``pipe.scheduler = FewStepScheduler.from_solver(fit, pipe.scheduler)``.

    ``num_inference_steps`` chooses the solver, by its number of network calls. The latents that the pipeline
    holds are the states of our field, in the coordinates of the network; those that it changes (inpainting,
    callbacks) stay changed. It may start later (``strength``): from the first of its timesteps on, the calls
    that remain are made by DPM-Solver++ 2M, as a solver has no history there. States are float32 at least.

    The settings are those of the scheduler that it replaces, and its own under ``"_fewstep"``.
    ``restored()`` is the old one. Schedulers of diffusers that are made from these settings keep that entry,
    so that ``FewStepScheduler.from_config`` of theirs gives the solvers again. ``save_pretrained``,
    ``from_pretrained`` and ``push_to_hub`` write and read JSON. One object serves one pipeline at a time, as
    all schedulers of diffusers do. ``DDIMPipeline`` turns every scheduler that it is made with into its own
    kind: set its ``scheduler`` afterwards.

    Args:
        solvers: solvers, or the objects in their files, of different numbers of calls.
        convention: what the network predicts; ``from_solver`` reads it from the old scheduler.
        settings: the settings of the old scheduler.
        before: the name of its class.

    Raises:
        ValueError: when two solvers have one number of calls, or one is for another schedule.
    """

    order = 1

    _begin_index: int | None

    def __init__(
        self,
        solvers: Sequence[Solver | Mapping[str, Any]],
        convention: Convention | Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
        before: str | None = None,
    ) -> None:
        reading = convention_from_dict(convention) if isinstance(convention, Mapping) else convention
        self.convention = reading
        self._solvers = arguments.by_calls(solvers)
        self._steppers = {
            n: Stepper.of(solver, reading.prediction, reading.schedule) for n, solver in self._solvers.items()
        }
        ours = {
            "solvers": [arguments.packed(solver) for solver in self._solvers.values()],
            "convention": convention_to_dict(reading),
            "before": before,
        }
        ours = json.loads(json.dumps(ours))  # equal to what a file will hold
        self.register_to_config(**{**(settings or {}), OURS: ours})  # type: ignore[no-untyped-call]
        #: Numbers of network calls of its solvers.
        self.counts = tuple(self._solvers)
        #: What a pipeline multiplies the noise by.
        self.init_noise_sigma = float(reading.schedule(0.0).sigma)
        self.set_timesteps(max(self._steppers))

    @classmethod
    def from_solver(cls, solver: Solver | Fit | Iterable[Solver | Fit], scheduler: Any) -> FewStepScheduler:
        """Return the scheduler of one or several solvers, for the pipelines of ``scheduler``.

        Args:
            solver: a solver, a fit (all numbers of calls that it was fitted for), or several.
            scheduler: the pipeline's present scheduler, which determines the network's convention.

        Raises:
            ValueError: when the scheduler's convention is unknown, or as for the class.

        Warns:
            UserWarning: when a solver was fitted for another schedule.
        """
        given = list(solver) if isinstance(solver, Iterable) else [solver]
        solvers = [member for one in given for member in arguments.members(one)]
        reading = convention(scheduler)
        settings = dict(scheduler if isinstance(scheduler, Mapping) else scheduler.config)
        # Without their underscored names, all settings are taken as given, and none as a default to replace.
        kept = {key: value for key, value in settings.items() if not key.startswith("_")}
        before = settings.get("_class_name") if isinstance(scheduler, Mapping) else type(scheduler).__name__
        if before == cls.__name__:
            before = settings[OURS]["before"]
        for found in filter(None, (arguments.schedule_mismatch(one, reading.schedule) for one in solvers)):
            warnings.warn(f"{found}; fit again for this scheduler's.", stacklevel=2)
        return cls(solvers, reading, kept, before)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any] | None = None, return_unused_kwargs: bool = False, **kwargs: Any
    ) -> Any:
        """Return the scheduler with settings of one, or of another that was made from its settings.

        Args:
            config: the settings.
            return_unused_kwargs: return a pair, with ``kwargs``, as in diffusers.
            **kwargs: not used.

        Raises:
            ValueError: when the settings hold no solver.
        """
        ours = (config or {}).get(OURS)
        if not isinstance(ours, Mapping):
            raise ValueError(
                "FewStepScheduler: these settings hold no solver; fit one, and use "
                "FewStepScheduler.from_solver(solver, pipe.scheduler)."
            )
        settings = {key: value for key, value in (config or {}).items() if key != OURS}
        if "_class_name" in settings:
            settings["_class_name"] = cls.__name__
        made = cls(ours["solvers"], ours["convention"], settings, ours.get("before"))
        return (made, kwargs) if return_unused_kwargs else made

    def restored(self) -> Any:
        """Return the scheduler before, with its settings alone.

        Raises:
            ValueError: when it is not one of diffusers.
        """
        return arguments.before(self.config)

    @property
    def compatibles(self) -> list[type]:
        """The schedulers of diffusers that take these settings: the one before, and those it names."""
        before = getattr(diffusers, str(self.config[OURS]["before"]), None)
        return [] if before is None else list(before._get_compatibles())

    @property
    def step_index(self) -> int | None:
        """Index of the next network call; ``None`` before the first."""
        return None if self._history is None else self._first + self._history.call

    @property
    def begin_index(self) -> int | None:
        """Index of the first network call, as the pipeline set it."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at a later call; called by pipelines before the first step.

        Raises:
            ValueError: when no call remains, as with a small ``strength``.
        """
        arguments.check_begin(begin_index, len(self.timesteps))
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        *,
        sigmas: Any = None,
        mu: float | None = None,
        timesteps: Any = None,
    ) -> None:
        """Choose the solver, and forget what was sampled.

        Args:
            num_inference_steps: number of network calls.
            device: device of the timesteps.
            sigmas: what pipelines of flow matching always pass, evenly spaced numbers, of which only the
                count is used.
            mu: the shift for a resolution; the fitted times have it in them, and it is not used again.
            timesteps: like ``sigmas``; also accepted are this scheduler's own.

        Raises:
            ValueError: when no solver has this number of calls, or for a list of other values.
        """
        counts = [len(given) for given in (sigmas, timesteps) if given is not None]
        n = counts[0] if counts else num_inference_steps
        if n not in self._steppers:
            known = " or ".join(str(known) for known in self._steppers)
            raise ValueError(
                f"FewStepScheduler: num_inference_steps={n}, but its solvers make {known} network calls; "
                "pass such a number, or fit a solver for this one."
            )
        self._stepper = self._steppers[n]
        exact = [timestep_at(self.convention, t) for t in self._stepper.called]
        for name, given in (("sigmas", sigmas), ("timesteps", timesteps)):
            if given is not None:
                arguments.check_even(name, given, exact)
        self.num_inference_steps = n
        self._own, self._own_times = exact, self._stepper.times[:-1]
        self.timesteps = torch.tensor(exact, dtype=torch.float32, device=device)
        alpha, sigma = self.convention.schedule(torch.tensor(self._stepper.times, dtype=torch.float64))[:2]
        straight = isinstance(self.convention.clock, tuple)
        #: Noise levels as in the scheduler before: sigma of straight paths, else sigma / alpha.
        self.sigmas = (sigma if straight else sigma / alpha).float()
        self._wires = [wire(self.convention, t) for t in self._stepper.called]
        self._begin_index = None
        self._first = 0
        self._history: History | None = None

    def scale_model_input(self, sample: Tensor, timestep: Tensor | float | None = None) -> Tensor:
        """Return what the network gets: the latents, or EDM's ``c_in`` times them."""
        if self.convention.sigma_data is None:
            return sample
        return sample * self._wires[self._index(timestep)].scale

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """Make the step after a network call.

        Args:
            model_output: the output of the network, with guidance.
            timestep: its timestep; only looked at to find the first, if the pipeline did not set it.
            sample: the latents at which the network was called.
            generator: not used.
            return_dict: return a ``SchedulerOutput`` instead of a tuple.

        Returns:
            The latents at which the network is called next, in the type of ``sample``.
        """
        if self._history is None:
            self._first = self._index(timestep)
            self._stepper = self._stepper.entered(self._first)
            self._history = self._stepper.begin(sample)
        if self.convention.learned_variance and model_output.shape[1] == 2 * sample.shape[1]:
            model_output = model_output.chunk(2, dim=1)[0]
        wide = state_type(sample.dtype)
        # A call too many is refused by the stepper.
        _, A, B = self._wires[min(self._first + self._history.call, len(self._wires) - 1)]
        prediction = A * sample.to(wide) + B * model_output.to(wide)
        self._history, x = self._stepper.step(self._history, prediction, edited=sample)
        latents = x.to(sample.dtype, copy=True)
        return SchedulerOutput(prev_sample=latents) if return_dict else (latents,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return ``alpha data + sigma noise`` at timesteps, ``()`` or ``(B,)``."""
        t = times_of(self.convention, timesteps.to(original_samples.device), (self._own, self._own_times))
        alpha, sigma = (like(c, original_samples) for c in self.convention.schedule(t)[:2])
        return (alpha * original_samples + sigma * noise).to(original_samples.dtype)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """Return the same as :meth:`add_noise`, as pipelines of flow matching call it."""
        return self.add_noise(sample, noise, timestep)

    def index_for_timestep(self, timestep: Tensor | float) -> int:
        """Return the index of the network call at a timestep, the first of several.

        Raises:
            ValueError: when there is none.
        """
        distances = (self.timesteps.cpu().double() - float(timestep)).abs()
        index = int(distances.argmin())
        if not float(distances[index]) < SAME:
            raise ValueError(
                f"FewStepScheduler: timestep {float(timestep):g} is none of its timesteps, "
                f"{[round(float(k), 3) for k in self.timesteps]}; pass one of scheduler.timesteps."
            )
        return index

    def __len__(self) -> int:
        return int(self.config.get("num_train_timesteps", 1000))

    def _index(self, timestep: Tensor | float | None) -> int:
        """Return the index of the next network call."""
        if self._history is not None:
            return self._first + self._history.call
        if self._begin_index is not None:
            return self._begin_index
        if timestep is None:
            return 0
        if isinstance(timestep, Tensor) and arguments.shares_memory(timestep, self.timesteps):
            return int(timestep.storage_offset())  # the value would be waited for
        return self.index_for_timestep(timestep)


# Saved pipelines name the module of their scheduler.
FewStepScheduler.__module__ = "fewstep.adapters.diffusers"
