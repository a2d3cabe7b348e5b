"""Our solvers inside diffusers' pipelines, as they are, against the same solvers in our own loop."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.adapters import diffusers as adapter

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
pytest.importorskip("transformers", reason="diffusers has no text-to-image pipelines without transformers")

from tiny_pipelines import (  # noqa: E402
    B,
    flux,
    flux_true_guidance,
    randn,
    stable_diffusion,
    stable_diffusion_3,
    stable_diffusion_3_dynamic,
    stable_diffusion_v,
    stable_diffusion_xl,
    stable_diffusion_xl_edm,
    tiny_vae,
)
from tiny_transformers import aura_flow, pixart, qwen_image, sana, wan, z_image  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # diffusers and transformers deprecate much

FewStep = adapter.FewStepScheduler


def assert_same(ours, theirs, tolerance=1e-5):
    scale = theirs.square().mean().sqrt()
    assert float(theirs.std()) > 0.1
    assert float((ours.reshape(theirs.shape) - theirs).abs().max() / scale) < tolerance


CASES = [
    stable_diffusion, stable_diffusion_v, stable_diffusion_xl, stable_diffusion_xl_edm, stable_diffusion_3,
    stable_diffusion_3_dynamic, flux, flux_true_guidance, pixart, sana, aura_flow,
    wan, qwen_image, z_image,
]  # fmt: skip


def run(case, n, **more):
    """The latents that the pipeline ends with."""
    case.pipe.set_progress_bar_config(disable=True)
    return case.pipe(**case.call, num_inference_steps=n, output_type="latent", return_dict=False, **more)[0]


def solvers(schedule):
    """One step a call, stages, and calls at both ends of time."""
    return [
        fs.classical.dpmpp("2M", 5, schedule=schedule),
        fs.classical.midpoint(3),
        fs.classical.heun(2).unroll(),
    ]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_a_pipeline_samples_as_the_solver_does(make, tmp_path):
    case = make()
    theirs = case.pipe.scheduler
    field = case.field()
    made = solvers(field.schedule)
    case.pipe.scheduler = FewStep.from_solver(made, theirs)
    for solver in made:
        latents = run(case, solver.nfe)
        # Float32 rounds more off EDM's first states, which are large, and off Z-Image's 1000 - timestep.
        tolerance = {stable_diffusion_xl_edm: 4e-5, z_image: 1e-4}.get(make, 1e-5)
        assert_same(latents, solver.sample(field, case.noise, **case.conditions), tolerance)
        assert torch.equal(run(case, solver.nfe), latents)
    assert case.field().describe() == field.describe()
    case.pipe.scheduler.save_pretrained(tmp_path)
    case.pipe.scheduler = FewStep.from_pretrained(tmp_path)
    assert torch.equal(run(case, solver.nfe), latents)
    with pytest.raises(ValueError, match=r"num_inference_steps=50.*make 4 or 5 or 6 network calls"):
        run(case, 50)


@pytest.mark.parametrize("strength", [0.8, 0.5, 0.2, 1.0])
def test_image_to_image(strength):
    """The image is noised to the time of the first call that is made."""
    case = stable_diffusion("StableDiffusionImg2ImgPipeline")
    field = case.field()
    schedule = field.schedule
    solver = fs.classical.dpmpp("3M", 5, schedule=schedule)
    case.pipe.scheduler = FewStep.from_solver(solver, case.pipe.scheduler)
    image = randn(B, 4, 8, 8, seed=5)
    case.call.pop("latents")
    generator = torch.Generator().manual_seed(7)
    latents = run(case, 5, image=image, strength=strength, generator=generator)
    first = 5 - int(5 * strength)
    alpha, sigma = (float(c) for c in schedule(solver.times[first])[:2])
    start = alpha * image + sigma * randn(B, 4, 8, 8, seed=7)
    if strength < 1:
        solver = fs.classical.dpmpp("2M", grid=[*solver.times[first:], 1.0], schedule=schedule)
    assert_same(latents, solver.sample(field, field.initial_noise(start), **case.conditions))


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_image_to_image_with_packed_latents(strength):
    case = flux("FluxImg2ImgPipeline", channels=16)
    field = case.field()
    solver = fs.classical.midpoint(5)
    case.pipe.scheduler = FewStep.from_solver(solver, case.pipe.scheduler)
    image = randn(B, 16, 8, 8, seed=5)
    case.call.pop("latents")
    generator = torch.Generator().manual_seed(7)
    latents = run(case, 10, image=image, strength=strength, generator=generator)
    first = round(10 * (1 - strength))
    t = solver.times[first]
    start = pack(t * image + (1 - t) * randn(B, 16, 8, 8, seed=7))
    if strength < 1:
        grid = [*solver.times[first:], 1.0]
        solver = fs.classical.dpmpp("2M", grid=grid, schedule=field.schedule)
    assert_same(latents, solver.sample(field, start, **case.conditions))


def pack(x):
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def inpainting():
    zero = {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    case = stable_diffusion("StableDiffusionInpaintPipeline", tiny_vae(), **zero)
    mask = torch.zeros(B, 1, 16, 16)
    mask[..., 5:] = 1
    image = randn(B, 3, 16, 16, seed=5).clamp(-1, 1)
    call = {**case.call, "image": image, "mask_image": mask, "strength": 1.0, "height": 16, "width": 16}
    return case._replace(call=call)


def inpainted(case, n):
    return run(case, n, generator=torch.Generator().manual_seed(7))


def test_inpainting_as_with_ddim_itself():
    """The pipeline overwrites part of the latents after each step; nothing of it is lost."""
    case = inpainting()
    theirs = inpainted(case, 5)  # a divisor of 1000: DDIM steps by 1000 // n, its timesteps by 1000 / n
    scheduler = case.pipe.scheduler
    times = adapter.grid(scheduler, 5)
    for solver in (
        fs.classical.ddim(grid=times, schedule=adapter.field(case.pipe).schedule),
        fs.classical.ddim(grid=times, schedule=adapter.field(case.pipe).schedule).unroll(),
    ):
        case.pipe.scheduler = FewStep.from_solver(solver, scheduler)
        assert_same(inpainted(case, 5), theirs)


def test_inpainting_with_a_solver_that_reads_earlier_states():
    case = inpainting()
    scheduler = case.pipe.scheduler
    accurate, rough = (inpainted(case, n) for n in (200, 6))
    schedule = adapter.field(case.pipe).schedule
    for solver in (fs.classical.dpmpp("2M", 6, schedule=schedule), fs.classical.adams_bashforth(2, 6)):
        case.pipe.scheduler = FewStep.from_solver(solver.unroll(), scheduler)
        ours = inpainted(case, 6)
        error, euler = ((x - accurate).square().mean().sqrt() for x in (ours, rough))
        assert error < 0.8 * euler


def test_callbacks_and_interruptions():
    """A callback may replace the latents, and a second call begins anew."""
    case = stable_diffusion_3()
    field = case.field()
    solver = fs.classical.euler(6).unroll()
    case.pipe.scheduler = FewStep.from_solver(solver, case.pipe.scheduler)
    plain = run(case, 6)

    def change(pipe, step, timestep, tensors):
        return {"latents": tensors["latents"] + 0.5} if step == 2 else {}

    changed = run(case, 6, callback_on_step_end=change)
    x = case.noise
    for j, t in enumerate(solver.times):
        x = x + field(x, t, **case.conditions) / 6 + (0.5 if j == 2 else 0)
    assert_same(changed, x)

    def change_in_place(pipe, step, timestep, tensors):
        if step == 2:
            tensors["latents"] += 0.5
        return {}

    assert_same(run(case, 6, callback_on_step_end=change_in_place), x)

    def interrupt(pipe, step, timestep, tensors):
        pipe._interrupt = step == 3
        return {}

    run(case, 6, callback_on_step_end=interrupt)
    assert torch.equal(run(case, 6), plain)


def test_half_precision():
    """The states are float32, so that only what the network gets is rounded."""
    case = stable_diffusion_3()
    case.pipe.scheduler = FewStep.from_solver(fs.classical.euler(40), case.pipe.scheduler)
    exact = run(case, 40)
    kept = case.pipe.transformer.to(torch.bfloat16)
    call = {k: v.to(torch.bfloat16) if isinstance(v, torch.Tensor) else v for k, v in case.call.items()}
    half = case._replace(call=call)
    latents = run(half, 40)
    assert latents.dtype == torch.bfloat16
    relative = (latents.float() - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    kept.to(torch.float32)
    assert relative < 0.05


def test_a_saved_pipeline_is_loaded_with_its_solver(tmp_path):
    case = stable_diffusion_xl()
    solver = fs.classical.midpoint(3)
    case.pipe.scheduler = FewStep.from_solver(solver, case.pipe.scheduler)
    latents = run(case, 6)
    case.pipe.save_pretrained(tmp_path)
    index = (tmp_path / "model_index.json").read_text()
    assert '"fewstep.adapters.diffusers"' in index
    loaded = type(case.pipe).from_pretrained(tmp_path, vae=None)
    assert type(loaded.scheduler) is FewStep
    assert torch.equal(run(case._replace(pipe=loaded), 6), latents)
