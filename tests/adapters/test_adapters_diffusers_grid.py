"""The grids of diffusers' schedulers: on them, our classical solvers take their steps."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.adapters import diffusers as adapter

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from test_adapters_diffusers_loops import NOISE, loop, transformer, unet  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__")  # of diffusers with NumPy 2


def assert_same(ours, theirs, tolerance=2e-5):
    scale = theirs.square().mean().sqrt()
    assert float(theirs.std()) > 0.1
    assert float((ours - theirs).abs().max() / scale) < tolerance


def ddim(field, times):
    return fs.classical.ddim(grid=times, schedule=field.schedule)


def dpmpp(field, times):
    return fs.classical.dpmpp("2M", grid=times, schedule=field.schedule, lower_order_final=True)


@pytest.mark.parametrize(
    ("kind", "settings", "solver"),
    [
        ("DDIMScheduler", {"clip_sample": False}, ddim),
        ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}, ddim),
        ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, ddim),
        ("EulerDiscreteScheduler", {}, ddim),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, ddim),
        ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}, ddim),
        ("DPMSolverMultistepScheduler", {}, dpmpp),
        ("EDMEulerScheduler", {}, ddim),
    ],
)
def test_steps_on_the_grid_are_the_schedulers(kind, settings, solver):
    network = unet()
    scheduler = getattr(diffusers, kind)(**settings)
    field = adapter.field(network, scheduler)
    times = adapter.grid(scheduler, 10)
    # Without set_alpha_to_one the last call is at the time of the sample, and does nothing.
    assert len(times) == (10 if "set_alpha_to_one" in settings else 11)
    scheduler.set_timesteps(10)
    state = NOISE * scheduler.init_noise_sigma
    theirs = loop(scheduler, state, lambda x, k: network(x, k).sample)
    # Euler's states are larger than ours by 1 / alpha.
    alpha = float(field.schedule(times[0]).alpha) if kind == "EulerDiscreteScheduler" else 1.0
    assert_same(solver(field, times).sample(field, field.initial_noise(alpha * state)), theirs, 5e-5)


@pytest.mark.parametrize("options", [{}, {"mu": 0.9}])
def test_shifts_as_the_scheduler_does(options):
    network = transformer()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=bool(options))
    times = adapter.grid(scheduler, 8, **options)
    assert times[0] == pytest.approx(0, abs=1e-7)
    assert times[-1] == 1
    conditions = {"encoder_hidden_states": torch.ones(3, 4, 6), "pooled_projections": torch.ones(3, 5)}
    field = adapter.field(network, scheduler)
    scheduler.set_timesteps(8, **options)

    def predict(x, k):
        return network(hidden_states=x, timestep=k.expand(3), **conditions).sample

    theirs = loop_without_scaling(scheduler, predict)
    assert_same(fs.classical.euler(grid=times).sample(field, NOISE, **conditions), theirs)


def loop_without_scaling(scheduler, predict):
    state = NOISE
    for k in scheduler.timesteps:
        state = scheduler.step(predict(state, k), k, state).prev_sample
    return state


def test_rounded_timesteps():
    """DPM-Solver++ with Karras levels: the states are exact, what the network is told is not."""
    network = unet()
    scheduler = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True)
    exact, told = (adapter.grid(scheduler, 10, timesteps=kind) for kind in ("exact", "round"))
    scheduler.set_timesteps(10)
    assert told[:-1] == pytest.approx([(999 - int(k)) / 1000 for k in scheduler.timesteps])
    assert 1e-5 < max(abs(a - b) for a, b in zip(exact, told, strict=True)) < 1e-3
    field = adapter.field(network, scheduler, clock="integer")
    theirs = loop(scheduler, NOISE, lambda x, k: network(x, k).sample)
    start = field.initial_noise(NOISE)
    assert_same(dpmpp(field, exact).sample(field, start), theirs, 5e-5)
    assert float((dpmpp(field, told).sample(field, start) - theirs).abs().max()) > 1e-4


def test_points_that_a_list_names_twice():
    betas = {"beta_start": 0.001, "beta_end": 0.012}
    times = adapter.grid(diffusers.HeunDiscreteScheduler(**betas), 6)
    assert len(times) == 7
    assert times == pytest.approx(adapter.grid(diffusers.EulerDiscreteScheduler(**betas), 6))


def test_the_scheduler_is_not_changed():
    scheduler = diffusers.DDIMScheduler()
    scheduler.set_timesteps(7)
    before = scheduler.timesteps.clone()
    adapter.grid(scheduler, 3)
    assert torch.equal(scheduler.timesteps, before)


def test_refusals():
    with pytest.raises(ValueError, match="timesteps must be 'exact' or 'round', not 'rounded'"):
        adapter.grid(diffusers.DDIMScheduler(), 3, timesteps="rounded")
    with pytest.raises(ValueError, match="convention of IPNDMScheduler is unknown"):
        adapter.grid(diffusers.IPNDMScheduler(), 3)
