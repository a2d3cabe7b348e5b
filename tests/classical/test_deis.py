"""DEIS: the paper's integrals by adaptive quadrature, measured orders, both ends of time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from fewstep.classical import ddim, deis, exponential_adams, lms
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine

SCHEDULES = [CondOT(), VP(), Cosine(), VE(5.0)]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def noise_weights(solver, row):
    """Weights of the noise predictions in ``x / alpha``, from a table of data predictions."""
    times = torch.tensor([*solver.times, solver.end], dtype=torch.float64)
    alpha, sigma = (c.tolist() for c in solver.schedule(times)[:2])
    return [-d * sigma[j] / alpha[j] / alpha[row + 1] for j, d in enumerate(solver.D[row])]


@pytest.mark.parametrize("schedule", [*SCHEDULES, DDPM()], ids=repr)
@pytest.mark.parametrize("end", [0.8, 1.0])
def test_tab_integrates_polynomials_in_time(schedule, end):
    """C_ij = int prod (t - t_k) / (t_j - t_k) d rho, as Zhang and Chen (2023), eq. 15."""
    grid = [0.1, 0.25, 0.5, end]
    found = noise_weights(deis(3, schedule=schedule, grid=grid), 2)

    def rho(t):
        alpha, sigma = schedule(t)[:2]
        return float(sigma / alpha)

    for j, weight in enumerate(found):
        polynomial = np.poly1d([1.0])
        for other in set(range(3)) - {j}:
            polynomial *= np.poly1d([1.0, -grid[other]]) / (grid[j] - grid[other])
        ends = polynomial(end) * rho(end) - polynomial(grid[2]) * rho(grid[2])
        # By parts, so that rho needs no derivative.
        slope = polynomial.deriv()
        inner = integrate.quad(lambda t, p=slope: p(t) * rho(t), grid[2], end, epsabs=1e-11)[0]
        assert weight == pytest.approx(ends - inner, abs=1e-6 * rho(0.1))


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
@pytest.mark.parametrize("variable", ["time", "log_rho"])
@pytest.mark.parametrize(("order", "measured"), [(1, 1), (2, 2), (3, 2)])
def test_the_order_is_measured_on_a_mixture(schedule, variable, order, measured, measured_order):
    """Order 3 is held back by its first step, of order 1."""

    def build(grid):
        return deis(order, schedule=schedule, grid=grid, variable=variable)

    assert measured_order(build, schedule) > measured - 0.3


@each_schedule
@pytest.mark.parametrize("variable", ["time", "log_rho"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_one_row_with_exact_history_has_its_local_order(schedule, variable, order, local_order):
    def build(grid):
        return deis(order, schedule=schedule, grid=grid, variable=variable)

    assert local_order(build, schedule) == pytest.approx(order + 1, abs=0.35)


@each_schedule
def test_in_log_rho_it_is_exponential_adams_on_the_noise(schedule):
    solver = deis(3, 6, schedule=schedule, variable="log_rho")
    other = exponential_adams(3, 6, schedule=schedule, prediction="noise")
    assert (solver.times, solver.C, solver.D) == (other.times, other.C, other.D)


def test_in_log_rho_to_pure_data_is_the_limit():
    """int_0^s (log rho)^k d rho is finite."""
    schedule, grid = CondOT(), [0.2, 0.4, 0.6, 1.0]
    limit = deis(3, schedule=schedule, grid=[*grid[:-1], 1 - 1e-10], variable="log_rho")
    assert noise_weights(deis(3, schedule=schedule, grid=grid, variable="log_rho"), 2) == pytest.approx(
        noise_weights(limit, 2), abs=1e-7
    )


@pytest.mark.parametrize("variable", ["time", "log_rho"])
@each_schedule
def test_the_first_step_is_ddim_and_everything_finite(schedule, variable):
    solver, first = deis(4, 6, schedule=schedule, variable=variable), ddim(6, schedule=schedule)
    assert solver.nfe == 6
    assert solver.C[0][0] == pytest.approx(first.C[0][0], rel=1e-9)
    assert solver.D[0][0] == pytest.approx(first.D[0][0], rel=1e-9)


def test_when_rho_is_linear_in_time_tab_is_lms():
    schedule = VE(9.0, rho=1.0)
    solver, other = deis(3, 6, schedule=schedule), lms(3, 6, schedule=schedule)
    for row in range(6):
        assert noise_weights(solver, row) == pytest.approx(noise_weights(other, row), abs=1e-10)
        assert math.fsum(noise_weights(solver, row)) == pytest.approx(-1.5, abs=1e-10)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 5}, "order must be 1, 2, 3 or 4, not 5"),
        ({"order": 2, "variable": "rho"}, "variable must be 'time' or 'log_rho', not 'rho'"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        deis(steps=4, **options)
