"""Our solvers with the signature of k-diffusion's samplers, against the same solvers in our own loop."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.adapters import edm, k_diffusion

SHAPE = (1, 2, 2)
NOISE = fs.noise(4, SHAPE, seed=0)
S = fs.schedules
SCHEDULES = [S.CondOT(), S.VP(), S.Cosine(), S.VE(80.0)]


def deviation(samples, expected):
    """RMS of the differences in that of the samples."""
    return float((samples - expected).square().mean().sqrt() / expected.square().mean().sqrt())


def denoiser(exact, schedule):
    """The data expected at ``data + sigma noise``, from the network of another schedule."""
    network = exact(schedule, "data")

    def model(x, sigma, scale=1.0):
        assert sigma.shape == (len(x),)
        t = schedule.inverse_log_snr(-sigma.double().log())
        alpha = schedule(t).alpha.reshape(-1, 1, 1, 1)
        return (scale * network(alpha * x, t)).to(x.dtype)

    return model


def solvers(field):
    schedule = field.schedule
    family = fs.families.FAMILIES["non_stationary"]((4,), None, field)
    theta = 0.05 * torch.randn(family.size, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    fitted = family.solver(theta)
    assert fitted.times[0] > 0  # noise, but the network is called at a later time
    return [
        fs.classical.dpmpp("2M", 6, schedule=schedule),
        fs.classical.edm_heun(4, schedule=schedule),
        fs.classical.midpoint(3),
        fs.classical.rk4(2).unroll(),
        fitted,
    ]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_samples_as_the_solver_does(exact, schedule):
    field = fs.Field(exact(schedule, "data"), schedule, "data", shape=SHAPE)
    for solver in solvers(field):
        f = k_diffusion.sampler(solver, schedule)
        assert len(f.sigmas) == solver.nfe + 1
        assert f.sigmas[-1] == 0
        given, expected = NOISE * f.sigmas[0], solver.sample(field, NOISE)
        for sigmas in (f.sigmas, None):
            samples = f(denoiser(exact, schedule), given, sigmas)
            error = deviation(samples, expected / schedule(solver.end).alpha)
            # A velocity from data just before pure data is a difference of nearly equal numbers.
            close = solver.name == "rk4"
            assert error < (1e-3 if close else 1e-5), solver.name


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule.name)
def test_straight_coordinates(exact, schedule):
    """States ``(1 - sigma) data + sigma noise`` of a network of straight paths."""
    network = exact(S.CondOT(), "data")

    def model(x, sigma):
        return network(x, 1 - sigma.double()).to(x.dtype)

    field = fs.Field(exact(schedule, "data"), schedule, "data", shape=SHAPE)
    for solver in solvers(field):
        f = k_diffusion.sampler(solver, schedule, "straight")
        assert float(f.sigmas[0]) == pytest.approx(1, abs=0.05)
        samples, expected = f(model, NOISE * f.sigmas[0]), solver.sample(field, NOISE)
        error = deviation(samples, expected / schedule(solver.end).alpha)
        assert error < (1e-3 if solver.name == "rk4" else 1e-5), solver.name  # as above


@pytest.mark.parametrize("schedule", [S.CondOT(), S.VP(), S.Cosine()], ids=lambda schedule: schedule.name)
@pytest.mark.parametrize("solver", [fs.classical.heun(2), fs.classical.kutta3(2)], ids=lambda s: s.name)
def test_calls_in_pure_data_say_what_a_trained_network_does(schedule, solver):
    """The velocity of the digits' flow in pure data is not the one that exact networks have."""
    field = fs.models.bundled("digits").reschedule(schedule)
    noise = fs.noise(16, field.shape, seed=1)
    expected = solver.sample(field, noise)
    f, denoise = k_diffusion.sampler(solver, schedule), field.denoiser()
    made: dict[str, Any] = {}
    exec(k_diffusion.module(solver, schedule), made)
    written = made[made["__all__"][1]]
    for samples in (f(denoise, noise * f.sigmas[0]), edm.sampler(solver, schedule)(denoise, noise)):
        assert deviation(samples, expected) < 3e-3
    assert deviation(written(denoise, noise * made["SIGMAS"][0]), expected) < 3e-3
    # Half precision leaves the velocity there to some digits only, further from the end.
    if schedule == S.CondOT():
        assert deviation(f(denoise, (noise * f.sigmas[0]).bfloat16()).float(), expected) < 0.1


