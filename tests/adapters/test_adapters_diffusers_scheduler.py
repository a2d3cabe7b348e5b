"""Our solvers as a scheduler: its settings, its methods, and loops of diffusers that need no text."""

from __future__ import annotations

import json
import warnings
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import fewstep as fs
from fewstep.adapters import diffusers as adapter

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from diffusers.utils.torch_utils import randn_tensor  # noqa: E402
from test_adapters_diffusers_loops import NOISE, loop, transformer, unet  # noqa: E402
from tiny_pipelines import network as random_network  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__")  # of diffusers with NumPy 2

FewStep = adapter.FewStepScheduler
SOLVER = fs.classical.midpoint(3)
SETTINGS = {
    "DDIMScheduler": {"beta_schedule": "scaled_linear", "beta_end": 0.012, "clip_sample": False},
    "EulerDiscreteScheduler": {"beta_schedule": "scaled_linear", "use_karras_sigmas": True},
    "DPMSolverMultistepScheduler": {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
    "PNDMScheduler": {"skip_prk_steps": True},
    "EDMEulerScheduler": {"sigma_max": 40.0},
    "FlowMatchEulerDiscreteScheduler": {"shift": 3.0, "use_dynamic_shifting": True},
}


def theirs(kind):
    return getattr(diffusers, kind)(**SETTINGS[kind])


def assert_same(ours, theirs, tolerance=1e-5):
    scale = theirs.square().mean().sqrt()
    assert float(theirs.std()) > 0.1
    assert float((ours - theirs).abs().max() / scale) < tolerance


@pytest.mark.parametrize("kind", SETTINGS)
def test_settings_of_the_scheduler_before_are_kept(kind, tmp_path, caplog):
    before = theirs(kind)
    ours = FewStep.from_solver(SOLVER, before)
    ours.save_pretrained(tmp_path)
    for made in (ours, FewStep.from_pretrained(tmp_path), FewStep.from_config(ours.config)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            restored = type(before).from_config(made.config)
        unsaved = ("_class_name", "_diffusers_version", "_use_default_values", "_fewstep")
        kept, was = (
            {k: v for k, v in each.config.items() if k not in unsaved} for each in (restored, before)
        )
        assert kept == was
        back = made.restored()
        assert type(back) is type(before)
        assert {k: v for k, v in back.config.items() if k not in unsaved} == was
        assert "_fewstep" not in back.config
        assert type(FewStep.from_config(restored.config)) is FewStep
        assert made.convention == ours.convention
        assert torch.equal(made.timesteps, ours.timesteps)
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    network = unet() if kind != "FlowMatchEulerDiscreteScheduler" else transformer()
    assert adapter.field(network, ours).describe() == adapter.field(network, before).describe()
    again = FewStep.from_solver(fs.classical.euler(4), ours)
    assert [s["nfe"] for s in again.config["_fewstep"]["solvers"]] == [4]
    assert again.convention == ours.convention


def test_numbers_are_exact(tmp_path):
    solver = fs.classical.rk4(grid=[0.0, 1 / 3, 1.0])
    FewStep.from_solver(solver, theirs("DDIMScheduler")).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert content["_class_name"] == "FewStepScheduler"
    assert content["_fewstep"]["solvers"][0] == json.loads(json.dumps(solver.to_dict()))


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.parametrize("name", ["2M", "heun", "unrolled"])
def test_a_loop_samples_as_the_solver_does(kind, name):
    flow = kind.startswith("Flow")
    network = transformer() if flow else unet()
    scheduler = theirs(kind)
    field = adapter.field(network, scheduler)
    solver = {
        "2M": fs.classical.dpmpp("2M", 6, schedule=field.schedule),
        "heun": fs.classical.heun(3),
        "unrolled": fs.classical.adams_bashforth(2, 6).unroll(),
    }[name]
    ours = FewStep.from_solver([solver, fs.classical.euler(4)], scheduler)
    conditions = (
        {"encoder_hidden_states": torch.ones(3, 4, 6), "pooled_projections": torch.ones(3, 5)} if flow else {}
    )

    def predict(x, k):
        if flow:
            return network(hidden_states=x, timestep=k.expand(3), **conditions).sample
        return network(x, k).sample

    ours.set_timesteps(6)
    latents = loop(ours, NOISE * ours.init_noise_sigma, predict)
    expected = solver.sample(field, NOISE, **conditions)
    # EDM's states are large at first, and so is what float32 rounds off.
    assert_same(latents, expected, 4e-5 if kind == "EDMEulerScheduler" else 1e-5)
    assert ours.step_index == 6
    with pytest.raises(ValueError, match="all 6 calls of the solver are made"):
        ours.step(latents, ours.timesteps[-1], latents)


def test_a_ddpm_pipeline():
    """It does not multiply the noise, and always passes a generator."""
    network = unet()
    pipe = diffusers.DDPMPipeline(network, diffusers.DDPMScheduler())
    field = adapter.field(pipe)
    solver = fs.classical.dpmpp("2M", 6, schedule=field.schedule)
    pipe.scheduler = FewStep.from_solver(solver, pipe.scheduler)
    pipe.set_progress_bar_config(disable=True)

    def generator():
        return torch.Generator().manual_seed(3)

    images = pipe(3, generator(), num_inference_steps=6, output_type="pt").images
    noise = randn_tensor((3, 2, 8, 8), generator=generator())
    expected = solver.sample(field, field.initial_noise(noise))
    assert_same(images, (expected / 2 + 0.5).clamp(0, 1))


def test_a_learned_variance_is_dropped():
    network = random_network(
        "UNet2DModel", sample_size=8, in_channels=2, out_channels=4, block_out_channels=(8, 16),
        layers_per_block=1, norm_num_groups=4, down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    field = adapter.field(network, scheduler, shape=(2, 8, 8))
    ours = FewStep.from_solver(SOLVER, scheduler)
    latents = loop(ours, NOISE * ours.init_noise_sigma, lambda x, k: network(x, k).sample)
    assert_same(latents, SOLVER.sample(field, NOISE))


def test_a_fit_of_several_numbers_of_calls(exact):
    schedule = adapter.field(unet(), theirs("DDIMScheduler")).schedule
    network = exact(schedule, "noise")

    def at_timestep(x, k):
        return network(x, (999 - k) / 1000)

    field = fs.Field(at_timestep, schedule, "noise", shape=(1, 2, 2))
    fit = fs.fit(field, nfe=(2, 3), pairs=4, seed=0, optimizer=fs.fitting.GaussNewton(iterations=1))
    ours = FewStep.from_solver(fit, theirs("DDIMScheduler"))
    noise = fs.noise(3, (1, 2, 2), seed=1)
    for n in (2, 3):
        ours.set_timesteps(n)
        latents = loop(ours, noise * ours.init_noise_sigma, at_timestep)
        assert_same(latents, fit.at(n).sample(field, noise))


def test_a_solver_fitted_for_another_schedule_is_told(tmp_path):
    discrete = fs.schedules.Discrete([0.9, 0.5, 0.1])
    solver = replace(SOLVER, fitted_for={"schedule": fs.schedules.CondOT().to_dict(), "guidance": 2.0})
    with pytest.warns(UserWarning, match=r"for schedule cond_ot\(\), but this field has schedule ddpm"):
        FewStep.from_solver(solver, theirs("DDIMScheduler"))
    for schedule in (discrete, fs.schedules.DDPM()):
        own = theirs("DDIMScheduler") if schedule != discrete else diffusers.DDIMScheduler(
            trained_betas=[0.1, 4 / 9, 0.8], num_train_timesteps=3
        )  # fmt: skip
        found = adapter.field(unet(), own).schedule
        solver = replace(SOLVER, fitted_for={"schedule": found.to_dict()})
        solver.save(tmp_path / "solver.json")
        FewStep.from_solver([fs.load(tmp_path / "solver.json"), fs.classical.euler(4)], own)


def test_noise_is_added_at_our_times():
    image = torch.full((2, 2, 8, 8), 0.5)
    noise = NOISE[:2]
    for kind in SETTINGS:
        ours = FewStep.from_solver(fs.classical.heun(4), theirs(kind))
        for j, t in enumerate((0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75, 1.0)):
            alpha, sigma = (float(c) for c in ours.convention.schedule(t)[:2])
            expected = alpha * image + sigma * noise
            for timestep in (ours.timesteps[j], ours.timesteps[j].repeat(2)):
                torch.testing.assert_close(ours.add_noise(image, noise, timestep), expected)
                torch.testing.assert_close(ours.scale_noise(image, timestep, noise), expected)
    before = diffusers.DDIMScheduler()
    ours = FewStep.from_solver(SOLVER, before)
    k = torch.tensor([17, 731])  # timesteps of training
    torch.testing.assert_close(
        ours.add_noise(image, noise, k), before.add_noise(image, noise, k), rtol=1e-4, atol=1e-4
    )


class NoWaiting(TorchDispatchMode):
    """Refuses what reads a value from the device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func.overloadpacket not in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["DDIMScheduler", "EDMEulerScheduler"])
@pytest.mark.parametrize("begin", [None, 0, 2])
def test_nothing_waits_for_the_device(kind, begin):
    ours = FewStep.from_solver(SOLVER, theirs(kind))

    def sampled():
        ours.set_timesteps(6)
        if begin is not None:
            ours.set_begin_index(begin)
        timesteps = ours.timesteps[begin or 0 :]
        with seen:
            x = ours.add_noise(NOISE, NOISE, timesteps[0])
            for i, t in enumerate(timesteps):
                x = ours.step(ours.scale_model_input(x, t), t, x).prev_sample
                assert ours.step_index == (begin or 0) + i + 1

    seen = nullcontext()
    sampled()  # works out the numbers of the steps, on the host
    seen = NoWaiting()
    sampled()
    x = NOISE
    with pytest.raises(AssertionError), NoWaiting():
        float(x.sum())


def test_a_first_timestep_in_the_middle_is_found():
    """Some pipelines only pass the timesteps that remain, as views or copies."""
    ours = FewStep.from_solver(SOLVER, theirs("DDIMScheduler"))
    results = []
    for given in (lambda t: t, lambda t: t.clone(), float):
        ours.set_timesteps(6)
        x = NOISE
        for t in ours.timesteps[2:]:
            x = ours.step(x, given(t), x, return_dict=False)[0]
        results.append(x)
    ours.set_timesteps(6)
    ours.set_begin_index(2)
    x = NOISE
    for t in ours.timesteps[2:]:
        x = ours.step(x, t, x)[0]
    assert all(torch.equal(x, result) for result in results)
    ours.set_timesteps(6)
    with pytest.raises(ValueError, match=r"timestep 123 is none of its timesteps, \[999"):
        ours.step(x, 123, x)


def test_lists_of_pipelines():
    ours = FewStep.from_solver(fs.classical.euler(5), theirs("FlowMatchEulerDiscreteScheduler"))
    for sigmas in (
        [1 - i / 5 for i in range(5)],
        torch.linspace(1, 0.2, 5),
        [0.999 - i * 0.1998 for i in range(5)],
    ):
        ours.set_timesteps(sigmas=sigmas, mu=1.15)
        torch.testing.assert_close(ours.timesteps, torch.tensor([1000.0, 800, 600, 400, 200]))
    ours.set_timesteps(timesteps=[1000, 750, 500, 251, 1], sigmas=torch.linspace(1, 0.001, 5), mu=1.0)
    ours.set_timesteps(timesteps=ours.timesteps)
    for given in ({"sigmas": [1, 0.9, 0.8, 0.5, 0.1]}, {"timesteps": [999, 850, 600, 400, 20]}):
        with pytest.raises(ValueError, match="must be left out, as its solvers have times of their own"):
            ours.set_timesteps(**given)
    with pytest.raises(ValueError, match=r"num_inference_steps=4, but its solvers make 5 network calls"):
        ours.set_timesteps(sigmas=[1, 0.75, 0.5, 0.25])
    with pytest.raises(ValueError, match=r"num_inference_steps=28, but"):
        ours.set_timesteps(28)


def test_refusals():
    before = theirs("DDIMScheduler")
    with pytest.raises(ValueError, match="these settings hold no solver"):
        FewStep.from_config(before.config)
    with pytest.raises(ValueError, match=r"different numbers of network calls, not of \[6, 6\]"):
        FewStep.from_solver([SOLVER, fs.classical.euler(6)], before)
    with pytest.raises(ValueError, match="solvers must be one or more"):
        FewStep.from_solver([], before)
    for given, name in ((["fit.json"], "str"), (None, "NoneType"), (before, "DDIM"), ([None], "NoneType")):
        with pytest.raises(ValueError, match=f"solver must be a Solver or Fit, or several, not a {name}"):
            FewStep.from_solver(given, before)
    for given, name in ((None, "NoneType"), (SimpleNamespace(config={}, scheduler=before), "SimpleName")):
        words = rf"scheduler must be one of diffusers, such as pipe\.scheduler, .* not a {name}"
        with pytest.raises(ValueError, match=words):
            FewStep.from_solver(SOLVER, given)
    with pytest.raises(ValueError, match=r"^FewStepScheduler: Own, the scheduler before, is not one of diff"):
        FewStep.from_solver(SOLVER, type("Own", (type(before),), {})()).restored()
    with pytest.raises(ValueError, match=r"table of data predictions for CondOT\(\)"):
        FewStep.from_solver(fs.classical.dpmpp("2M", 4), before)
    with pytest.raises(ValueError, match="convention of IPNDMScheduler is unknown"):
        FewStep.from_solver(SOLVER, diffusers.IPNDMScheduler())
    with pytest.raises(AttributeError, match="no attribute 'Scheduler'"):
        adapter.Scheduler  # noqa: B018
