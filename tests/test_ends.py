"""Every prediction under every schedule, both ends of time included, against closed forms."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine, LinearVP, Polynomial

SCHEDULES = [
    CondOT(),
    Polynomial(2.0),
    VP(),
    Cosine(),
    LinearVP(),
    VE(),
    VE(10.0, 0.01, 1.0),
    DDPM("scaled_linear", 0.00085, 0.012),
    DDPM(zero_terminal_snr=True),
]
#: Their first call is at t = 0; the last call of Heun and RK4 is at t = 1.
SOLVERS = {
    "euler": lambda schedule: fs.classical.euler(5),
    "midpoint": lambda schedule: fs.classical.midpoint(4),
    "heun": lambda schedule: fs.classical.heun(4),
    "rk4": lambda schedule: fs.classical.rk4(3),
    "ab3": lambda schedule: fs.classical.adams_bashforth(3, 6),
    "ddim": lambda schedule: fs.classical.ddim(5, schedule=schedule),
    "dpmpp_2m": lambda schedule: fs.classical.dpmpp("2M", 5, schedule=schedule),
    "dpmpp_2s": lambda schedule: fs.classical.dpmpp("2S", 4, schedule=schedule),
}
X = fs.noise(6, (3,), seed=1, dtype=torch.float64)

each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
each_prediction = pytest.mark.parametrize("prediction", ["noise", "data", "v"])


def exact(schedule, prediction="velocity"):
    """A mixture's field, which knows the mean of its data."""
    network = fs.models.random_mixture(3, 4, std=0.3, schedule=schedule, prediction=prediction)
    mean = network.log_weights.exp() @ network.means
    return fs.Field(network, schedule, prediction, clock=(0, 1), data_moments=(mean, 1.0))


def loses_the_end(schedule):
    """An infinite sigma' in pure data, where no other prediction tells the velocity."""
    return schedule in (VP(), LinearVP())


@each_schedule
@each_prediction
@pytest.mark.parametrize("solver", SOLVERS)
def test_samples_do_not_depend_on_what_the_network_predicts(schedule, prediction, solver):
    table = SOLVERS[solver](schedule)
    expected = table.sample(exact(schedule), X)
    lost = loses_the_end(schedule) and 1.0 in table.times
    torch.testing.assert_close(
        table.sample(exact(schedule, prediction), X), expected, rtol=0, atol=5e-7 if lost else 1e-10
    )


@each_schedule
@each_prediction
@pytest.mark.parametrize("t", [0.0, 1e-6, 0.3, 1 - 1e-6, 1.0])
def test_velocities_do_not_depend_on_what_the_network_predicts(schedule, prediction, t):
    if t == 1 and loses_the_end(schedule):
        pytest.skip("no call can tell this velocity")
    x = exact(schedule).initial_state(X) if t < 0.1 else X
    scale = exact(schedule)(x, t).abs().max().clamp(min=1)
    # Next to an end, not at it, rounding is divided by the distance.
    tolerance = 1e-10 if t in (0.0, 0.3, 1.0) else 1e-8
    error = (exact(schedule, prediction)(x, t) - exact(schedule)(x, t)).abs().max() / scale
    assert float(error) < tolerance


@each_schedule
@each_prediction
def test_times_may_differ_within_a_batch_that_holds_both_ends(schedule, prediction):
    field, t = exact(schedule, prediction), torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0, 1.0], dtype=torch.float64)
    together = field(X, t)
    alone = torch.cat([field(x[None], float(s)) for x, s in zip(X, t, strict=True)])
    # Taken a little inside, 1e-8 from the end, by which the rounding of vectorised functions is divided.
    tolerance = 1e-7 if loses_the_end(schedule) else 1e-12
    torch.testing.assert_close(together, alone, rtol=tolerance, atol=tolerance)


@each_schedule
@pytest.mark.parametrize("wanted", ["velocity", "noise", "data", "v"])
@pytest.mark.parametrize("given", ["velocity", "noise", "data", "v"])
def test_any_prediction_gives_any_other(schedule, wanted, given):
    for t in (0.2, 0.7):
        expected = exact(schedule, wanted).predict(X, t)
        torch.testing.assert_close(
            exact(schedule, given).predict_as(wanted, X, t), expected, rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("t", [0.0, 1.0])
@pytest.mark.parametrize("prediction", ["velocity", "noise", "data", "v"])
def test_half_precision_is_finite_at_both_ends(prediction, t):
    for schedule in SCHEDULES:
        velocity = exact(schedule, prediction)(X.bfloat16(), t)
        assert velocity.dtype == torch.float32  # in which differences are taken
        assert bool(velocity.isfinite().all())


def test_without_the_mean_of_the_data_the_noise_end_is_taken_a_little_inside():
    field = fs.models.random_mixture(3, 4, std=0.3, prediction="noise").field()
    assert field.data_moments is None
    torch.testing.assert_close(field(X, 0.0), exact(CondOT())(X, 0.0), rtol=0, atol=1e-6)
