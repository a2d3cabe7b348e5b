"""Our solvers inside pipelines that change, replace or enter later into the latents."""

from __future__ import annotations

import pytest
import torch
from tiny_pipelines import ARGUMENTS, SCHEDULERS, SQUARE, VARIANTS, build, draw

import fewstep as fs
from fewstep.adapters import diffusers as adapter

pytestmark = pytest.mark.filterwarnings("default")  # diffusers and transformers deprecate much

FewStep = adapter.FewStepScheduler
B = 2  # two different prompts


def assert_same(ours, theirs, tolerance=1e-5):
    scale = theirs.square().mean().sqrt()
    assert float(theirs.std()) > 0.1
    assert float((ours.reshape(theirs.shape) - theirs).abs().max() / scale) < tolerance


def arguments(kind, *left_out):
    return {name: v for name, v in ARGUMENTS[kind](B, True).items() if name not in left_out}


def run(pipe, n, **given):
    """The latents that the pipeline ends with."""
    return pipe(**given, num_inference_steps=n, output_type="latent", return_dict=False)[0]


def begun(kind, like=None):
    """A pipeline, the field of its guided call for two prompts, and the arguments of the call."""
    pipe, call = build(kind, SCHEDULERS[like or kind]()), arguments(like or kind)
    task = adapter.from_pipeline(build(like or kind, SCHEDULERS[like or kind]()), **call)
    return pipe, task.field.bind(task.conditions, task.per_sample, B), call


@pytest.mark.parametrize("strength", [0.8, 0.5, 0.2, 1.0])
def test_image_to_image(strength):
    """The image is noised to the time of the first call that is made."""
    pipe, field, call = begun("img2img", like="sd")
    schedule = field.schedule
    solver = fs.classical.dpmpp("3M", 5, schedule=schedule)
    pipe.scheduler = FewStep.from_solver(solver, pipe.scheduler)
    image = draw(B, 4, 8, 8, seed=5)
    call.pop("latents")
    generator = torch.Generator().manual_seed(7)
    latents = run(pipe, 5, image=image, strength=strength, generator=generator, **call)
    first = 5 - int(5 * strength)
    alpha, sigma = (float(c) for c in schedule(solver.times[first])[:2])
    start = alpha * image + sigma * draw(B, 4, 8, 8, seed=7)
    if strength < 1:
        solver = fs.classical.dpmpp("2M", grid=[*solver.times[first:], 1.0], schedule=schedule)
    assert_same(latents, solver.sample(field, field.initial_noise(start)))


def test_a_start_after_all_calls_names_a_way_on():
    pipe, _, call = begun("img2img", like="sd")
    pipe.scheduler = FewStep.from_solver(fs.classical.euler(7), pipe.scheduler)
    call["image"] = call.pop("latents")
    with pytest.raises(ValueError, match=r"begins after all 7 network calls; pass strength=0\.143 or more"):
        run(pipe, 7, strength=0.142, **call)
    assert len(run(pipe, 7, strength=0.143, **call)) == B


@pytest.mark.parametrize("strength", [0.25, 0.1, 0.011])
@pytest.mark.parametrize("calls", [None, 200])
def test_a_small_strength_is_watched_in_more_steps(strength, calls):
    """Also in those of the only solver that the scheduler has."""
    pipe, field, call = begun("img2img", like="sd")
    call["image"] = call.pop("latents")
    if calls is not None:
        pipe.scheduler = FewStep.from_solver(fs.classical.euler(calls), pipe.scheduler)
    task = adapter.from_pipeline(pipe, strength=strength, **call)
    whole = task.field.bind(task.conditions, task.per_sample, B)
    assert (whole.describe(), task.noise) == (field.describe(), None)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_image_to_image_with_packed_latents(strength):
    pipe = build("flux_img2img", SCHEDULERS["flux"]())
    call = arguments("flux", "latents")
    image, solver = draw(B, 16, 8, 8, seed=5), fs.classical.midpoint(5)
    task = adapter.from_pipeline(pipe, image=image, strength=1.0, num_inference_steps=4, **call)
    field = task.field.bind(task.conditions, task.per_sample, B)
    pipe.scheduler = FewStep.from_solver(solver, pipe.scheduler)
    generator = torch.Generator().manual_seed(7)
    latents = run(pipe, 10, image=image, strength=strength, generator=generator, **call)
    first = round(10 * (1 - strength))
    t = solver.times[first]
    start = pack(t * image + (1 - t) * draw(B, 16, 8, 8, seed=7))
    if strength < 1:
        grid = [*solver.times[first:], 1.0]
        solver = fs.classical.dpmpp("2M", grid=grid, schedule=field.schedule)
    assert_same(latents, solver.sample(field, start))


