"""The samplers of other libraries, run as their users run them, on one random network and the same noises.

The state is passed to the network at unit variance, with an angle, ``arctan(sigma / alpha)``, and its output
is taken for noise, data, or whatever a peer needs. Every peer returns a record: the levels ``sigma / alpha``
that it stepped through, where it started and ended, and how many calls it made.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
import torchdiffeq
from torch import Tensor

import fewstep as fs
from fewstep import Field, Solver
from fewstep.schedules import Schedule

BATCH, SIZE, WIDTH = 8, 4, 32


class Run(NamedTuple):
    """The record of a peer. Shape: ``levels``: ``(n + 1,)``, float64; ``start`` and ``end``: ``(B, 4)``.

    The first ``skipped`` noises that it drew are not used.
    """

    levels: Tensor
    start: Tensor
    end: Tensor
    calls: int
    skipped: int = 0


def network(x: Tensor, angle: Tensor | float) -> Tensor:
    """A perceptron, smooth and far from linear, with weights that need no random generator."""
    first, second = (
        1.5 * torch.sin(torch.arange(1.0, rows * columns + 1).double().square()).reshape(rows, columns)
        for rows, columns in ((SIZE + 2, WIDTH), (WIDTH, SIZE))
    )
    angle = torch.as_tensor(angle, dtype=x.dtype).expand(len(x))
    hidden = torch.tanh(torch.cat([x, torch.stack([angle, angle.cos()], 1)], 1) @ first.to(x.dtype))
    return hidden @ second.to(x.dtype) / WIDTH**0.5


def start_noise() -> Tensor:
    """The noise that every run starts from, float32."""
    return fs.noise(BATCH, (SIZE,), seed=3)


@contextmanager
def drawing(place: Any, name: str) -> Iterator[None]:
    """Let a function that draws noise return, call after call, what our solvers get from ``added``."""
    numbers = count()

    def draw(*args: Any, **options: Any) -> Tensor:
        return added(next(numbers), start_noise())

    with mock.patch.object(place, name, draw, create=True):  # most schedulers draw none
        yield


def added(k: int, like: Tensor) -> Tensor:
    """The noises that samplers add, float32."""
    return fs.noises(seed=3)(k, like)


def sample(
    solver: Solver,
    run: Run,
    schedule: Schedule,
    prediction: str,
    predict: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Our sample from the peer's start; ``predict(x, level)`` is the network in the peer's coordinates."""
    if solver.nfe != run.calls:
        raise ValueError(f"sample: {solver.name} makes {solver.nfe} calls, the peer made {run.calls}.")
    field = Field(predict, schedule, prediction, time_shape="scalar", clock="sigma")
    x0 = run.start / float(schedule(0.0).sigma)
    return solver.sample(field, x0, noises=lambda k, like: added(k + run.skipped, like))


def grid(levels: Tensor, schedule: Schedule) -> list[float]:
    """The times of the levels."""
    return schedule.inverse_log_snr(-levels.log()).clamp(0, 1).tolist()


def deviation(sample: Tensor, run: Run) -> float:
    """The largest difference of any coordinate, over the samples' root mean square."""
    return float((sample - run.end).abs().max() / run.end.square().mean().sqrt())


# ----------------------------------------------------------------------------- diffusers, torchdiffeq


def diffusers_preserving(scheduler: Any, steps: int, **options: Any) -> Run:
    """A scheduler of noise-predicting networks whose states have unit variance."""
    scheduler.set_timesteps(steps)
    levels = _levels(scheduler)
    start = x = start_noise()
    with drawing(_module(scheduler), "randn_tensor"):
        for i, t in enumerate(scheduler.timesteps):
            x = scheduler.step(network(x, levels[i].arctan()), t, x, **options).prev_sample
    return Run(levels, start, x, len(scheduler.timesteps))


def diffusers_exploding(scheduler: Any, steps: int) -> Run:
    """A scheduler of noise-predicting networks whose states are ``data + sigma noise``."""
    scheduler.set_timesteps(steps)
    start = x = start_noise() * scheduler.sigmas[0]
    with drawing(_module(scheduler), "randn_tensor"):
        for i, t in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, t)
            x = scheduler.step(network(scaled, scheduler.sigmas[i].double().arctan()), t, x).prev_sample
    return Run(scheduler.sigmas.double().unique_consecutive(), start, x, len(scheduler.timesteps))


def diffusers_edm(scheduler: Any, steps: int) -> Run:
    """A scheduler of EDM's preconditioned networks; :func:`edm_data` is the network's data prediction."""
    scheduler.set_timesteps(steps)
    start = x = start_noise() * scheduler.sigmas[0]
    for i, t in enumerate(scheduler.timesteps):
        scaled = scheduler.scale_model_input(x, t)
        out = network(scaled, scheduler.sigmas[i].double().arctan())
        x = scheduler.step(out, t, x).prev_sample
    return Run(scheduler.sigmas.double(), start, x, len(scheduler.timesteps))


