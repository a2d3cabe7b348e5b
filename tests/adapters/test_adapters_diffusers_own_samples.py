"""Fields of watched pipelines: classical solvers on a pipeline's own grid give its samples."""

from __future__ import annotations

import pytest

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_pipelines import ARGUMENTS, SCHEDULERS, build, own_solver, sampled  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # of EulerDiscrete's
from_pipeline = fs.adapters.diffusers.from_pipeline
STEPS = 5


def assert_same(ours, theirs, tolerance=1e-4):
    scale = float(theirs.square().mean().sqrt())
    assert scale > 0.1
    assert float((ours - theirs).abs().max()) / scale < tolerance


#: Pipelines that cannot guide.
UNGUIDED = {"ddpm"}
#: PRX itself repeats the time twice, for any number of prompts.
ONE_PROMPT = {"prx"}


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_watched_pipeline_gives_its_own_samples(kind, guided, count):
    if guided and kind in UNGUIDED | (ONE_PROMPT if count > 1 else set()):
        pytest.skip("not guided, or not for several prompts")
    pipe = build(kind, SCHEDULERS[kind]())
    scheduler = pipe.scheduler
    task = from_pipeline(pipe, **ARGUMENTS[kind](count, guided))
    assert pipe.scheduler is scheduler
    theirs = sampled(pipe, STEPS, **ARGUMENTS[kind](count, guided))[:count]
    field = task.field.bind(task.conditions, task.per_sample, count)
    assert field.guidance == (3.5 if guided else None)  # Z-Image counts it from 0: its 2.5 is ours 3.5
    assert_same(own_solver(scheduler, field).sample(field, task.noise), theirs)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    ("kind", "changes", "rescale"),
    [
        ("sd", {"guidance_rescale": 0.7}, 0.7),
        ("sdxl", {"guidance_rescale": 1.0}, 1.0),
        ("lumina2", {"cfg_normalization": True}, "norm"),
        ("qwen", {}, "norm"),
    ],
)
def test_guidance_of_another_size(kind, changes, rescale, count):
    pipe = build(kind, SCHEDULERS[kind]())
    task = from_pipeline(pipe, **{**ARGUMENTS[kind](count, True), **changes})
    assert (task.field.guidance, task.field.guidance_rescale) == (3.5, rescale)
    theirs = sampled(pipe, STEPS, **{**ARGUMENTS[kind](count, True), **changes})[:count]
    field = task.field.bind(task.conditions, task.per_sample, count)
    assert_same(own_solver(pipe.scheduler, field).sample(field, task.noise), theirs)