def pack(x):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def inpainting():
    kind, make = VARIANTS["sd v"]
    pipe = build("inpaint", make(), vae=True, in_channels=4)
    mask = torch.zeros(B, 1, 64, 64)
    mask[..., 20:] = 1
    image = draw(B, 3, 64, 64, seed=5).clamp(-1, 1)
    return pipe, {**arguments(kind), "image": image, "mask_image": mask, "strength": 1.0, **SQUARE}


def inpainted(pipe, n, call):
    return run(pipe, n, generator=torch.Generator().manual_seed(7), **call)


def test_inpainting_as_with_ddim_itself():
    """The pipeline overwrites part of the latents after each step; nothing of it is lost."""
    pipe, call = inpainting()
    theirs = inpainted(pipe, 5, call)  # a divisor of 1000: DDIM steps by 1000 // n, its timesteps by 1000 / n
    scheduler, schedule = pipe.scheduler, adapter.field(pipe).schedule
    times = adapter.grid(scheduler, 5)
    for solver in (
        fs.classical.ddim(grid=times, schedule=schedule),
        fs.classical.ddim(grid=times, schedule=schedule).unroll(),
    ):
        pipe.scheduler = FewStep.from_solver(solver, scheduler)
        assert_same(inpainted(pipe, 5, call), theirs)


def test_inpainting_with_a_solver_that_reads_earlier_states():
    pipe, call = inpainting()
    scheduler, schedule = pipe.scheduler, adapter.field(pipe).schedule
    accurate, rough = (inpainted(pipe, n, call) for n in (200, 6))
    for solver in (fs.classical.dpmpp("2M", 6, schedule=schedule), fs.classical.adams_bashforth(2, 6)):
        pipe.scheduler = FewStep.from_solver(solver.unroll(), scheduler)
        ours = inpainted(pipe, 6, call)
        error, euler = ((x - accurate).square().mean().sqrt() for x in (ours, rough))
        assert error < 0.8 * euler


def test_callbacks_and_interruptions():
    """A callback may replace the latents, and a second call begins anew."""
    pipe, field, call = begun("sd3")
    solver = fs.classical.euler(6).unroll()
    pipe.scheduler = FewStep.from_solver(solver, pipe.scheduler)
    plain = run(pipe, 6, **call)

    def change(pipe, step, timestep, tensors):
        return {"latents": tensors["latents"] + 0.5} if step == 2 else {}

    changed = run(pipe, 6, callback_on_step_end=change, **call)
    x = call["latents"]
    for j, t in enumerate(solver.times):
        x = x + field(x, t) / 6 + (0.5 if j == 2 else 0)
    assert_same(changed, x)

    def change_in_place(pipe, step, timestep, tensors):
        if step == 2:
            tensors["latents"] += 0.5
        return {}

    assert_same(run(pipe, 6, callback_on_step_end=change_in_place, **call), x)

    def interrupt(pipe, step, timestep, tensors):
        pipe._interrupt = step == 3
        return {}

    run(pipe, 6, callback_on_step_end=interrupt, **call)
    assert torch.equal(run(pipe, 6, **call), plain)


def test_half_precision():
    """The states are float32, so that only what the network gets is rounded."""
    pipe, _, call = begun("sd3")
    pipe.scheduler = FewStep.from_solver(fs.classical.euler(40), pipe.scheduler)
    exact = run(pipe, 40, **call)
    pipe.transformer.to(torch.bfloat16)
    half = {k: v.to(torch.bfloat16) if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    latents = run(pipe, 40, **half)
    assert latents.dtype == torch.bfloat16
    assert (latents.float() - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_a_saved_pipeline_is_loaded_with_its_solver(tmp_path):
    pipe, _, call = begun("sdxl")
    pipe.scheduler = FewStep.from_solver(fs.classical.midpoint(3), pipe.scheduler)
    latents = run(pipe, 6, **call)
    pipe.save_pretrained(tmp_path)
    assert '"fewstep.adapters.diffusers"' in (tmp_path / "model_index.json").read_text()
    loaded = type(pipe).from_pretrained(tmp_path, vae=None)
    assert type(loaded.scheduler) is FewStep
    assert torch.equal(run(loaded, 6, **call), latents)
