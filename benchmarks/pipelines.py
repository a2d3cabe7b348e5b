"""Watched pipelines of diffusers: deviation of their own samples from ours, and fits for two of them.

    python benchmarks/pipelines.py [--fits]

The pipelines are those of the tests, from tiny random networks. The deviation is the largest over coordinates
and batches of one and three prompts, divided by the root mean square of the pipeline's samples.
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

from tiny_pipelines import ARGUMENTS, SCHEDULERS, build, own_solver, sampled

STEPS = 8


def deviation(kind, guided, counts=(1, 3)):
    """Return the largest deviation, and the field; a reason if it is refused."""
    worst, field = 0.0, None
    for count in counts:
        pipe = build(kind, SCHEDULERS[kind]())
        try:
            task = fs.adapters.diffusers.from_pipeline(pipe, **ARGUMENTS[kind](count, guided))
        except ValueError as error:
            return str(error).partition(": ")[2], field
        theirs = sampled(pipe, STEPS, **ARGUMENTS[kind](count, guided))[:count]
        field = task.field.bind(task.conditions, task.per_sample, count)
        ours = own_solver(pipe.scheduler, field).sample(field, task.noise)
        worst = max(worst, float((ours - theirs).abs().max() / theirs.square().mean().sqrt()))
    return f"{worst:.0e}", field


def matrix():
    print("| network, shape and shift | scheduler | clock | conditions | plain | guided |\n|" + "---|" * 6)
    for kind, make in SCHEDULERS.items():
        plain, field = deviation(kind, False)
        # DDPM has no guidance, and PRX repeats its time for one prompt only.
        guided = "" if kind == "ddpm" else deviation(kind, True, (1,) if kind == "prx" else (1, 3))[0]
        names = [*field._bound.per_sample, *(f"{name} (shared)" for name in field._bound.shared)]
        scheduler = type(make()).__name__.removesuffix("Scheduler")
        print(f"| {field.name} | {scheduler} | {field.clock} | {', '.join(names)} | {plain} | {guided} |")


def fits(prompts=8):
    print("| pipeline | calls | " + " | ".join(["fitted", "best classical", "DDIM"]) + " |\n|" + "---|" * 5)
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    for kind in ("sd", "sdxl"):
        pipe = build(kind, diffusers.DDIMScheduler(steps_offset=1, clip_sample=False, **settings))
        pipe.unet.conv_out.weight.mul_(0.2)  # random flows are rough
        task = fs.adapters.diffusers.from_pipeline(pipe, **ARGUMENTS[kind](prompts, True))
        for nfe in (6,):
            fit = fs.fit(task.field, nfe=nfe, conditions=task.conditions, per_sample=task.per_sample)
            errors = dict(fit.report.errors)
            fitted, best = errors.pop("fitted"), min(errors, key=errors.get)
            print(f"| {kind} | {nfe} | {fitted:.4f} | {best} {errors[best]:.4f} | {errors['ddim']:.4f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fits", action="store_true", help="fit solvers for SD and SDXL, minutes each")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    fits() if parser.parse_args().fits else matrix()
