"""How a solver is used in each framework, in lines of code for its model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from ._fitted_for import own_schedule, shown
from ._fitted_guidance import comfyui_settings, fitted_guidance, in_words, pipeline_arguments
from ._markdown import line, quoted
from .schedules import DDPM, VE, CondOT, Discrete, Schedule

if TYPE_CHECKING:
    from .solver import Solver

__all__ = ["use"]


def use(name: str, files: Sequence[str], load: str, solver: Solver) -> str:
    """Return the paragraphs and lines of code.

    What a file cannot hold, such as the conditions of the network, is a name in them, so that nobody leaves
    it out unawares.

    Args:
        name: the repository or folder.
        files: names of the files in it.
        load: lines of Python that make ``solver``.
        solver: the solver.
    """
    facts, schedule = solver.fitted_for or {}, own_schedule(solver)
    names = ", ".join(quoted(line(key)) for key in facts.get("conditions") or ())
    added = ", noises=fs.noises(seed=0)" if solver.noises else ""
    conditions, extra = (", **conditions", ", extra_args=conditions") if names else ("", "")
    told = f" `conditions` are its arguments by name, {names}, for each of the samples." if names else ""
    shape = facts.get("shape")
    size = "field.shape" if shape else "shape"
    if "of" in facts:  # a field in other coordinates, made from that of a network
        field = ""
        about = f"`field` is the field that it was fitted for, reversed or rescheduled as there.{told}"
    else:
        field = f"field = {_field(solver)}\n"
        network = "any network that predicts the velocity"
        if facts:
            network = "the network that it was fitted for, or `field.model` of a field that an adapter made"
        about = f"`network(x, t{conditions})` is {network}{_guided(facts)}.{told}"
    python = f"""\
```python
import fewstep as fs

{load}
{field}samples = solver.sample(field, fs.noise(16, {size}, seed=0){added}{conditions})
```

{about}"""
    if "of" in facts or solver.noises:  # the loops of other frameworks add no noise of ours
        return python
    size = repr(tuple(shape)) if shape else "shape"
    velocity = facts.get("prediction", "velocity") == "velocity"
    texts = [
        python,
        _diffusers(solver, schedule),
        _k_diffusion(size, _guided(facts), extra) if schedule else "",
        _flow_matching(solver, size, conditions) if velocity else "",
        _comfyui(name, files, facts),
    ]
    return "\n\n".join(filter(None, texts))


def _guided(facts: Mapping[str, Any]) -> str:
    return f", guided as in the fit ({line(in_words(facts))})" if fitted_guidance(facts) else ""


def _diffusers(solver: Solver, schedule: Schedule | None) -> str:
    if not isinstance(schedule, CondOT | DDPM | Discrete | VE | None):  # no pipeline has others
        return ""
    of = f" whose schedule is {line(shown(schedule.to_dict()))}" if schedule else ""
    arguments = ['"a prompt"', f"num_inference_steps={solver.nfe}", pipeline_arguments(solver.fitted_for)]
    note = "\n\nOther arguments are to be those of the fit." if solver.fitted_for else ""
    return f"""\
In a pipeline of diffusers{of}{_guided(solver.fitted_for or {})}:

```python
scheduler = fs.adapters.diffusers.FewStepScheduler.from_solver(solver, pipe.scheduler)
pipe.scheduler = scheduler
image = pipe({", ".join(filter(None, arguments))}).images[0]
```{note}"""


def _k_diffusion(size: str, guided: str, extra: str) -> str:
    return f"""\
With a denoiser `model(x, sigma)` of k-diffusion{guided}:

```python
sampler = fs.adapters.k_diffusion.sampler(solver)
samples = sampler(model, fs.noise(16, {size}, seed=0) * sampler.sigmas[0]{extra})
```"""


def _flow_matching(solver: Solver, size: str, conditions: str) -> str:
    options = _options(solver)
    options.pop("shape", None)
    listed = [f"{key.replace('schedule', 'scheduler')}={value}" for key, value in options.items()]
    made = _call("fs.adapters.flow_matching.ODESolver", ["velocity_model", "solver", *listed])
    return f"""\
With a velocity model of flow_matching:

```python
ode = {made}
samples = ode.sample(fs.noise(16, {size}, seed=0){conditions})
```"""


def _comfyui(name: str, files: Sequence[str], facts: Mapping[str, Any]) -> str:
    title = name.rpartition("/")[2]
    fetch = f"hf download {name} {' '.join(files)} --local-dir"
    if "/" not in name:
        fetch = " ".join(["cp", *(quote(f"{name}/{file}") for file in files)])
    target = f"ComfyUI/models/fewstep/{quote(title)}"
    settings = line(comfyui_settings(facts))
    return f"""\
In ComfyUI{settings and f" at {settings}"}, with the nodes of `fewstep export comfyui`:

```sh
mkdir -p {target}
{fetch} {target}
```"""


def _field(solver: Solver) -> str:
    """Return the call of ``fs.Field`` for the field of a solver."""
    return _call("fs.Field", ["network", *(f"{key}={value}" for key, value in _options(solver).items())])


def _options(solver: Solver) -> dict[str, str]:
    """Return options of ``fs.Field``, those of guidance last, as Python."""
    facts, schedule = solver.fitted_for or {}, own_schedule(solver)
    options: dict[str, str] = {}
    straight = schedule is None or isinstance(schedule, CondOT)
    if not straight:
        fitted = 'fs.schedules.from_dict(solver.fitted_for["schedule"])'
        options["schedule"] = "solver.schedule" if solver.schedule else fitted
    if facts.get("prediction", "velocity") != "velocity":
        options["prediction"] = repr(facts["prediction"])
    if facts.get("shape"):
        options["shape"] = repr(tuple(facts["shape"]))
    clock = facts.get("clock")
    if isinstance(clock, list | tuple):
        if not (straight and list(clock) == [0, 1]):
            options["clock"] = repr(tuple(clock))
    elif clock is not None:
        options["clock"] = repr(clock) if clock in ("sigma", "timestep", "integer") else "clock"
    for key, value in fitted_guidance(facts).items():
        if key != "scale":
            options[key] = "guide" if key == "guide" else repr(value)
        if key == "guidance":
            options["unconditional"] = "unconditional"
    return options


def _call(function: str, arguments: list[str]) -> str:
    whole = f"{function}({', '.join(arguments)})"
    if len(whole) <= 90:
        return whole
    return f"{function}(\n" + "".join(f"    {entry},\n" for entry in arguments) + ")"
