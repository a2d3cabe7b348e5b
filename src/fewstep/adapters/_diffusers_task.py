"""The field and conditions of a pipeline's call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .._clock import Clock, default_clock
from .._conditions import in_turn, most_rows, row_count
from ..field import Field
from ..schedules import DDPM, Discrete
from ._diffusers_call import CONCATENATED, Call
from ._diffusers_conditions import Path, candidates, one_row, split
from ._diffusers_reading import Reading, form_of, read
from ._diffusers_schedulers import Convention, convention
from ._diffusers_values import plain, refuse, same, tolerance
from ._diffusers_watch import Recording, Step, unwrapped, watch
from ._network import adapted_field
from .edm import precondition

__all__ = ["Task", "check_counts", "task_of"]


@dataclass(frozen=True)
class Task:
    """What a call of a pipeline samples.

    Args:
        field: the field, with the guidance of the call.
        conditions: the network's arguments that all samples share.
        per_sample: those with one row per sample; with one prompt, one row that serves any number.
        noise: the standard normal noise that the call started from, ``(B, *field.shape)``; ``None`` if it
            started from an image. Schedulers may start from latents of unit variance instead of
            ``sigma(0)`` times them; the noise of a :class:`FewStepScheduler` is the latents themselves.
        shift: the shift of the scheduler's steps, which is a property of the grid; 1 for none.
    """

    field: Field
    conditions: Mapping[str, Any]
    per_sample: Mapping[str, Any]
    noise: Tensor | None
    shift: float

    def __repr__(self) -> str:
        conditions, per_sample = ([*names] for names in (self.conditions, self.per_sample))
        return f"Task({self.field!r}, {conditions=}, {per_sample=}, rows={self.rows}, shift={self.shift:g})"

    @property
    def rows(self) -> int:
        """Number of rows in ``per_sample``, 0 if one serves all samples."""
        return most_rows(self.per_sample)

    def of(self, samples: int | Sequence[int]) -> Task:
        """Return the task of other samples, which take the prompts in turn.

        Of ``n`` rows that were watched, sample ``k`` has row ``k`` modulo ``n``, negative prompts included.
        With a single prompt nothing changes, as its row serves any number of samples.

        Args:
            samples: their number, or the numbers ``k``.

        Returns:
            The task, without ``noise``, which belongs to the samples that were watched.

        Raises:
            ValueError: when ``samples`` is neither a number of at least 1 nor a sequence of numbers from 0.
        """
        numbers = range(samples) if isinstance(samples, int) else samples
        if not isinstance(numbers, Sequence) or not numbers or min(numbers) < 0:
            raise ValueError(
                "Task.of: samples must be their number, at least 1, or a list of their numbers, from 0, not "
                f"{samples!r}."
            )
        field = copy(self.field)
        per_sample, field.unconditional = in_turn(self.per_sample, field.unconditional, numbers)
        return replace(self, field=field, per_sample=per_sample, noise=None)


def task_of(pipe: Any, arguments: Mapping[str, Any]) -> Task:
    """Return what one call of a pipeline samples; see :func:`fewstep.adapters.diffusers.from_pipeline`."""
    record = watch(pipe, arguments)
    reading, scheme = read(record), _directed(convention(record.scheduler), record.steps[0])
    shape, shift = tuple(reading.steps[0].sample.shape[1:]), _shift(record)
    name = f"{type(unwrapped(reading.network)).__name__} {'x'.join(map(str, shape))}"
    options = {
        "shape": shape,
        "clock": _clock(reading, scheme),
        "time_shape": "scalar" if reading.scalar else "batch",
        "guidance": reading.guidance.scale,
        "guidance_rescale": reading.guidance.rescale,
        "name": name if shift == 1 else f"{name} shift {shift:.4g}",
    }
    limit = max(1e-3, 4 * max(tolerance(call.prediction) for call in reading.steps[0].calls))
    failures: list[str] = []
    for rows in candidates(reading):
        task = _task(reading, scheme, rows, options, shift)
        failure = _failure(task, reading, scheme, limit)
        if failure is None:
            begun = record.steps[0].timestep == float(record.scheduler.timesteps[0])
            noise = task.field.initial_noise(_state(reading, scheme, 0)) if begun else None
            return replace(task, noise=noise)
        failures.append(failure)
    refuse(f"the field that was read does not predict what the pipeline did in a step: {failures[0]}")


def check_counts(arguments: Mapping[str, Any]) -> None:
    """Raise a ``ValueError`` if there are not as many latents as images of all prompts."""
    latents = arguments.get("latents")
    prompts = arguments.get("prompt_embeds", arguments.get("prompt"))
    rows = 1 if isinstance(prompts, str) else row_count(prompts)
    if not isinstance(latents, Tensor) or rows is None:
        return
    each = arguments.get("num_images_per_prompt") or arguments.get("num_videos_per_prompt") or 1
    if len(latents) != rows * each:
        refuse(
            f"latents has {len(latents)} rows, but there are {rows} prompts with {each} samples each; pass "
            f"{rows * each} latents"
        )


def _directed(scheme: Convention, step: Step) -> Convention:
    """Return the convention with the sign of a velocity as in a step, which leads from noise to data."""
    if scheme.prediction != "velocity" or step.after is None:
        return scheme
    along = plain(step.after).sub(plain(step.sample)).mul(plain(step.output)).sum()
    return scheme._replace(sign=1 if along > 0 else -1)


def _shift(record: Recording) -> float:
    """Return the shift of the scheduler's steps, from its settings or from the pipeline's ``mu``."""
    config, mu = record.scheduler.config, record.settings.get("mu")
    if mu is not None and config.get("use_dynamic_shifting"):
        return float(mu) if config.get("time_shift_type") == "linear" else math.exp(float(mu))
    # An attribute, as set_shift may have changed it; where there is none, diffusers warns of reading one.
    shift = record.scheduler.shift if hasattr(type(record.scheduler), "shift") else config.get("shift")
    return float(shift or config.get("flow_shift") or 1.0)


@dataclass(frozen=True)
class _AffineTimestep:
    """``offset + factor k`` of a schedule's timestep ``k``."""

    schedule: DDPM | Discrete
    offset: float
    factor: float

    def __call__(self, t: Tensor) -> Tensor:
        return self.offset + self.factor * self.schedule.timestep(t)


