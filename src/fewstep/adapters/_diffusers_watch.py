"""Recording of what a pipeline passes to its network and scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import wraps
from numbers import Real
from typing import Any

from torch import Tensor, nn

from ._diffusers_call import output_tensor
from ._diffusers_values import refuse

__all__ = ["FEWEST", "NetworkCall", "Recording", "Step", "unwrapped", "watch"]

#: Steps to watch, which span the times; the fewest that tell the clock; and most that are asked for.
_STEPS, FEWEST, _MOST = 4, 2, 1000


@dataclass
class NetworkCall:
    """One call of a module: its arguments by name, and the tensor that it returned, if it was one."""

    module: nn.Module
    arguments: dict[str, Any]
    output: Tensor | None = None

    @property
    def prediction(self) -> Tensor:
        """The output.

        Raises:
            ValueError: when it is none.
        """
        if self.output is None:
            refuse(f"{type(self.module).__name__} returns neither a tensor nor an output with .sample")
        return self.output


@dataclass
class Step:
    """The calls of modules since the step before, what the scheduler then got, and what it returned."""

    calls: list[NetworkCall]
    timestep: float
    sample: Tensor
    output: Tensor
    after: Tensor | None = None


@dataclass
class Recording:
    """Steps of a pipeline, and the keyword arguments of its scheduler's ``set_timesteps``."""

    scheduler: Any
    names: Mapping[nn.Module, str]
    steps: list[Step] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    calls: list[NetworkCall] = field(default_factory=list)


class _Watched(BaseException):
    """Ends the pipeline; not an ``Exception``, that it may not catch it."""


def watch(pipe: Any, arguments: Mapping[str, Any]) -> Recording:
    """Run a few steps of a pipeline and record them; its scheduler and modules are left as they were.

    Args:
        pipe: a pipeline with a ``scheduler`` and modules as attributes.
        arguments: those of its call. By default four steps are made, or as many as one of the solvers of a
            :class:`FewStepScheduler` has, more if ``strength`` leaves fewer than two of them, and the samples
            are not decoded.

    Raises:
        ValueError: when the pipeline lacks a scheduler or modules.
    """
    kind, scheduler = type(pipe).__name__, getattr(pipe, "scheduler", None)
    if not (callable(pipe) and hasattr(scheduler, "step")) or isinstance(pipe, nn.Module):
        lacks = "has no scheduler" if callable(pipe) and not isinstance(pipe, nn.Module) else "is no pipeline"
        refuse(
            f"{kind} {lacks}; pass a pipeline of diffusers, or a network and its scheduler to "
            "fewstep.adapters.diffusers.field"
        )
    modules = {part: name for name, part in vars(pipe).items() if isinstance(part, nn.Module)}
    if not modules:
        refuse(f"{kind} has no network that can be watched; its unet or transformer must be a torch module")
    record = Recording(deepcopy(scheduler), modules)
    told = _with_defaults(pipe, arguments)
    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(_before(record), with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(_after(record)).remove)
        record.scheduler.step = _watched_step(record)
        record.scheduler.set_timesteps = _watched_settings(record)
        stack.callback(setattr, pipe, "scheduler", scheduler)
        pipe.scheduler = record.scheduler
        stack.enter_context(_without_progress(pipe))
        try:
            pipe(**told)
        except _Watched:
            pass
        if hasattr(pipe, "maybe_free_model_hooks"):
            pipe.maybe_free_model_hooks()  # of offloaded parts, which the pipeline did not come to
    return record


def _with_defaults(pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(type(pipe).__call__).parameters
    told = dict(arguments)
    if "num_inference_steps" in known and not told.keys() & {"num_inference_steps", "timesteps", "sigmas"}:
        strength = told["strength"] if "strength" in told else getattr(known.get("strength"), "default", 1)
        told["num_inference_steps"] = _steps(getattr(pipe.scheduler, "counts", ()), strength)
    if "output_type" in known:
        told.setdefault("output_type", "latent")
    return told


def _steps(counts: Sequence[int], strength: Any) -> int:
    """Return a number of steps, of those that there are, of which ``strength`` leaves enough."""
    known = counts or range(_STEPS, _MOST)
    share = float(strength) if isinstance(strength, Real) else 1.0
    return next((n for n in known if n >= _STEPS and int(n * share) >= FEWEST), known[-1])


def _before(record: Recording) -> Callable[..., None]:
    """Keep arguments before the module, which may write into them."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        record.calls.append(NetworkCall(module, _kept(_by_name(unwrapped(module).forward, args, kwargs))))

    return hook


def _after(record: Recording) -> Callable[..., None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        open_calls = [call for call in record.calls if call.module is module and call.output is None]
        with suppress(AttributeError, RuntimeError, TypeError):  # modules of other kinds, such as encoders
            open_calls[-1].output = _kept(output_tensor(output))

    return hook


def _watched_step(record: Recording) -> Callable[..., Any]:
    inner, scheduler = record.scheduler.step, record.scheduler

    @wraps(inner)
    def step(*args: Any, **kwargs: Any) -> Any:
        named = _by_name(inner, args, kwargs)
        if not {"model_output", "timestep", "sample"} <= named.keys():
            refuse(
                f"{type(scheduler).__name__}.step takes {', '.join(named)}, but must take model_output, "
                "timestep and sample to be watched"
            )
        sample, output = _kept(named["sample"]), _kept(named["model_output"])
        record.steps.append(Step(record.calls, float(named["timestep"]), sample, output))
        record.calls = []
        if len(record.steps) >= len(scheduler.timesteps):
            raise _Watched
        result = inner(*args, **kwargs)
        record.steps[-1].after = _kept(result[0] if isinstance(result, tuple) else result.prev_sample)
        return result

    return step


def _watched_settings(record: Recording) -> Callable[..., Any]:
    inner = record.scheduler.set_timesteps

    @wraps(inner)
    def set_timesteps(*args: Any, **kwargs: Any) -> Any:
        record.settings = _by_name(inner, args, kwargs)
        return inner(*args, **kwargs)

    return set_timesteps


def _by_name(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Return arguments by name; those of ``**kwargs`` among them."""
    signature = inspect.signature(function)
    named = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update(named.pop(name, {}))
    return named


def _kept(value: Any) -> Any:
    """Return a copy of tensors and of the containers that hold them; pipelines reuse both."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {name: _kept(inner) for name, inner in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_kept, value))
    return value


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside the wrapper of ``torch.compile``."""
    return getattr(module, "_orig_mod", module)


class _without_progress:
    """No progress bar in a pipeline for a while."""

    def __init__(self, pipe: Any) -> None:
        self.pipe, self.before = pipe, dict(getattr(pipe, "_progress_bar_config", {}))

    def __enter__(self) -> None:
        if hasattr(self.pipe, "set_progress_bar_config"):
            self.pipe.set_progress_bar_config(**{**self.before, "disable": True})

    def __exit__(self, *_: object) -> None:
        if hasattr(self.pipe, "set_progress_bar_config"):
            self.pipe.set_progress_bar_config(**self.before)
