"""What is read from a watched pipeline."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_loops import Loop, Net, X  # noqa: E402
from tiny_pipelines import ARGUMENTS, SQUARE, build, draw, sampled  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # of EulerDiscrete's
from_pipeline = fs.adapters.diffusers.from_pipeline
FLOW = diffusers.FlowMatchEulerDiscreteScheduler
SD = {"steps_offset": 1, "clip_sample": False, "beta_schedule": "scaled_linear"}


def deviation(pipe, task, solver, steps=5, **arguments):
    """Largest deviation of a solver's samples from the pipeline's, over their RMS."""
    theirs = sampled(pipe, steps, **arguments)
    ours = solver.sample(task.field.bind(task.conditions, task.per_sample, len(theirs)), task.noise)
    assert float(theirs.std()) > 0.1
    return float((ours - theirs).abs().max() / theirs.square().mean().sqrt())


def ddim(pipe, field, last=1.0):
    times = [(999 - float(k)) / 1000 for k in pipe.scheduler.timesteps]
    return fs.classical.ddim(grid=[*times, last], schedule=field.schedule)


def sd(scheduler=None, kind="sd", **changes):
    return build(kind, scheduler or diffusers.DDIMScheduler(**SD), **changes)


@pytest.mark.parametrize(
    ("scheduler", "last"),
    [
        (diffusers.DDIMScheduler(**SD, prediction_type="v_prediction"), 1.0),
        (diffusers.DDIMScheduler(**SD, set_alpha_to_one=False), 0.999),
        (
            diffusers.DDIMScheduler(
                **SD, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
            ),
            1.0,
        ),
    ],
    ids=["v", "last", "zero_snr"],
)
def test_predictions_and_ends_of_stable_diffusion(scheduler, last):
    pipe, arguments = sd(scheduler), ARGUMENTS["sd"](2, True)
    task = from_pipeline(pipe, **arguments)
    scheduler.set_timesteps(5)
    assert deviation(pipe, task, ddim(pipe, task.field, last), **arguments) < 1e-4


def test_raw_networks_of_edm():
    scheduler = diffusers.EDMEulerScheduler(sigma_max=10.0)
    pipe, arguments = build("sdxl", scheduler), ARGUMENTS["sdxl"](2, True)
    task = from_pipeline(pipe, **arguments)
    assert task.field.schedule == fs.schedules.VE(10.0)
    scheduler.set_timesteps(5)
    levels = -scheduler.sigmas[:-1].double().log()
    grid = [*task.field.schedule.inverse_log_snr(levels).tolist(), 1.0]
    solver = fs.classical.ddim(grid=[0.0, *grid[1:]], schedule=task.field.schedule)
    assert deviation(pipe, task, solver, **arguments) < 1e-4


def test_heights_and_widths_that_differ():
    pipe = sd()
    arguments = {**ARGUMENTS["sd"](2, True), "latents": draw(2, 4, 8, 12, seed=9)}
    task = from_pipeline(pipe, **arguments, height=64, width=96)
    assert task.field.shape == (4, 8, 12)
    pipe.scheduler.set_timesteps(5)
    assert deviation(pipe, task, ddim(pipe, task.field), **arguments, height=64, width=96) < 1e-4


def test_several_images_of_each_prompt():
    pipe = sd()
    arguments = {**ARGUMENTS["sd"](2, True), "latents": draw(4, 4, 8, 8, seed=9), "num_images_per_prompt": 2}
    task = from_pipeline(pipe, **arguments)
    assert len(task.per_sample["encoder_hidden_states"]) == 4
    pipe.scheduler.set_timesteps(5)
    assert deviation(pipe, task, ddim(pipe, task.field), **arguments) < 1e-4


def test_masks_and_images_next_to_the_latents_are_a_condition():
    pipe = sd(kind="inpaint", vae=True)
    arguments = {
        **ARGUMENTS["sd"](2, True),
        "image": draw(2, 3, 64, 64, seed=4).clamp(0, 1),
        "mask_image": (draw(2, 1, 64, 64, seed=5) > 0).float(),
        **SQUARE,
        "strength": 1.0,
    }
    seeded = lambda: {"generator": torch.Generator().manual_seed(3)}  # noqa: E731 - of the image's latents
    task = from_pipeline(pipe, **arguments, **seeded())
    assert task.per_sample["concatenated"].shape == (2, 5, 8, 8)
    pipe.scheduler.set_timesteps(5)
    assert deviation(pipe, task, ddim(pipe, task.field), **arguments, **seeded()) < 1e-4


def test_image_to_image_begins_at_no_noise_but_has_the_same_field():
    pipe = sd(kind="img2img", vae=True)
    arguments = ARGUMENTS["sd"](2, True)
    del arguments["latents"]
    task = from_pipeline(pipe, **arguments, image=draw(2, 3, 64, 64, seed=4).clamp(0, 1), strength=0.5)
    assert task.noise is None
    whole = from_pipeline(sd(), **ARGUMENTS["sd"](2, True))
    x = fs.noise(2, task.field.shape)
    ours, theirs = (t.field.bind(t.conditions, t.per_sample, 2)(x, 0.4) for t in (task, whole))
    torch.testing.assert_close(ours, theirs)


def test_shared_arguments_with_as_many_rows_as_samples():
    """Sixteen image tokens, and sixteen prompts."""
    pipe, arguments = build("flux", FLOW()), ARGUMENTS["flux"](16, False)
    task = from_pipeline(pipe, **arguments)
    assert set(task.conditions) == {"img_ids", "txt_ids"}
    assert len(task.conditions["img_ids"]) == 16
    assert set(task.per_sample) == {"encoder_hidden_states", "pooled_projections", "guidance"}


def test_one_prompt_serves_any_number_of_samples():
    pipe, arguments = build("sdxl", diffusers.DDIMScheduler(**SD)), ARGUMENTS["sdxl"](1, True)
    task = from_pipeline(pipe, **arguments)
    x = fs.noise(3, task.field.shape)
    bound = task.field.bind(task.conditions, task.per_sample, 3)
    one = task.field.bind(task.conditions, task.per_sample, 1)
    alone = torch.cat([one(row[None], 0.3) for row in x])
    torch.testing.assert_close(bound(x, 0.3), alone, rtol=1e-4, atol=1e-5)


def test_the_negative_prompt_serves_other_prompts():
    """It is one row where all rows are the same."""
    task = from_pipeline(sd(), **ARGUMENTS["sd"](3, True))
    assert task.field.unconditional["encoder_hidden_states"].shape == (1, 5, 16)
    assert torch.equal(task.per_sample["encoder_hidden_states"], draw(3, 5, 16, seed=1))


def test_embedded_guidance_shift_and_shape_are_recorded():
    pipe = build("flux", FLOW(use_dynamic_shifting=True))
    task = from_pipeline(pipe, **ARGUMENTS["flux"](2, True))
    assert task.per_sample["guidance"].tolist() == [2.0, 2.0]
    pipe(**ARGUMENTS["flux"](2, True), num_inference_steps=2, output_type="latent")
    s = float(pipe.scheduler.sigmas[1])  # of 1/2
    assert task.shift == pytest.approx(s / (1 - s))
    assert task.field.describe()["model"] == f"FluxTransformer2DModel 16x16 shift {task.shift:.4g}"
    assert from_pipeline(build("sana", FLOW(shift=3.0)), **ARGUMENTS["sana"](1, False)).shift == 3.0
    heun = diffusers.FlowMatchHeunDiscreteScheduler(shift=2.0)
    assert from_pipeline(Loop(Net(), scheduler=heun), latents=X).shift == 2.0
    unipc = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=4.0
    )
    assert from_pipeline(Loop(Net(), scheduler=unipc), latents=X).shift == 4.0


def test_it_is_fitted_with_its_conditions():
    task = from_pipeline(build("sana", FLOW(shift=3.0)), **ARGUMENTS["sana"](4, True))
    fit = fs.fit(
        task.field,
        2,
        conditions=task.conditions,
        per_sample=task.per_sample,
        pairs=4,
        optimizer=fs.fitting.GaussNewton(iterations=1),
        reference=fs.fitting.Reference(rtol=1e-3, atol=1e-3),
    )
    assert fit.solver.fitted_for["model"] == "SanaTransformer2DModel 4x8x8 shift 3"
    assert fit.solver.fitted_for["guidance"] == 3.5


def test_the_pipeline_is_left_as_it_was():
    pipe, arguments = sd(), ARGUMENTS["sd"](2, True)
    before, attributes = sampled(pipe, 5, **arguments), dict(vars(pipe))
    hooks = len(pipe.unet._forward_hooks), len(pipe.unet._forward_pre_hooks)
    timesteps = pipe.scheduler.timesteps
    from_pipeline(pipe, **arguments)
    assert vars(pipe).keys() == attributes.keys()
    assert pipe.scheduler is attributes["scheduler"]
    assert pipe._progress_bar_config == {"disable": True}
    assert pipe.scheduler.timesteps is timesteps
    assert "step" not in vars(pipe.scheduler)
    assert (len(pipe.unet._forward_hooks), len(pipe.unet._forward_pre_hooks)) == hooks
    assert torch.equal(sampled(pipe, 5, **arguments), before)


def test_it_is_left_so_by_errors_too():
    pipe = sd()
    scheduler = pipe.scheduler
    with pytest.raises(ValueError, match="Provide either `prompt` or `prompt_embeds`"):
        from_pipeline(pipe)
    assert pipe.scheduler is scheduler
    assert not pipe.unet._forward_hooks


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype):
    pipe, arguments = build("flux", FLOW()), ARGUMENTS["flux"](2, True)
    exact = from_pipeline(pipe, **arguments)
    pipe.transformer.to(dtype)
    half = {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    task = from_pipeline(pipe, **half)
    assert task.field.clock == exact.field.clock == (1.0, 0.0)
    assert task.field.guidance == 3.5
    assert task.per_sample["encoder_hidden_states"].dtype == dtype


def test_nothing_is_decoded_or_shown(capfd):
    pipe, decoded = Loop(Net()), []
    pipe.decode = Net()
    pipe.decode.register_forward_hook(lambda *_: decoded.append(1))
    call = Loop.__call__
    decoding = type(
        "Decoding", (Loop,), {"__call__": lambda self, *a, **k: self.decode(call(self, *a, **k), X)}
    )
    pipe.__class__ = decoding
    from_pipeline(pipe, latents=X)
    assert not decoded
    shown = sd()
    shown.set_progress_bar_config(disable=False)
    from_pipeline(shown, **ARGUMENTS["sd"](1, False))
    assert shown._progress_bar_config == {"disable": False}
    assert capfd.readouterr().err == ""
