import math

import pytest
import torch

import fewstep as fs


def gaussian_field():
    """The exact flow of N(0, 1) into N(0, 1) with the independent coupling: x_t = sqrt(t^2 + (1-t)^2) x_0."""
    return fs.Field(lambda x, t: ((2 * t - 1) / (t**2 + (1 - t) ** 2))[:, None] * x)


def test_curvature_of_the_gaussian_flow_is_its_closed_form():
    """E x_0^2 times the integral of (d/dt sqrt(t^2 + (1-t)^2))^2, that is 2 - pi/2."""
    x0 = fs.noise(50, (3,), dtype=torch.float64)
    path = fs.classical.rk4(100).sample(gaussian_field(), x0, trajectory=True)
    expected = (2 - math.pi / 2) * x0.square().mean(dim=1)
    torch.testing.assert_close(fs.metrics.curvature(path), expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("grid", [[0, 0.25, 0.5, 0.75, 1], [0, 0.1, 0.7, 1]], ids=["uniform", "other"])
def test_curvature_is_the_mean_over_time_of_the_distance_to_the_chord(grid):
    """Written out with loops, as the sum of squares that the meter takes apart."""
    path = fs.classical.euler(grid=grid).sample(gaussian_field(), fs.noise(4, (3,)), trajectory=True)
    x, t = path.states.double(), path.times
    expected = torch.zeros(4, dtype=torch.float64)
    for i in range(len(t) - 1):
        step = (x[i + 1] - x[i]) / (t[i + 1] - t[i])
        expected += (t[i + 1] - t[i]) * ((x[-1] - x[0]) - step).square().mean(dim=1)
    torch.testing.assert_close(fs.metrics.curvature(path), expected)


def test_a_straight_flow_has_no_curvature():
    x0 = fs.noise(5, (2, 3))
    path = fs.classical.midpoint(8).sample(fs.Field(lambda x, t: torch.ones_like(x)), x0, trajectory=True)
    curvature = fs.metrics.curvature(path)
    assert curvature.shape == (5,)
    assert 0 <= float(curvature.min()) <= float(curvature.max()) < 1e-9


def test_a_meter_takes_paths_that_advance_one_by_one():
    """Each path of the adaptive solver has points of its own."""
    x0 = fs.noise(6, (3,), dtype=torch.float64)
    meter = fs.metrics.CurvatureMeter(x0)

    def callback(index, t, x, velocity):
        if float(t.max()) > 0:
            meter.add(x, t, index)

    result = fs.Adaptive(1e-10, 1e-10).sample(gaussian_field(), x0, callback=callback)
    expected = (2 - math.pi / 2) * x0.square().mean(dim=1)
    torch.testing.assert_close(meter.curvature(), expected, rtol=1e-2, atol=0)
    torch.testing.assert_close(
        meter.displacement(), (result.x1 - x0).square().mean(dim=1), rtol=1e-6, atol=1e-18
    )


def turning(x0):
    """A quarter of a circle at constant speed, from each point of the plane."""
    field = fs.Field(lambda x, t: math.pi / 2 * torch.stack([-x[:, 1], x[:, 0]], 1))
    return fs.classical.rk4(50).sample(field, x0, trajectory=True)


def test_relative_curvature_of_an_arc_does_not_depend_on_its_radius():
    """The arc is pi/2 long and its chord sqrt 2: with equal speeds ``(pi/2)^2 / 2 - 1``."""
    x0 = fs.noise(6, (2,), dtype=torch.float64)
    for scale in (1.0, 1e-3, 1e3):
        found = fs.metrics.relative_curvature(turning(scale * x0))
        torch.testing.assert_close(found, torch.full_like(found, math.pi**2 / 8 - 1), rtol=1e-3, atol=0)


def test_straightness_of_rectified_flow_sums_over_dimensions():
    """``int |Z_1 - Z_0 - dZ/dt|^2 dt`` of an arc of radius ``r`` is ``r^2 ((pi/2)^2 - 2)``."""
    x0 = fs.noise(6, (2,), dtype=torch.float64)
    path = turning(x0)
    expected = x0.square().sum(dim=1) * (math.pi**2 / 4 - 2)
    torch.testing.assert_close(fs.metrics.straightness(path), expected, rtol=1e-3, atol=0)
    torch.testing.assert_close(fs.metrics.straightness(path), 2 * fs.metrics.curvature(path))


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (0.25, 1.0)])
def test_paths_that_take_part_of_the_time_are_measured_by_their_velocity(start, end):
    """Of x = t^2, whose velocity 2 t is uniform: a variance of (2 h)^2 / 12 about the mean start + end."""
    times = torch.linspace(start, end, 401, dtype=torch.float64).tolist()
    meter = fs.metrics.CurvatureMeter(torch.full((1, 3), start**2, dtype=torch.float64), start)
    for t in times[1:]:
        meter.add(torch.full((1, 3), t**2, dtype=torch.float64), t)
    assert float(meter.curvature()) == pytest.approx((end - start) ** 2 / 3, rel=1e-4)
    assert float(meter.displacement()) == pytest.approx((start + end) ** 2, rel=1e-9)


def test_straightness_takes_samples_of_any_shape():
    field, x0 = fs.Field(lambda x, t: -x), fs.noise(4, (6,))
    flat, shaped = (
        fs.metrics.straightness(fs.classical.euler(5).sample(field, x, trajectory=True))
        for x in (x0, x0.reshape(4, 1, 2, 3))
    )
    torch.testing.assert_close(shaped, flat)