def edm_data(scheduler: Any, x: Tensor, level: Tensor) -> Tensor:
    """The preconditioned network's data prediction."""
    sigma = level.to(x.dtype)
    return scheduler.precondition_outputs(
        x, network(scheduler.precondition_inputs(x, sigma), level.arctan()), sigma
    )


def diffusers_flow(scheduler: Any, steps: int) -> Run:
    """A scheduler of networks that predict ``noise - data`` on straight paths."""
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.double()
    start = x = start_noise()
    for i, t in enumerate(scheduler.timesteps):
        x = scheduler.step(-flow_velocity(x, sigmas[i] / (1 - sigmas[i])), t, x).prev_sample
    levels = (sigmas / (1 - sigmas)).unique_consecutive()
    return Run(levels, start, x, len(scheduler.timesteps))


def torchdiffeq_path(method: str, times: Sequence[float], **options: Any) -> Run:
    """A fixed-step method of torchdiffeq on the velocity, in float32."""
    calls = 0

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return flow_velocity(x, (1 - t.double()) / t.double())

    start, t = start_noise(), torch.tensor(times, dtype=torch.float64)
    end = torchdiffeq.odeint(velocity, start, t.float(), method=method, options=options)[-1]
    return Run((1 - t) / t, start, end, calls)


def flow_velocity(x: Tensor, level: Tensor) -> Tensor:
    """The network as a velocity on CondOT."""
    return network(x, level.arctan())


def _module(scheduler: Any) -> Any:
    """The module of diffusers in which a scheduler, or what it is a subclass of, draws noise."""
    names = (base.__module__ for base in type(scheduler).__mro__)
    return sys.modules[next(name for name in names if name.startswith("diffusers."))]


def _levels(scheduler: Any) -> Tensor:
    """``sigma / alpha`` of the timesteps, and at the end."""
    if hasattr(scheduler, "betas") and hasattr(scheduler, "ets"):  # IPNDM: these are sigma and alpha
        return scheduler.betas.double() / (1 - scheduler.betas.double().square()).sqrt()
    if hasattr(scheduler, "sigmas"):
        return scheduler.sigmas.double()
    alphas = scheduler.alphas_cumprod[scheduler.timesteps].double()  # DDIM, which ends at alpha = 1
    return torch.cat([(1 / alphas - 1).sqrt(), torch.zeros(1, dtype=torch.float64)])


# ---------------------------------------------------------------------------------------- k-diffusion


@cache
def k_diffusion_sampling() -> Any:
    """``k_diffusion.sampling`` alone: the package itself would import training code that we lack.

    Raises:
        ImportError: when k-diffusion, or what its samplers need, is not there.
    """
    package = importlib.util.find_spec("k_diffusion")
    if package is None or package.submodule_search_locations is None:
        raise ImportError("k_diffusion is not installed.")
    file = Path(next(iter(package.submodule_search_locations))) / "sampling.py"
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, dims: x.reshape(x.shape + (1,) * (dims - x.ndim))
    parent = types.ModuleType("k_diffusion")
    parent.utils = utils
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", file)
    module = importlib.util.module_from_spec(spec)
    # torchsde draws noises, which we hand in.
    stand_ins = {"k_diffusion": parent, "k_diffusion.utils": utils, "torchsde": types.ModuleType("torchsde")}
    sys.modules |= stand_ins
    try:
        spec.loader.exec_module(module)
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return module


def k_diffusion(sampler: str, sigmas: Sequence[float], **options: Any) -> Run:
    """A sampler of k-diffusion on a denoiser.

    Its sampler of EDM draws a noise for every step, of which the first is not used below ``s_tmax``.
    """
    calls = 0

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return exploding_data(x, sigma[0])

    sampling, levels = k_diffusion_sampling(), torch.tensor(sigmas)
    start = start_noise() * levels[0]
    function, numbers = getattr(sampling, f"sample_{sampler}"), count()
    if "noise_sampler" in signature(function).parameters:
        options["noise_sampler"] = lambda *levels: added(next(numbers), start)
    with drawing(torch, "randn_like"):
        end = function(denoiser, start, levels, disable=True, **options)
    return Run(levels.double(), start, end, calls, skipped=int("s_churn" in options))


def exploding_data(x: Tensor, level: Tensor) -> Tensor:
    """The network as a data prediction for states ``data + sigma noise``."""
    sigma = level.to(x.dtype)
    scale = (1 + sigma.square()).sqrt()
    return (x + sigma * scale * network(x / scale, level.arctan())) / scale.square()


def karras_sigmas(steps: int, sigma_min: float = 0.03, sigma_max: float = 20.0) -> list[float]:
    """Levels of Karras et al. (2022), eq. 5, and zero."""
    ramp = [i / (steps - 1) for i in range(steps)]
    top, bottom = sigma_max ** (1 / 7), sigma_min ** (1 / 7)
    return [*((top + r * (bottom - top)) ** 7 for r in ramp), 0.0]
