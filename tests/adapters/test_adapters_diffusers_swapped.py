"""From a pipeline to its field, to a solver, and back into the pipeline: one and the same samples."""

from __future__ import annotations

import pytest

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from watched_pipelines import ARGUMENTS, SCHEDULERS, build, sampled  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # of EulerDiscrete's
from_pipeline = fs.adapters.diffusers.from_pipeline
#: Guided, but for those that cannot be, or not linearly.
PLAIN = {"ddpm", "qwen"}


@pytest.mark.parametrize("name", ["dpmpp_2m", "midpoint"])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_solver_gives_its_samples_inside_the_pipeline(kind, name):
    count = 1 if kind == "prx" else 2  # PRX cannot guide several prompts

    def arguments():  # generators are used up
        return ARGUMENTS[kind](count, kind not in PLAIN)

    pipe = build(kind, SCHEDULERS[kind]())
    task = from_pipeline(pipe, **arguments())
    solver = fs.classical.named(name, 4, task.field.schedule)
    pipe.scheduler = fs.adapters.diffusers.FewStepScheduler.from_solver(solver, pipe.scheduler)
    # The noise is that of the new scheduler: DDIM starts from latents of unit variance, not from sigma(0).
    again = from_pipeline(pipe, **arguments(), num_inference_steps=4)
    assert again.field.describe() == task.field.describe()
    ours = solver.sample(task.field.bind(task.conditions, task.per_sample, count), again.noise)
    theirs = sampled(pipe, 4, **arguments())[:count]
    scale = float(ours.square().mean().sqrt())
    assert scale > 0.1
    assert float((ours - theirs).abs().max()) / scale < (1e-4 if kind == "z_image" else 2e-5)
