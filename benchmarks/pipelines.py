"""Watched pipelines of diffusers: what is read, and the deviation of their own samples from ours.

The pipelines are those of the tests, from tiny random networks. The deviation is the largest over coordinates
and batches of one and three prompts, divided by the root mean square of the pipeline's samples.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import torch

import fewstep as fs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "adapters"))

from watched_pipelines import ARGUMENTS, SCHEDULERS, build, own_solver, sampled

STEPS = 8


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


def matrix():
    print("| network, shape and shift | scheduler | clock | conditions | plain | guided |\n|" + "---|" * 6)
    for kind, make in SCHEDULERS.items():
        plain, task = deviation(kind, False)
        # DDPM has no guidance, and PRX repeats its time for one prompt only.
        guided = "" if kind == "ddpm" else deviation(kind, True, (1,) if kind == "prx" else (1, 3))[0]
        names = ", ".join([*task.per_sample, *(f"{name} (shared)" for name in task.conditions)])
        scheduler = type(make()).__name__.removesuffix("Scheduler")
        print(f"| {task.field.name} | {scheduler} | {task.field.clock} | {names} | {plain} | {guided} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    matrix()