def test_a_field_of_data_predictions_keeps_its_limit_in_pure_data(exact):
    """The error of a network that predicts data would be divided by the noise level."""
    schedule, solver = S.CondOT(), fs.classical.heun(2)
    network = exact(schedule, "data")
    field = fs.Field(lambda x, t: network(x, t) + 0.01, schedule, "data", shape=SHAPE, name="off")
    expected = solver.sample(field, NOISE)
    f = k_diffusion.sampler(solver, schedule)
    assert deviation(f(field.denoiser(), NOISE * f.sigmas[0]), expected) < 2e-5
    fitted = k_diffusion.sampler(replace(solver, fitted_for=field.describe()))
    assert (
        deviation(fitted(lambda x, sigma: field.denoiser()(x, sigma), NOISE * f.sigmas[0]), expected) < 2e-5
    )


def test_the_schedule_of_a_fitted_solver_is_that_of_its_field():
    facts = {"schedule": S.VP().to_dict()}
    solver = replace(fs.classical.midpoint(2), fitted_for=facts)
    assert k_diffusion.sampler(solver) == k_diffusion.sampler(fs.classical.midpoint(2), S.VP())


def test_a_sample_before_pure_data(exact):
    """The last level is not zero, and the sample has k-diffusion's scale."""
    schedule = S.VP()
    solver = fs.classical.dpmpp("2M", grid=[0.0, 0.3, 0.6, 0.8], schedule=schedule)
    f = k_diffusion.sampler(solver)
    alpha, sigma = (float(c) for c in schedule(0.8)[:2])
    assert float(f.sigmas[-1]) == pytest.approx(sigma / alpha)
    field = fs.Field(exact(schedule, "data"), schedule, "data", shape=SHAPE)
    samples = f(denoiser(exact, schedule), NOISE * f.sigmas[0], f.sigmas)
    torch.testing.assert_close(samples, solver.sample(field, NOISE) / alpha)


def test_begins_later(exact):
    """``denoise`` below 1: the last of the levels."""
    schedule = S.VP()
    solver = fs.classical.adams_bashforth(2, 8)
    f = k_diffusion.sampler(solver, schedule)
    sigmas = f.sigmas[3:]
    image = torch.full((4, *SHAPE), 0.3)
    samples = f(denoiser(exact, schedule), image + NOISE * sigmas[0], sigmas)
    field = fs.Field(exact(schedule, "data"), schedule, "data", shape=SHAPE)
    rest = fs.classical.dpmpp("2M", grid=[*solver.times[3:], 1.0], schedule=schedule)
    alpha = float(schedule(solver.times[3]).alpha)
    expected = rest.sample(field, alpha * (image + NOISE * sigmas[0]) / float(schedule(0.0).sigma))
    torch.testing.assert_close(samples, expected, rtol=1e-4, atol=1e-4)


def test_arguments_and_callbacks(exact):
    schedule = S.VP()
    f = k_diffusion.sampler(fs.classical.dpmpp("2M", 4, schedule=schedule))
    seen = []
    x = NOISE.to(torch.float16) * f.sigmas[0].half()
    samples = f(denoiser(exact, schedule), x, f.sigmas, {"scale": 0.0}, seen.append, disable=True)
    assert samples.dtype == torch.float16
    assert [facts["i"] for facts in seen] == [0, 1, 2, 3]
    assert all(float(facts["denoised"].abs().max()) == 0 for facts in seen)
    assert [float(facts["sigma"]) for facts in seen] == pytest.approx(f.sigmas[:-1].tolist(), rel=1e-3)
    assert torch.equal(seen[0]["x"], x)


def test_refusals():
    with pytest.raises(ValueError, match="table of velocities, which names no schedule"):
        k_diffusion.sampler(fs.classical.euler(4))
    with pytest.raises(ValueError, match=r"table of data predictions for VP.*CondOT"):
        k_diffusion.sampler(fs.classical.dpmpp("2M", 4, schedule=S.VP()), S.CondOT())
    with pytest.raises(ValueError, match="leads from data to noise"):
        k_diffusion.sampler(fs.classical.euler(3), S.Reversed(S.CondOT()))
    f = k_diffusion.sampler(fs.classical.euler(3), S.VE(80.0))
    for sigmas in (torch.tensor([80.0, 40, 3, 0]), torch.ones(9), torch.zeros(1)):
        with pytest.raises(ValueError, match=r"must be its own levels, \[80.0, .* pass sampler.sigmas"):
            f(denoiser, NOISE, sigmas)
    with pytest.raises(ValueError, match="must be a denoiser, not a Field"):
        f(fs.Field(lambda x, t: x), NOISE)
