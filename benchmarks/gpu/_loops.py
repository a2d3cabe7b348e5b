"""Ways to make samples in eight network calls: bare calls, our samplers, and other libraries' loops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep._extras import require
from fewstep.families import NonStationary

__all__ = [
    "BARE",
    "NFE",
    "PEERS",
    "Setting",
    "Way",
    "compiled_network",
    "compiled_sampling",
    "fitted_like",
    "guidance",
    "ours",
    "peers",
]

NFE = 8
BARE = "bare calls"
#: A way, made by a call: it may take long to make, and runs with every call after that.
Way = Callable[[], Callable[[], Tensor]]


@dataclass(frozen=True)
class Setting:
    """A network with inputs of one batch.

    Args:
        network: called as ``network(x, t, **conditions)``, with a time of shape ``()`` or ``(B,)``.
        field: a field of this network, or of the same network compiled.
        x0: noise, in the network's type.
        conditions: conditions of the batch.
    """

    network: nn.Module
    field: fs.Field
    x0: Tensor
    conditions: Mapping[str, Tensor]

    def call(self, x: Tensor, t: Tensor) -> Tensor:
        """Call the network."""
        prediction: Tensor = self.network(x, t, **self.conditions)
        return prediction


def fitted_like() -> fs.Solver:
    """Return a solver in reduced form, as a fitted one is: every row reads the noise and all calls so far."""
    return NonStationary(fs.classical.adams_bashforth(2, NFE)).solver()


def ours(setting: Setting) -> dict[str, Way]:
    """Return the bare calls, and the samplers that run the network's own kernels."""
    solver, x0, conditions = fitted_like(), setting.x0, setting.conditions
    ways: dict[str, Way] = {
        BARE: lambda: _bare(setting),
        "sample": lambda: lambda: solver.sample(setting.field, x0, **conditions),
    }
    if x0.is_cuda:
        ways["CUDA graph"] = _sampler(setting, "graph")
    return ways


def compiled_network(setting: Setting) -> dict[str, Way]:
    """Return the bare calls, and those ways that only need the network compiled, once for all of them."""
    network: Any = torch.compile(setting.network, dynamic=False)
    field = fs.Field(network, shape=setting.field.shape, clock=setting.field.clock, name=setting.field.name)
    ways = ours(replace(setting, network=network, field=field))
    return {
        BARE: lambda: _bare(setting),
        **{f"{name}, network compiled": way for name, way in ways.items()},
    }


def compiled_sampling(setting: Setting) -> dict[str, Way]:
    """Return the bare calls, the samplers of the network's own kernels, and those compiled as a whole."""
    return {
        **ours(setting),
        **{f"compiled, {mode}": _sampler(setting, mode) for mode in ("default", "reduce-overhead")},
    }


def peers(setting: Setting) -> dict[str, Way]:
    """Return other libraries' loops, as their users write them, and a solver as sparse as theirs."""
    midpoint = fs.classical.midpoint(NFE // 2)
    return {
        "midpoint": lambda: lambda: midpoint.sample(setting.field, setting.x0, **setting.conditions),
        **{name: partial(make, setting) for name, make in PEERS.items()},
    }


def guidance(setting: Setting) -> dict[str, Way]:
    """Return eight guided calls, in which the conditions and those to guide away from are alike in cost."""
    x0, conditions = setting.x0, setting.conditions
    times = _times(setting)
    doubled = {name: torch.cat([value, value]) for name, value in conditions.items()}

    @torch.no_grad()
    def two() -> Tensor:
        for t in times:
            prediction, away = setting.call(x0, t), setting.call(x0, t)
        return prediction - away

    @torch.no_grad()
    def one() -> Tensor:
        for t in times:
            both = setting.network(torch.cat([x0, x0]), torch.cat([t, t]), **doubled)
            prediction, away = both.chunk(2)
        return prediction - away

    return {"two forwards": lambda: two, "one doubled batch": lambda: one}


def _times(setting: Setting) -> tuple[Tensor, ...]:
    """Return the time of each call, one per sample, as a field passes it."""
    times = torch.linspace(0, 1, NFE + 1, device=setting.x0.device)[:NFE]
    return times[:, None].repeat(1, len(setting.x0)).unbind()


def _sampler(setting: Setting, mode: str) -> Way:
    """Return the sampler of ``Solver.compiled``."""

    def make() -> Callable[[], Tensor]:
        solver, x0, conditions = fitted_like(), setting.x0, setting.conditions
        sampler = solver.compiled(setting.field, like=x0, mode=mode, **conditions)
        return lambda: sampler(x0, **conditions)

    return make


def _bare(setting: Setting) -> Callable[[], Tensor]:
    times = _times(setting)

    @torch.no_grad()
    def run() -> Tensor:
        for t in times:
            prediction = setting.call(setting.x0, t)
        return prediction

    return run


def _diffusion(name: str, setting: Setting) -> Callable[[], Tensor]:
    scheduler: Any = getattr(require("diffusers", "diffusers"), name)()

    @torch.no_grad()
    def run() -> Tensor:
        scheduler.set_timesteps(NFE, device=setting.x0.device)
        x = setting.x0 * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            prediction = setting.call(scheduler.scale_model_input(x, t), t)
            x = scheduler.step(prediction, t, x, return_dict=False)[0]
        return x

    return run


def _flow(setting: Setting) -> Callable[[], Tensor]:
    scheduler: Any = require("diffusers", "diffusers").FlowMatchEulerDiscreteScheduler()

    @torch.no_grad()
    def run() -> Tensor:
        scheduler.set_timesteps(NFE, device=setting.x0.device)
        x = setting.x0
        for t in scheduler.timesteps:
            x = scheduler.step(setting.call(x, t), t, x, return_dict=False)[0]
        return x

    return run


def _midpoint(setting: Setting) -> Callable[[], Tensor]:
    odeint = require("torchdiffeq", "fit").odeint
    times = torch.linspace(0, 1, NFE // 2 + 1, device=setting.x0.device)

    @torch.no_grad()
    def run() -> Tensor:
        states: Tensor = odeint(lambda t, x: setting.call(x, t), setting.x0, times, method="midpoint")
        return states[-1]

    return run


PEERS: dict[str, Callable[[Setting], Callable[[], Tensor]]] = {
    "diffusers DPM-Solver++ 2M": partial(_diffusion, "DPMSolverMultistepScheduler"),
    "diffusers UniPC": partial(_diffusion, "UniPCMultistepScheduler"),
    "diffusers flow-matching Euler": _flow,
    "torchdiffeq midpoint": _midpoint,
}
