import math

import pytest
import torch

import fewstep as fs
from fewstep.metrics import inversion_error


@pytest.fixture
def field():
    """The exact flow of N(0, 1) into N(0, 1): it ends where it began."""
    return fs.Field(lambda x, t: ((2 * t - 1) / (t**2 + (1 - t) ** 2))[:, None] * x)


@pytest.fixture
def x1():
    return fs.noise(50, (3,), seed=5, dtype=torch.float64)


def heun3(steps):
    return fs.classical.runge_kutta(fs.classical.TABLEAUX["heun3"], steps)


@pytest.mark.parametrize(
    ("solver", "order"),
    [(fs.classical.euler, 1), (fs.classical.midpoint, 3), (heun3, 3), (fs.classical.rk4, 5)],
    ids=["euler", "midpoint", "heun3", "rk4"],
)
def test_the_round_trip_converges_with_the_next_odd_order(field, x1, solver, order):
    errors = [inversion_error(field, solver(steps), x1).error.value for steps in (64, 128)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.05)


def test_it_is_the_round_trip_written_out(field, x1):
    there, back = fs.classical.rk4(3), fs.classical.euler(4)
    found = inversion_error(field, back, x1, inverse=there, batch=16)
    x0 = there.sample(field.reversed(), x1)
    assert found.error.value == pytest.approx(float(fs.metrics.rmse(back.sample(field, x0), x1)), rel=1e-12)
    assert found.latent.value == pytest.approx(float(x0.square().mean()), rel=1e-12)
    assert found.nfe == 12 + 4
    assert found.error.count == 50
    assert str(found).endswith("16 calls")


def test_latents_are_the_noises_of_the_flow():
    """Data of N(0, 4) come from standard normal noise half as far out."""
    field = fs.Field(lambda x, t: ((5 * t - 1) / (4 * t**2 + (1 - t) ** 2))[:, None] * x)
    x1 = 2 * fs.noise(400, (3,), seed=6, dtype=torch.float64)
    found = inversion_error(field, fs.classical.rk4(40), x1)
    assert found.latent.value == pytest.approx(float(x1.square().mean()) / 4, rel=1e-5)
    assert found.latent.low < 1 < found.latent.high


def test_noise_levels_of_the_schedule_are_taken_out_of_the_latents():
    schedule = fs.schedules.VE()
    normal = fs.models.GaussianMixture(torch.zeros(1, 2), torch.ones(1), torch.ones(1), schedule, "data")
    field = fs.Field(normal, schedule, "data")
    x1 = fs.noise(400, (2,), seed=7, dtype=torch.float64)
    found = inversion_error(field, fs.classical.rk4(60), x1)
    assert found.latent.value == pytest.approx(float(x1.square().mean()), rel=1e-3)


def test_conditions_go_with_their_samples(x1):
    field = fs.Field(lambda x, t, scale: scale[:, None] * x)
    scale = torch.linspace(-1, 1, 50, dtype=torch.float64)
    one = inversion_error(field, fs.classical.euler(4), x1, per_sample={"scale": scale})
    many = inversion_error(field, fs.classical.euler(4), x1, batch=7, per_sample={"scale": scale})
    assert many.error.value == pytest.approx(one.error.value, rel=1e-12)
    returned = x1 * ((1 - scale / 4) * (1 + scale / 4))[:, None] ** 4
    assert one.error.value == pytest.approx(float(fs.metrics.rmse(returned, x1)), rel=1e-12)


def test_no_data(field):
    with pytest.raises(ValueError, match="x1 must hold at least one sample"):
        inversion_error(field, fs.classical.euler(4), torch.zeros(0, 3))
