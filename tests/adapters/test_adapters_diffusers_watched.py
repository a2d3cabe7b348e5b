"""What is read from a watched pipeline, and what is refused with a reason."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

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


class Loop:
    """A pipeline of another make: ``model_output`` from the network's outputs by ``mixing``."""

    def __init__(self, network, mixing=lambda k, out: out, scheduler=None, time=lambda t: t, **kept):
        self.network, self.mixing, self.time, self.kept = network, mixing, time, kept
        self.scheduler = scheduler or FLOW()

    def __call__(self, latents, prompt=None, num_inference_steps=3, **given):
        self.scheduler.set_timesteps(num_inference_steps)
        x = latents
        for k, t in enumerate(self.scheduler.timesteps):
            out = self.network(x, self.time(t).expand(len(x)), **self.kept, **given)
            x = self.scheduler.step(self.mixing(k, out), t, x).prev_sample
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -0.3]))
        self.eval()

    def forward(self, field_of_x, when, **_):
        t = when.reshape(-1, 1).to(field_of_x.dtype)
        return torch.tanh(field_of_x * self.scale) + 0.1 * (t / 1000).sin()


X = draw(3, 2, seed=1)


def test_any_names_signs_and_clocks():
    """Arguments of unknown names; an output of our sign; a time from noise to data."""
    task = from_pipeline(Loop(Net(), lambda k, out: -out, time=lambda t: 1 - t / 1000), latents=X)
    assert task.field.clock == (0.0, 1.0)
    torch.testing.assert_close(task.field(X, 0.25), Net()(X, torch.full((3,), 0.25)))
    torch.testing.assert_close(task.noise, X)


def test_lists_and_mappings_of_tensors():
    """As of adapters of images: a list of tensors with one row per sample, in a mapping, and plain values."""
    images = [draw(3, 2, seed=k) for k in (4, 5)]
    scale = draw(2, seed=6)

    def forward(x, t, *, added, scale, mode):
        assert mode == {"kind": "sum", "factors": (1, 2)}
        assert type(added["images"]) is list
        assert added["strength"] is None
        return Net()(x, t) * scale + added["images"][0] * added["images"][1]

    net = Net()
    net.forward = forward
    kept = {"added": {"images": images, "strength": None}, "scale": scale}
    pipe = Loop(net, **kept, mode={"kind": "sum", "factors": (1, 2)})
    task = from_pipeline(pipe, latents=X)
    assert set(task.conditions) == {"scale"}
    assert set(task.per_sample) == {"added"}
    bound = task.field.bind(task.conditions, task.per_sample, 3)
    expected = -forward(X, torch.tensor(500.0), **pipe.kept)
    torch.testing.assert_close(bound(X, 0.5), expected)
    torch.testing.assert_close(bound.rows(slice(1, 3))(X[1:], 0.5), expected[1:])


def test_networks_that_write_into_their_input():
    net = Net()
    net.forward = lambda x, when: Net()(x, when) + 0 * x.zero_()
    pipe = Loop(net)
    pipe.watched, pipe.network = net, lambda x, t: net(x.clone(), t)
    task = from_pipeline(pipe, latents=X)
    torch.testing.assert_close(task.noise, X)


@pytest.mark.filterwarnings("ignore")  # torch.compile's own
def test_compiled_networks():
    net = Net()
    task = from_pipeline(Loop(torch.compile(net, backend="eager")), latents=X)
    assert task.field.name == "Net 2"
    torch.testing.assert_close(task.field(X, 0.25), -net(X, torch.full((3,), 750.0)))


def test_two_networks_are_refused():
    """As with high and low noise, or ControlNet."""
    pipe = Loop(Net())
    pipe.first, pipe.second = pipe.network, Net()
    pipe.network = lambda x, t: (pipe.first if t[0] > 500 else pipe.second)(x, t)
    refused(pipe, r"2 networks \(first, second\) act in the pipeline's steps", latents=X)


def test_three_mixed_predictions_are_refused():
    net = Net()
    pipe = Loop(net)
    pipe.watched, pipe.network = net, lambda x, t: net(x, t) + net(x, t, a=1) - net(x, t, a=2)
    refused(pipe, "mix 3 predictions", latents=X)


def refused(pipe, words, **arguments):
    with pytest.raises(ValueError, match=words) as caught:
        from_pipeline(pipe, **arguments)
    assert str(caught.value).startswith("from_pipeline: ")
    assert str(caught.value).count(". ") == 0  # one sentence


@pytest.mark.parametrize(
    ("pipe", "words"),
    [
        (SimpleNamespace(unet=Net()), "SimpleNamespace is no pipeline"),
        (Net(), "Net is no pipeline"),
        (Loop(lambda x, t: x), "has no network that can be watched"),
        (Loop(Net(), lambda k, out: 2 * out), "multiplied by 2"),
        (Loop(Net(), lambda k, out: out / out.norm()), "no weighted sum of the network's outputs"),
        (Loop(Net(), lambda k, out: out.abs()), "no weighted sum of the network's outputs"),
        (Loop(Net(), lambda k, out: 0 * out), "multiplied by -?0"),
        (Loop(Net(), time=lambda t: t**2), "no affine function of the scheduler's timesteps"),
        (Loop(Net(), time=lambda t: 0 * t), "no argument changes from step to step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused(pipe, words):
    refused(pipe, words, latents=X)


def test_a_pipeline_without_a_scheduler_is_refused():
    pipe = Loop(Net())
    pipe.scheduler = None
    refused(pipe, "Loop has no scheduler", latents=X)


def test_a_network_without_an_answer_is_refused():
    net = Net()
    net.forward = lambda x, when: torch.zeros_like(x)
    refused(Loop(net), "returned zeros", latents=X)


def test_arguments_that_change_are_refused():
    pipe = Loop(Net())
    inner = Net().forward
    pipe.network.forward = lambda x, when, seed: inner(x, when)
    steps = iter(range(99))
    pipe.mixing, call = (lambda k, out: out), pipe.network
    pipe.kept = {}
    pipe.network, pipe.watched = (lambda x, t: call(x, t, seed=next(steps))), call
    refused(pipe, "arguments seed, when change from step to step", latents=X)


def test_one_step_does_not_tell_the_clock():
    refused(Loop(Net()), "made one step", latents=X, num_inference_steps=1)


@pytest.mark.parametrize("prompt", [["a", "b"], "a", ("a",) * 4], ids=str)
def test_prompts_and_latents_that_disagree_are_refused(prompt):
    count = 1 if isinstance(prompt, str) else len(prompt)
    refused(Loop(Net()), f"latents has 3 rows, but there are {count} prompts", latents=X, prompt=prompt)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("sd", {"guidance_rescale": 0.7}, r"no weighted sum .* \(\d+\.\d% is left\)"),
        ("lumina2", {"cfg_normalization": True}, "no weighted sum"),
        ("lumina2", {"cfg_trunc_ratio": 0.5}, "number of network calls changes from step to step"),
        ("qwen", {}, "no weighted sum"),
        (
            "sd",
            {"negative_prompt_embeds": draw(2, 5, 16, seed=1)},
            "both predictions of guidance are the same",
        ),
    ],
    ids=["rescale", "normalised", "truncated", "qwen", "same"],
)
def test_guidance_that_is_not_linear_is_refused(kind, changes, words):
    pipe = build(kind, diffusers.DDIMScheduler(**SD) if kind == "sd" else FLOW())
    refused(pipe, words, **{**ARGUMENTS[kind](2, True), **changes})
