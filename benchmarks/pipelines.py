"""Pipelines of diffusers: their samples and ours, and fits inside them.

    python benchmarks/pipelines.py              # what is read, and deviations both ways
    python benchmarks/pipelines.py --fits       # errors at equal calls, of guided SD and SDXL

The pipelines are those of the tests, from tiny random networks, in float32. A deviation is the largest over
coordinates and batches of one and three prompts, divided by the root mean square of the samples. In the
columns "plain" and "guided" the pipeline samples in its own loop, on its own grid of eight steps, and we
sample the field that was read, by DDIM or Euler on that grid. In "swapped" the pipeline runs DPM-Solver++ 2M
of four steps by our scheduler, guided if it can be, and our loop does.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import diffusers
import torch

import fewstep as fs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "adapters"))

from tiny_pipelines import ARGUMENTS, SCHEDULERS, build, draw, own_solver, sampled

STEPS = 8
NFES = (4, 6, 8)


def deviation(kind, guided, counts=(1, 3)):
    """Return the largest deviation, ``refused`` if there is none, and the last task."""
    worst, task = 0.0, None
    for count in counts:
        pipe = build(kind, SCHEDULERS[kind]())
        try:
            task = fs.adapters.diffusers.from_pipeline(pipe, **ARGUMENTS[kind](count, guided))
        except ValueError:
            return "refused", None
        theirs = sampled(pipe, STEPS, **ARGUMENTS[kind](count, guided))[:count]
        field = task.field.bind(task.conditions, task.per_sample, count)
        ours = own_solver(pipe.scheduler, field).sample(field, task.noise)
        worst = max(worst, float((ours - theirs).abs().max() / theirs.square().mean().sqrt()))
    return f"{worst:.0e}", task


def swapped(kind, counts=(1, 3)):
    """Return the largest deviation of a pipeline with our scheduler from our own loop."""
    worst = 0.0
    for count in (1,) if kind == "prx" else counts:

        def arguments(count=count):  # generators are used up
            return ARGUMENTS[kind](count, kind != "ddpm")

        pipe = build(kind, SCHEDULERS[kind]())
        task = fs.adapters.diffusers.from_pipeline(pipe, **arguments())
        solver = fs.classical.dpmpp("2M", 4, schedule=task.field.schedule)
        pipe.scheduler = fs.adapters.diffusers.FewStepScheduler.from_solver(solver, pipe.scheduler)
        # Its first latents are sigma(0) times the noise; DDIM's are the noise itself.
        noise = fs.adapters.diffusers.from_pipeline(pipe, **arguments(), num_inference_steps=4).noise
        ours = solver.sample(task.field.bind(task.conditions, task.per_sample, count), noise)
        theirs = sampled(pipe, 4, **arguments())[:count]
        worst = max(worst, float((ours - theirs).abs().max() / ours.square().mean().sqrt()))
    return f"{worst:.0e}"


def matrix():
    names = ("network, shape and shift", "scheduler", "clock", "conditions", "plain", "guided", "swapped")
    print(f"| {' | '.join(names)} |\n|" + "---|" * len(names))
    for kind, make in SCHEDULERS.items():
        plain, task = deviation(kind, False)
        # DDPM has no guidance, and PRX repeats its time for one prompt only.
        guided = "" if kind == "ddpm" else deviation(kind, True, (1,) if kind == "prx" else (1, 3))[0]
        names = ", ".join([*task.per_sample, *(f"{name} (shared)" for name in task.conditions)])
        scheduler = type(make()).__name__.removesuffix("Scheduler")
        cells = (task.field.name, scheduler, task.field.clock, names, plain, guided, swapped(kind))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


#: What users set in these pipelines: diffusers' schedulers, with the best settings of each for few steps.
RIVALS = {
    "DDIM": lambda config: diffusers.DDIMScheduler.from_config(
        config, timestep_spacing="trailing", clip_sample=False
    ),
    "Euler": lambda config: diffusers.EulerDiscreteScheduler.from_config(config),
    "Euler Karras": lambda config: diffusers.EulerDiscreteScheduler.from_config(
        config, use_karras_sigmas=True
    ),
    "DPM++ 2M": lambda config: diffusers.DPMSolverMultistepScheduler.from_config(config),
    "DPM++ 2M Karras": lambda config: diffusers.DPMSolverMultistepScheduler.from_config(
        config, use_karras_sigmas=True
    ),
    "DPM++ 2M lambdas": lambda config: diffusers.DPMSolverMultistepScheduler.from_config(
        config, use_lu_lambdas=True
    ),
    "DPM++ 3M": lambda config: diffusers.DPMSolverMultistepScheduler.from_config(config, solver_order=3),
    "UniPC": lambda config: diffusers.UniPCMultistepScheduler.from_config(config),
    "UniPC Karras": lambda config: diffusers.UniPCMultistepScheduler.from_config(
        config, use_karras_sigmas=True
    ),
    "DEIS": lambda config: diffusers.DEISMultistepScheduler.from_config(config),
    "DPM++ 2S": lambda config: diffusers.DPMSolverSinglestepScheduler.from_config(config),
    "PNDM": lambda config: diffusers.PNDMScheduler.from_config(config, skip_prk_steps=True),
}


def prompts(kind, count, seed):
    """The arguments of a guided call with ``count`` prompts and noises of a seed, and one negative prompt."""
    given = {**ARGUMENTS[kind](count, True)}
    for k, (name, value) in enumerate(given.items()):
        if isinstance(value, torch.Tensor):
            rows = 1 if name.startswith("negative") else count
            given[name] = draw(rows, *value.shape[1:], seed=100 * k + (0 if rows == 1 else seed))
            given[name] = given[name].expand(count, *value.shape[1:])
    return given


def errors(kind, pairs, fresh):
    """Print the relative RMSE of fits and schedulers in a guided pipeline, for prompts that no fit saw."""
    pipe = build(kind, SCHEDULERS[kind]())
    before = pipe.scheduler
    task = fs.adapters.diffusers.from_pipeline(pipe, batch=8, **prompts(kind, pairs, 1))
    given = {"conditions": task.conditions, "per_sample": task.per_sample}
    fits = [fs.fit(task.field, nfe=nfe, pairs=pairs, **given) for nfe in NFES]
    other = prompts(kind, fresh, 2)
    pipe.scheduler = fs.adapters.diffusers.FewStepScheduler.from_solver(fits, before)
    test = fs.adapters.diffusers.from_pipeline(pipe, **other, num_inference_steps=NFES[0])
    exact = fs.reference.pairs(
        test.field, test.noise, conditions=test.conditions, per_sample=test.per_sample, max_nfe=20_000
    )
    size = float(exact.x1.square().mean().sqrt())

    def error(nfe):
        x = sampled(pipe, nfe, **other)
        # Schedulers that end at sigma_min, or whose states are larger by 1 / alpha, end where alpha is 1.
        return float((x - exact.x1).square().mean().sqrt()) / size

    table = {"fewstep": [error(nfe) for nfe in NFES]}
    for name, make in RIVALS.items():
        pipe.scheduler, row = make(before.config), []
        for nfe in NFES:
            try:
                row.append(error(nfe))
            except (IndexError, ValueError) as refused:
                print(f"{name} at {nfe} steps: {refused}", file=sys.stderr)
                row.append(float("nan"))
        table[name] = row
    print(f"\n{task.field.name}, guidance {task.field.guidance:g}, {pairs} pairs, {fresh} fresh ones, "
          f"reference error {exact.error / size:.1e}\n")  # fmt: skip
    print(f"| relative RMSE | {' | '.join(f'{nfe} calls' for nfe in NFES)} |\n|" + "---|" * (1 + len(NFES)))
    for name, row in sorted(table.items(), key=lambda entry: entry[1][0]):
        print(f"| {name} | {' | '.join(f'{value:.3f}' for value in row)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fits", nargs="*", metavar="KIND", help="fit in guided pipelines: sd, sdxl")
    parser.add_argument("--pairs", type=int, default=32, help="pairs of a fit")
    parser.add_argument("--fresh", type=int, default=32, help="prompts and noises to measure on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if options.fits is None:
        matrix()
    for kind in options.fits or (() if options.fits is None else ("sd", "sdxl")):
        errors(kind, options.pairs, options.fresh)
