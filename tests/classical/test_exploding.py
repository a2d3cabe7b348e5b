"""Heun, LMS and Runge-Kutta in sigma: against plain loops, measured orders, calls."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.classical import (
    TABLEAUX,
    adams_bashforth,
    ddim,
    dpm_solver,
    edm_heun,
    exploding_runge_kutta,
    lms,
    runge_kutta,
)
from fewstep.schedules import VE, VP, CondOT, Cosine

SCHEDULES = [CondOT(), VP(), Cosine(), VE(5.0)]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def algorithm_1(network, schedule, x, grid):
    """Karras et al. (2022), algorithm 1, for states scaled by alpha."""
    levels = [float((-schedule.log_snr(t)).exp()) for t in grid]

    def slope(y, t):
        alpha = schedule(t).alpha
        return network(y * alpha, torch.tensor(t, dtype=torch.float64))

    y = x / schedule(grid[0]).alpha
    for i, (level, new) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        d = slope(y, grid[i])
        following = y + (new - level) * d
        if new > 0:
            following = y + (new - level) * (d + slope(following, grid[i + 1])) / 2
        y = following
    return y * schedule(grid[-1]).alpha


@each_schedule
def test_edm_heun_is_algorithm_1_of_its_paper(schedule, line):
    network = fs.models.random_mixture(1, 3, std=0.4, schedule=schedule, prediction="noise")
    grid = [0.1, 0.3, 0.35, 0.7, 1.0]
    solver = edm_heun(schedule=schedule, grid=grid)
    assert solver.nfe == 7
    x = line * schedule(0.0).sigma
    expected = algorithm_1(network, schedule, x, grid)
    torch.testing.assert_close(solver.sample(network.field(), line), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("schedule", "nfe"), [(CondOT(), 8), (VP(), 9), (VE(), 9), (VE(9.0, 0.1), 10)])
def test_steps_of_infinite_length_cost_one_call(schedule, nfe):
    assert edm_heun(5, schedule=schedule).nfe == nfe


@pytest.mark.parametrize("name", TABLEAUX)
def test_the_tableaux_have_their_orders(name, measured_order):
    schedule, tableau = VP(), TABLEAUX[name]

    def build(grid):
        return exploding_runge_kutta(tableau, schedule=schedule, grid=grid)

    assert measured_order(build, schedule) == pytest.approx(
        tableau.order, abs=0.5 if tableau.order < 5 else 1
    )


@pytest.mark.parametrize("name", TABLEAUX)
def test_where_alpha_is_one_and_sigma_linear_it_is_the_plain_method(name, line):
    """On such a schedule the velocity is the noise times a constant."""
    schedule = VE(9.0, 1.0, rho=1.0)
    network = fs.models.random_mixture(1, 3, std=0.4, schedule=schedule, prediction="noise")
    solver = exploding_runge_kutta(TABLEAUX[name], 4, schedule=schedule)
    plain = runge_kutta(TABLEAUX[name], 4)
    expected = plain.sample(network.field(), line)
    torch.testing.assert_close(solver.sample(network.field(), line), expected, rtol=1e-11, atol=1e-11)


def test_a_tableau_that_stays_off_the_end_goes_to_pure_data():
    solver = exploding_runge_kutta(TABLEAUX["midpoint"], grid=[0.1, 0.5, 1.0])
    assert solver.nfe == 4
    assert max(solver.times) == pytest.approx(1 / 1.5)  # sigma / alpha = 1/2, half of that at t = 1/2


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
@pytest.mark.parametrize(("order", "measured"), [(1, 1), (2, 2), (4, 2)])
def test_the_order_of_lms_is_measured_on_a_mixture(schedule, order, measured, measured_order):
    """Order 4 is held back by its first step, of order 1."""

    def build(grid):
        return lms(order, schedule=schedule, grid=grid)

    assert measured_order(build, schedule, 40) > measured - 0.3


@each_schedule
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_one_row_with_exact_history_has_its_local_order(schedule, order, local_order):
    def build(grid):
        return lms(order, schedule=schedule, grid=grid)

    assert local_order(build, schedule) == pytest.approx(order + 1, abs=0.35)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_lms_is_adams_bashforth_in_sigma(order, line):
    schedule = VE(9.0, 1.0, rho=1.0)
    network = fs.models.random_mixture(1, 3, std=0.4, schedule=schedule, prediction="noise")
    grid = [0.0, 0.1, 0.3, 0.35, 0.6, 0.9, 1.0]
    expected = adams_bashforth(order, grid=grid).sample(network.field(), line)
    solver = lms(order, schedule=schedule, grid=grid)
    torch.testing.assert_close(solver.sample(network.field(), line), expected, rtol=1e-11, atol=1e-11)


def test_history_in_pure_noise_has_no_weight():
    grid = [0.0, 0.3, 0.6, 1.0]
    far = lms(3, grid=[1e-12, *grid[1:]])
    for row, limit in zip(lms(3, grid=grid).D[1:], far.D[1:], strict=True):
        assert row == pytest.approx(limit, abs=1e-9)


@each_schedule
def test_euler_is_ddim_and_the_geometric_midpoint_dpm_solver_2(schedule, line):
    grid = [0.1, 0.3, 0.6, 0.9]
    network = fs.models.random_mixture(1, 3, std=0.4, schedule=schedule, prediction="noise").field()
    one = exploding_runge_kutta(TABLEAUX["euler"], schedule=schedule, grid=grid)
    torch.testing.assert_close(
        one.sample(network, line), ddim(schedule=schedule, grid=grid).sample(network, line)
    )
    # k-diffusion's sample_dpm_2: Euler to the geometric mean of the levels, then the slope there.
    x = line * schedule(0.0).sigma
    for s, t in zip(grid[:-1], grid[1:], strict=True):
        a, b = (schedule.log_snr(q).neg().exp() for q in (s, t))
        m = schedule.inverse_log_snr(-(a * b).sqrt().log())
        y = x / schedule(s).alpha
        middle = y + ((a * b).sqrt() - a) * network.predict(x, s)
        x = (y + (b - a) * network.predict(middle * schedule(m).alpha, m)) * schedule(t).alpha
    solver = dpm_solver("2S", schedule=schedule, grid=grid)
    torch.testing.assert_close(solver.sample(network, line), x, rtol=1e-11, atol=1e-11)


def test_an_unknown_order_is_named():
    with pytest.raises(ValueError, match="order must be 1, 2, 3 or 4, not 0"):
        lms(0, 4)
