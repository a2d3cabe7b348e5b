"""How a solver is used in each framework, in lines of code for its model card."""

from __future__ import annotations

from collections.abc import Mapping
from shlex import quote
from typing import Any

__all__ = ["use"]

_SCHEDULE = 'fs.schedules.from_dict(solver.fitted_for["schedule"])'


def use(name: str, file: str, load: str, nfe: int, fitted_for: Mapping[str, Any], bound: bool) -> str:
    """Return the paragraphs and lines of code.

    Args:
        name: the repository or folder.
        file: name of the file in it.
        load: lines of Python that make ``solver``.
        nfe: its number of network calls.
        fitted_for: the field it was fitted to; empty if there is none.
        bound: true if its table holds for one schedule.
    """
    if "of" in fitted_for:  # a field in other coordinates, made from that of a network
        return f"""\
```python
import fewstep as fs

{load}
samples = solver.sample(field, fs.noise(16, field.shape, seed=0))
```

`field` is the field that it was fitted for, reversed or rescheduled as there."""
    shape = fitted_for.get("shape")
    size = repr(tuple(shape)) if shape else "shape"
    schedule = ""
    if "schedule" in fitted_for and not _is_straight(fitted_for):
        schedule = f", {_SCHEDULE}"
    elif bound and not fitted_for:
        schedule = ", solver.schedule"
    field = _field(fitted_for) if fitted_for else f"fs.Field(network{schedule})"
    network = "the network that it was fitted for" if fitted_for else "any network that predicts the velocity"
    guided = ", guided as in the fit" if _guidance(fitted_for) else ""
    options = schedule + "".join(f", {option}" for option in _guidance(fitted_for))
    texts = [
        f"""\
```python
import fewstep as fs

{load}
field = {field}
samples = solver.sample(field, fs.noise(16, {"field.shape" if shape else "shape"}, seed=0))
```

`network(x, t)` is {network}{guided}.""",
        _diffusers(nfe, guided),
        _k_diffusion(size, guided) if "schedule" in fitted_for else "",
        _flow_matching(size, options) if fitted_for.get("prediction", "velocity") == "velocity" else "",
        _comfyui(name, file, guided),
    ]
    return "\n\n".join(filter(None, texts))


def _diffusers(nfe: int, guided: str) -> str:
    return f"""\
In a pipeline of diffusers{guided}:

```python
scheduler = fs.adapters.diffusers.FewStepScheduler.from_solver(solver, pipe.scheduler)
pipe.scheduler = scheduler
image = pipe("a prompt", num_inference_steps={nfe}).images[0]
```"""


def _k_diffusion(size: str, guided: str) -> str:
    return f"""\
With a denoiser `model(x, sigma)` of k-diffusion{guided}:

```python
schedule = {_SCHEDULE}
sampler = fs.adapters.k_diffusion.sampler(solver, schedule)
samples = sampler(model, fs.noise(16, {size}, seed=0) * sampler.sigmas[0])
```"""


def _flow_matching(size: str, options: str) -> str:
    return f"""\
With a velocity model of flow_matching:

```python
ode = fs.adapters.flow_matching.ODESolver(velocity_model, solver{options})
samples = ode.sample(fs.noise(16, {size}, seed=0))
```"""


def _comfyui(name: str, file: str, guided: str) -> str:
    title = name.rpartition("/")[2]
    fetch = f"hf download {name} {file} --local-dir" if "/" in name else f"cp {quote(f'{name}/{file}')}"
    target = f"ComfyUI/models/fewstep/{quote(title)}"
    return f"""\
In ComfyUI{guided}, with the nodes of `fewstep export comfyui`:

```sh
mkdir -p {target}
{fetch} {target}
```"""


def _field(facts: Mapping[str, Any]) -> str:
    """Return the call of ``fs.Field`` for the facts of a field.

    What a file cannot hold, such as the conditions that guidance leads away from, is a name there, so that
    nobody leaves it out unawares.
    """
    options: dict[str, str] = {}
    straight = _is_straight(facts)
    if "schedule" in facts and not straight:
        options["schedule"] = _SCHEDULE
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
    listed = [*(f"{key}={value}" for key, value in options.items()), *_guidance(facts)]
    line = f"fs.Field({', '.join(['network', *listed])})"
    if len(line) <= 90:
        return line
    return "fs.Field(\n    network,\n" + "".join(f"    {entry},\n" for entry in listed) + ")"


def _guidance(facts: Mapping[str, Any]) -> list[str]:
    """Return the options of guidance."""
    if facts.get("guidance") in (None, 1):
        return []
    found = [f"guidance={facts['guidance']!r}", "unconditional=unconditional"]
    if facts.get("guide") is not None:
        found.append("guide=guide")
    if list(facts.get("guidance_interval") or (0, 1)) != [0, 1]:
        found.append(f"guidance_interval={tuple(facts['guidance_interval'])!r}")
    return found


def _is_straight(facts: Mapping[str, Any]) -> bool:
    return facts.get("schedule") == {"name": "cond_ot"}
