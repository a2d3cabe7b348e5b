"""DDIM and DPM-Solver++ against their papers and closed-form flows."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import fewstep as fs
from fewstep.classical import ddim, dpm_solver, dpmpp, euler
from fewstep.schedules import VE, VP, CondOT, Cosine

SCHEDULES = [CondOT(), VP(), Cosine(), VE(5.0)]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
@pytest.mark.parametrize("solver", [dpmpp, dpm_solver])
@pytest.mark.parametrize(("variant", "order"), [("1", 1), ("2M", 2), ("2S", 2), ("3S", 3)])
def test_the_order_is_measured_on_a_mixture(schedule, solver, variant, order, measured_order):
    def build(grid):
        return solver(variant, schedule=schedule, grid=grid)

    assert measured_order(build, schedule) == pytest.approx(order, abs=0.35)


@each_schedule
@pytest.mark.parametrize("solver", [dpmpp, dpm_solver])
@pytest.mark.parametrize(("variant", "expected"), [("1", 2), ("2M", 3), ("3M", 3)])
def test_one_row_with_exact_history_has_its_local_order(schedule, solver, variant, expected, local_order):
    """3M as diffusers has it holds half of the second derivative, and so gains no order over 2M."""

    def build(grid):
        return solver(variant, schedule=schedule, grid=grid)

    assert local_order(build, schedule) == pytest.approx(expected, abs=0.45)


@each_schedule
def test_3m_lacks_nothing_but_the_other_half_of_its_last_term(schedule, exact_history):
    """phi_3 h^2 d'' / 2, added by hand with the second divided difference, makes the row of local order 4."""

    def error(h):
        off, (_, m2, m1, m0), alpha = exact_history(
            lambda grid: dpmpp("3M", schedule=schedule, grid=grid), schedule, h
        )
        bend = ((m0 - m1) / 0.8 - (m1 - m2) / 0.9) / 1.7
        phi3 = 0.5 - (h + math.expm1(-h)) / h**2
        return (off + alpha * phi3 * bend).norm()

    assert float((error(0.08) / error(0.04)).log2()) == pytest.approx(4, abs=0.3)


def test_dpmpp_2m_is_equation_13_of_its_paper():
    """D = (1 + 1 / 2r) d_i - 1 / 2r d_(i-1), x = sigma'/sigma x - alpha' (e^-h - 1) D."""
    schedule, grid = VP(), [0.1, 0.3, 0.6, 0.8]
    lambdas = [float(schedule.log_snr(t)) for t in grid]
    solver = dpmpp("2M", schedule=schedule, grid=grid)
    for i in (1, 2):
        h, r = lambdas[i + 1] - lambdas[i], (lambdas[i] - lambdas[i - 1]) / (lambdas[i + 1] - lambdas[i])
        factor = -float(schedule(grid[i + 1]).alpha) * math.expm1(-h)
        assert solver.D[i][i] == pytest.approx(factor * (1 + 1 / (2 * r)), rel=1e-12)
        assert solver.D[i][i - 1] == pytest.approx(-factor / (2 * r), rel=1e-12)
        assert solver.C[i][i] == pytest.approx(
            float(schedule(grid[i + 1]).sigma / schedule(grid[i]).sigma), rel=1e-12
        )


@each_schedule
@pytest.mark.parametrize("variant", ["1", "2M", "3M", "2S"])
def test_a_single_gaussian_converges_to_its_flow_map(schedule, variant, equal_log_snr, gaussian_flow):
    """From t = 0 to t = 1, both ends included."""
    field, x0, exact = gaussian_flow(schedule)

    def error(steps):
        first = max(-4.0, float(schedule.log_snr(0.0)))
        grid = equal_log_snr(schedule, steps, first, 7.0)
        inner = [t for t in grid if t > 1e-9]
        solver = dpmpp(variant, schedule=schedule, grid=[0.0, *inner, 1.0])
        return float((solver.sample(field, x0) - exact).abs().max())

    assert error(80) < 0.6 * error(40)
    assert error(80) < 0.04


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_ddim_is_euler_where_paths_are_straight(steps, line):
    """On CondOT, for the velocity and data predictions of one flow."""
    velocity = fs.models.random_mixture(1, 3).field()
    data = fs.models.random_mixture(1, 3, prediction="data").field()
    expected = euler(steps).sample(velocity, line)
    torch.testing.assert_close(ddim(steps).sample(data, line), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(ddim(steps).sample(velocity, line), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("schedule", [VP(), Cosine(), VE(5.0)], ids=repr)
def test_ddim_is_euler_in_the_coordinates_of_variance_exploding(schedule, line):
    """With y = x / alpha and s = sigma / alpha, dy/ds is the noise (Song et al. 2021, eq. 14)."""
    network = fs.models.random_mixture(1, 3, std=0.4, schedule=schedule, prediction="noise")
    grid = [0.1, 0.25, 0.4, 0.7, 0.9]
    x = line.clone() * schedule(0.0).sigma
    for s, t in pairwise(grid):
        (a, b), (a2, b2) = schedule(s)[:2], schedule(t)[:2]
        y = x / a + (b2 / a2 - b / a) * network(x, torch.tensor(s, dtype=torch.float64))
        x = y * a2
    solver = ddim(schedule=schedule, grid=grid)
    torch.testing.assert_close(solver.sample(network.field(), line), x, rtol=1e-11, atol=1e-11)


@each_schedule
def test_variant_one_is_ddim(schedule):
    one, other = dpmpp("1", 5, schedule=schedule), ddim(5, schedule=schedule)
    assert (one.times, one.C, one.D) == (other.times, other.C, other.D)


@pytest.mark.parametrize(("schedule", "infinite"), [(CondOT(), 2), (VP(), 1), (VE(), 1), (VE(9.0, 0.1), 0)])
def test_a_step_of_infinite_length_costs_one_call(schedule, infinite):
    for solver in (dpmpp, dpm_solver):
        assert solver("2S", 5, schedule=schedule).nfe == 10 - infinite
        assert solver("3S", 5, schedule=schedule).nfe == 15 - 2 * infinite


def test_dpm_solver_3_is_algorithm_2_of_its_paper(line):
    """Lu et al. (2022a), written with exponentials of lambda, r1 = 1/3 and r2 = 2/3."""
    schedule, r1, r2 = VP(), 1 / 3, 2 / 3
    network = fs.models.random_mixture(1, 3, std=0.4, schedule=schedule, prediction="noise")
    grid = [0.1, 0.35, 0.7]
    x = line * schedule(0.0).sigma

    def eps(x, t):
        return network(x, t)

    for s, t in pairwise(grid):
        lam, end = schedule.log_snr(s), schedule.log_snr(t)
        h = end - lam
        s1, s2 = (schedule.inverse_log_snr(lam + r * h) for r in (r1, r2))
        (a, _), (a1, g1), (a2, g2), (at, gt) = (schedule(q)[:2] for q in (s, s1, s2, t))
        e0 = eps(x, torch.tensor(s, dtype=torch.float64))
        u1 = a1 / a * x - g1 * torch.expm1(r1 * h) * e0
        d1 = eps(u1, s1) - e0
        u2 = a2 / a * x - g2 * torch.expm1(r2 * h) * e0
        u2 = u2 - g2 * r2 / r1 * (torch.expm1(r2 * h) / (r2 * h) - 1) * d1
        d2 = eps(u2, s2) - e0
        x = at / a * x - gt * torch.expm1(h) * e0 - gt / r2 * (torch.expm1(h) / h - 1) * d2
    solver = dpm_solver("3S", schedule=schedule, grid=grid)
    torch.testing.assert_close(solver.sample(network.field(), line), x, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("solver", [dpmpp, dpm_solver])
def test_a_lower_final_order_changes_the_last_steps_only(solver):
    schedule, grid = VP(), [0.1, 0.3, 0.5, 0.7, 0.8, 0.9]
    full = solver("3M", schedule=schedule, grid=grid)
    lower = solver("3M", schedule=schedule, grid=grid, lower_order_final=True)
    assert lower.D[:3] == full.D[:3]
    assert lower.D[-1] == solver("1", schedule=schedule, grid=grid).D[-1]
    assert lower.D[-2] == solver("2M", schedule=schedule, grid=grid).D[-2]


def test_an_unknown_variant_is_named():
    with pytest.raises(ValueError, match="variant must be one of 1, 2M, 3M, 2S, 3S, not '4M'"):
        dpmpp("4M", 3)
    with pytest.raises(ValueError, match=r"dpmpp: variant must be one of .*, not 4"):
        dpmpp(4)
