"""From a pipeline to its field, to a solver, and back into the pipeline: one and the same samples."""

from __future__ import annotations

import pytest
import torch
from tiny_pipelines import ARGUMENTS, SCHEDULERS, VARIANTS, build, sampled

import fewstep as fs
from fewstep.adapters import diffusers as adapter

pytestmark = pytest.mark.filterwarnings("default")  # diffusers and transformers deprecate much
from_pipeline = adapter.from_pipeline
CASES = {kind: (kind, make) for kind, make in SCHEDULERS.items()} | VARIANTS
#: Float32 rounds more off EDM's first states, which are large, and off Z-Image's 1000 - timestep.
TOLERANCE = {"sdxl edm": 4e-5, "z_image": 1e-4}


def solvers(schedule):
    """One step a call, stages, and calls at both ends of time."""
    return [
        fs.classical.dpmpp("2M", 5, schedule=schedule),
        fs.classical.midpoint(3),
        fs.classical.heun(2).unroll(),
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_solver_gives_its_samples_inside_the_pipeline(name, tmp_path):
    kind, make = CASES[name]
    count = 1 if kind == "prx" else 2  # PRX cannot guide several prompts

    def arguments():  # generators are used up
        return ARGUMENTS[kind](count, kind != "ddpm")

    pipe = build(kind, make())
    task, by_name = from_pipeline(pipe, **arguments()), adapter.field(pipe).describe()
    made = solvers(task.field.schedule)
    pipe.scheduler = adapter.FewStepScheduler.from_solver(made, pipe.scheduler)
    # The noise is that of the new scheduler: DDIM starts from latents of unit variance, not from sigma(0).
    again = from_pipeline(pipe, **arguments())  # in the steps of one of these solvers
    assert again.field.describe() == task.field.describe()
    assert adapter.field(pipe).describe() == by_name
    field = task.field.bind(task.conditions, task.per_sample, count)
    for solver in made:
        ours, theirs = solver.sample(field, again.noise), sampled(pipe, solver.nfe, **arguments())
        scale = float(ours.square().mean().sqrt())
        assert scale > 0.1
        assert float((ours - theirs[:count]).abs().max()) / scale < TOLERANCE.get(name, 2e-5)
        assert torch.equal(sampled(pipe, solver.nfe, **arguments()), theirs)
    pipe.scheduler.save_pretrained(tmp_path)
    pipe.scheduler = adapter.FewStepScheduler.from_pretrained(tmp_path)
    assert torch.equal(sampled(pipe, solver.nfe, **arguments()), theirs)
    with pytest.raises(ValueError, match=r"num_inference_steps=50.*make 4 or 5 or 6 network calls"):
        sampled(pipe, 50, **arguments())
