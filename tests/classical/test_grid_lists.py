"""Time grids of other frameworks: shifted flows, discrete timesteps and lists of noise levels."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

import fewstep as fs
from fewstep import grids
from fewstep.schedules import VE, VP, CondOT, Cosine

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}

#: diffusers turns tensors into arrays in a way that numpy is about to drop.
NUMPY = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def schedulers():
    return pytest.importorskip("diffusers.schedulers", reason="diffusers is not installed")


def from_timesteps(scheduler):
    return [*((999 - scheduler.timesteps.double().numpy()) / 1000), 1.0]


@pytest.mark.parametrize("shift", [1.0, 3.0, 0.5])
def test_flow_shift_is_that_of_sd3(schedulers, shift):
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 7, 7))
    assert grids.flow_shift(7, shift) == pytest.approx((1 - scheduler.sigmas.double()).tolist(), abs=1e-6)


@pytest.mark.parametrize(("tokens", "mu"), [(256, 0.5), (1024, 0.63), (4096, 1.15), (8704, 1.93)])
def test_flux_shifts_with_the_resolution(schedulers, tokens, mu):
    """A line through two points: 0.65 more for 3840 tokens more, by hand; the shift itself by diffusers."""
    assert grids.flux_mu(tokens) == pytest.approx(mu, rel=1e-12)
    scheduler = schedulers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 5, 5), mu=mu)
    expected = (1 - scheduler.sigmas.double()).tolist()
    assert grids.flow_shift(5, math.exp(grids.flux_mu(tokens))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shift", [0.1, 1 / 3, 3.3, 12.0])
def test_flow_shift_lowers_the_log_snr_and_keeps_the_ends(shift):
    plain, moved = grids.uniform(9), grids.flow_shift(9, shift)
    assert (moved[0], moved[-1]) == (0.0, 1.0)
    lowered = [float(CondOT().log_snr(s) - CondOT().log_snr(t)) for s, t in zip(plain, moved, strict=True)]
    assert lowered[1:-1] == pytest.approx([math.log(shift)] * 8, abs=1e-12)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("steps", [1, 3, 7, 10, 30, 1000])
def test_spaced_has_the_timesteps_of_diffusers_ddim(schedulers, spacing, steps):
    scheduler = schedulers.DDIMScheduler(timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    assert grids.spaced(steps, spacing) == pytest.approx(from_timesteps(scheduler), abs=1e-12)


@NUMPY
def test_spaced_with_the_offset_of_stable_diffusion(schedulers):
    scheduler = schedulers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **SD)
    scheduler.set_timesteps(20)
    assert grids.spaced(20, "leading", offset=1) == pytest.approx(from_timesteps(scheduler), abs=1e-12)


@NUMPY
def test_broken_timesteps_of_diffusers_euler(schedulers):
    scheduler = schedulers.EulerDiscreteScheduler(timestep_spacing="linspace", **SD)
    scheduler.set_timesteps(7)
    grid = grids.timesteps(scheduler.timesteps.tolist())
    assert grid == pytest.approx([(999 - k) / 1000 for k in np.linspace(999, 0, 7)] + [1.0], abs=1e-6)


@pytest.mark.parametrize("rho", [1.0, 2.0, 0.7])
def test_log_snr_is_polyexponential(rho):
    """k-diffusion: the log of sigma is ``ramp^rho (log max - log min) + log min``, ramp from 1 to 0."""
    levels = np.exp(np.linspace(1, 0, 6) ** rho * math.log(80 / 0.002) + math.log(0.002))
    assert grids.log_snr(6, Cosine(), rho=rho) == pytest.approx(
        grids.sigmas([*levels, 0.0], Cosine()), abs=1e-9
    )


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE()], ids=repr)
def test_sigmas_are_the_noise_levels_of_the_schedule(schedule):
    values = [70.0, 9.0, 1.0, 0.3, 0.04, 0.0]
    grid = grids.sigmas(values, schedule)
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    for level, t in list(zip(values, grid, strict=True))[1:-1]:
        alpha, sigma = schedule(t)[:2]
        assert float(sigma / alpha) == pytest.approx(level, rel=1e-9)


def test_edm_sigmas_are_uniform_in_its_own_time(schedulers):
    scheduler = schedulers.EDMEulerScheduler(sigma_min=0.02, sigma_max=80.0)
    scheduler.set_timesteps(6)
    grid = grids.sigmas(scheduler.sigmas.tolist()[:-1], VE(80.0, 0.0199))
    assert grid == pytest.approx(grids.uniform(5), abs=1e-3)


def test_sigmas_end_where_the_list_or_the_schedule_ends():
    assert grids.sigmas([10.0, 1.0, 0.25]) == pytest.approx((0.0, 0.5, 0.8), abs=1e-12)
    assert grids.sigmas([90.0, 1.0, 0.0], VE(80.0, 0.02))[-1] == 1.0


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("sd15", "StableDiffusionSigmas"),
        ("sdxl", "StableDiffusionXLSigmas"),
        ("svd", "StableDiffusionVideoSigmas"),
    ],
)
def test_align_your_steps_has_the_published_levels(schedulers, name, key):
    expected = grids.sigmas(schedulers.AysSchedules[key], VP())
    assert grids.ays(name, 10, VP()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("name", "key"), [("sd15", "StableDiffusion"), ("sdxl", "StableDiffusionXL")])
def test_align_your_steps_has_these_levels_at_the_published_timesteps(schedulers, name, key):
    """The published timesteps, put through Stable Diffusion's own schedule, are levels of the list."""
    bar = schedulers.DDIMScheduler(**SD).alphas_cumprod.double()
    published = schedulers.AysSchedules[key + "Timesteps"]
    levels = [float(((1 - bar[k]) / bar[k]).sqrt()) for k in published]
    grid = grids.ays(name, 10)
    assert grid[1:-1] == pytest.approx([1 / (1 + level) for level in levels[1:]], abs=2e-3)