def _clock(reading: Reading, scheme: Convention) -> Clock:
    """Return the clock: the network's time is an affine function of the scheduler's timestep."""
    told, counted = (torch.tensor(side, dtype=torch.float64) for side in zip(*reading.times, strict=True))
    A = torch.stack([torch.ones_like(counted), counted / counted.abs().max()], 1)
    fit = torch.linalg.lstsq(A, told[:, None]).solution[:, 0]
    offset, factor = float(fit[0]), float(fit[1] / counted.abs().max())
    eps = torch.finfo(reading.time_type).eps if reading.time_type.is_floating_point else 1e-7
    tol = max(1e-6, eps) * float(told.abs().max())
    if float((A @ fit - told).abs().max()) > 2 * tol:
        refuse(
            f"the network's times {told.tolist()} are no affine function of the scheduler's timesteps "
            f"{counted.tolist()}"
        )
    if float((told - counted).abs().max()) <= tol:
        return default_clock(scheme.schedule) if scheme.clock is None else scheme.clock
    if isinstance(scheme.clock, tuple):
        known = (0.0, 1.0, *scheme.clock)
        first, last = (
            next((v for v in known if abs(v - end) < 10 * tol), float(f"{end:.7g}"))
            for end in (offset + factor * at for at in scheme.clock)
        )
        return first, last
    if isinstance(scheme.schedule, DDPM | Discrete):
        return _AffineTimestep(scheme.schedule, offset, factor)
    refuse(f"the network's times {told.tolist()} are not the scheduler's {counted.tolist()}")


def _field_time(timestep: float, scheme: Convention) -> float:
    """Return the field's time at a timestep of the scheduler."""
    if isinstance(scheme.clock, tuple):
        first, last = scheme.clock
        return (timestep - first) / (last - first)
    if isinstance(scheme.schedule, DDPM | Discrete):
        return (scheme.schedule.count - 1 - timestep) / scheme.schedule.count
    return float(scheme.schedule.inverse_log_snr(-4 * timestep))  # EDM's c_noise = log(sigma) / 4


def _state(reading: Reading, scheme: Convention, k: int) -> Tensor:
    """Return the state of the field at a step: that of the network, or before EDM's preconditioning."""
    step = reading.steps[k]
    return step.sample if scheme.sigma_data else step.sample * form_of(step.calls[0], step.sample).scale


def _task(
    reading: Reading,
    scheme: Convention,
    rows: set[Path],
    options: Mapping[str, Any],
    shift: float,
) -> Task:
    parts = [split(e.arguments, e, reading.form.blocks, rows) for e in reading.evaluations]
    for part, evaluation in zip(parts, reading.evaluations, strict=True):
        if evaluation.extra is not None:
            part.own[CONCATENATED] = evaluation.extra
    first, last = parts[0], parts[-1]
    if {*first.own, *first.shared, *first.fixed} != {*last.own, *last.shared, *last.fixed}:
        refuse("the two calls of guidance have arguments of different names")
    for name in [name for name in first.fixed if not same(first.fixed[name], last.fixed.get(name))]:
        for part in parts:
            part.shared[name] = part.fixed.pop(name)
    away = {
        **{name: one_row(v) for name, v in last.own.items() if not same(v, first.own.get(name))},
        **{name: v for name, v in last.shared.items() if not same(v, first.shared.get(name))},
    }
    form = reading.form
    call = Call(
        (form.name, reading.time),
        scheme.sign * reading.sign,
        scheme.sigma_data,
        scheme.sigma_min,
        reading.cut,
        form.row,
        form.listed,
        form.joined,
        first.fixed,
        first.lists,
    )
    field = adapted_field(
        reading.network, call, scheme.schedule, scheme.prediction, unconditional=away, **options
    )
    return Task(field, first.shared, first.own, None, shift)


def _failure(task: Task, reading: Reading, scheme: Convention, limit: float) -> str | None:
    """Compare the field with the pipeline at the last step, for a batch of another size.

    One sample of several, or one twice: shared arguments that have as many rows as samples by chance, taken
    for rows of samples, then give other predictions or errors.
    """
    step, t = reading.steps[-1], _field_time(reading.steps[-1].timestep, scheme)
    x, output, count = _state(reading, scheme, -1), scheme.sign * step.output, len(step.sample)
    if scheme.sigma_data:
        sigma = torch.tensor(math.exp(4 * step.timestep), dtype=x.dtype, device=x.device)
        raw = output
        output = precondition(lambda *_: raw, x, sigma, scheme.sigma_data, scheme.sigma_min)
    rows = torch.tensor([0, 0] if count == 1 else [count - 1])
    try:
        field = task.field.bind(task.conditions, task.per_sample, len(rows) if count == 1 else count)
        field = field if count == 1 else field.rows(rows)
        with torch.no_grad():
            found = field.predict(x[rows], t)
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        return str(error)
    deviation = float((found - output[rows]).norm() / output[rows].norm())
    return None if deviation < limit else f"it deviates by {deviation:.2g} of its size"