@pytest.mark.parametrize("steps", [1, 2, 5, 20, 25])
def test_align_your_steps_interpolates_the_logarithm(steps):
    grid = grids.ays("sdxl", steps, CondOT())
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert all(s < t for s, t in pairwise(grid))
    if steps == 5:
        assert grid[1:-1] == pytest.approx(grids.ays("sdxl", 10)[2:-1:2], abs=1e-12)
    if steps == 20:
        between = math.sqrt(14.615 * 6.315)
        assert grid[1] == pytest.approx(1 / (1 + between), rel=1e-12)


def test_lists_make_solvers():
    assert fs.classical.dpmpp("2M", schedule=VP(), grid=grids.ays("sd15", 8, VP())).nfe == 8
    assert fs.classical.euler(grid=grids.spaced(10, "leading")).times[0] == 0.099


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: grids.flow_shift(4, 0.0), "shift must be a positive number, not 0.0"),
        (lambda: grids.flux_mu(0), "needs at least 1 token"),
        (lambda: grids.sigmas([1.0]), "two or more levels that fall"),
        (lambda: grids.sigmas([1.0, 2.0, 0.0]), "two or more levels that fall"),
        (lambda: grids.sigmas([1.0, -0.1]), "fall strictly to 0 or above"),
        (lambda: grids.sigmas([2.0, math.nan, 0.0]), "fall strictly"),
        (lambda: grids.sigmas([700.0, 90.0, 1.0, 0.0], VE()), "level 90 lies outside VE.*80 to 0"),
        (lambda: grids.sigmas([80.0, 1.0, 0.01, 0.0], VE(80.0, 0.02)), "level 0.01 lies outside"),
        (lambda: grids.timesteps([]), "timesteps: must fall strictly"),
        (lambda: grids.timesteps([1000, 0]), "from at most 999 to at least 0"),
        (lambda: grids.timesteps([10, 10]), "must fall strictly"),
        (lambda: grids.timesteps([10, -1]), "leave out the final step to pure data"),
        (lambda: grids.spaced(4, "even"), "must be one of leading, trailing, linspace, not 'even'"),
        (lambda: grids.spaced(11, "leading", 10), "at most count=10, not 11"),
        (lambda: grids.spaced(1, "leading", 10, offset=10), "must fall strictly from at most 9"),
        (lambda: grids.ays("flux"), "must be one of sd15, sdxl, svd, not 'flux'"),
        (lambda: grids.ays("svd", 10, VE(10.0)), "level 54.5 lies outside"),
    ],
)
def test_bad_lists_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
