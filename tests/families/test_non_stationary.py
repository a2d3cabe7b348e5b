"""Non-stationary solvers: a free reduced form around any solver."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary
from fewstep.families._family import warped
from fewstep.schedules import VE, VP, CondOT, Cosine


def field(x, t):
    """A velocity that is nonlinear in state and time."""
    return torch.sin(2 * x + t.reshape(-1, *[1] * (x.ndim - 1))) - 0.3 * x


def random_theta(family, scale=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(family.size, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 10])
def test_the_parameter_count_is_that_of_the_paper(n):
    assert NonStationary(fs.classical.euler(n)).size == n * (n + 5) // 2 - 1


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE()], ids=repr)
@pytest.mark.parametrize("nfe", [4, 5, 8])
def test_theta_zero_is_the_unrolled_start_whatever_it_is(nfe, schedule):
    """Equal to the bit as a table, and alike as a sampler."""
    flow = fs.Field(field, schedule)
    x0 = fs.noise(5, (2,), dtype=torch.float64)
    for name, start in fs.classical.baselines(nfe, schedule).items():
        solver = NonStationary(start).solver()
        reduced = start.to("velocity", schedule).unroll()
        assert (solver.times, solver.C, solver.D) == (reduced.times, reduced.C, reduced.D), name
        assert torch.equal(solver.sample(flow, x0), reduced.sample(flow, x0))
        torch.testing.assert_close(solver.sample(flow, x0), start.sample(flow, x0), rtol=1e-10, atol=1e-10)


def test_theta_is_added_as_documented():
    """x_i = (a_i + delta_a / n) x_0 + sum (b_ij + delta_b / n) u_j, replayed by hand."""
    n = 4
    family = NonStationary(fs.classical.midpoint(2))
    theta = random_theta(family)
    _, a, b = theta.split([n - 1, n, n * (n + 1) // 2])
    start = fs.classical.midpoint(2).unroll()
    times = family.table(theta).times
    x0 = fs.noise(4, (2,), dtype=torch.float64)
    x, u, k = x0, [], 0
    for i in range(n):
        u.append(field(x, times[i]))
        x = (start.C[i][0] + a[i] / n) * x0
        for j in range(i + 1):
            x = x + (start.D[i][j] + b[k] / n) * u[j]
            k += 1
    torch.testing.assert_close(family.solver(theta).sample(field, x0), x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_wild_theta_keeps_the_times_in_order(scale):
    for start in fs.classical.baselines(8).values():
        family = NonStationary(start)
        for seed in range(5):
            times = family.table(random_theta(family, scale, seed)).times
            assert times[0] == 0
            assert bool((times.diff() >= 0).all())
            assert float(times[-1]) <= 1


def test_times_move_by_the_ratios_of_their_increments():
    start = torch.tensor([0.0, 0.2, 0.5, 1.0], dtype=torch.float64)
    move = torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64)
    weights = start.diff() * move.exp()
    expected = torch.cat([torch.zeros(1), weights.cumsum(0) / weights.sum()])
    torch.testing.assert_close(warped(start, move), expected, rtol=0, atol=1e-15)
    assert torch.equal(warped(start, torch.zeros(3, dtype=torch.float64)), start)


@pytest.mark.parametrize("name", ["euler", "heun", "dpmpp_2m"])
def test_the_table_is_differentiable_in_theta(name):
    family = NonStationary(fs.classical.baselines(4)[name])
    theta = random_theta(family).requires_grad_()
    assert torch.autograd.gradcheck(lambda theta: tuple(family.table(theta)), theta)


def test_a_fitted_solver_is_a_start():
    first = NonStationary(fs.classical.euler(4))
    solver = first.solver(random_theta(first))
    again = NonStationary(solver).solver()
    assert (again.times, again.C, again.D) == (solver.times, solver.C, solver.D)


def test_a_start_in_other_predictions_is_read_in_velocities():
    noise_table = fs.classical.euler(grid=[0.1, 0.5, 1.0]).to("noise", VP())
    velocity_table = fs.classical.euler(grid=[0.1, 0.5, 1.0]).unroll()
    solver = NonStationary(noise_table).solver()
    for row, expected in zip(solver.D, velocity_table.D, strict=True):
        assert row == pytest.approx(expected, abs=1e-12)


def test_the_solver_file_tells_theta_and_start(tmp_path):
    family = NonStationary(fs.classical.midpoint(2))
    solver = family.solver(random_theta(family))
    solver.save(tmp_path / "solver.json")
    loaded = fs.Solver.load(tmp_path / "solver.json")
    assert loaded == solver
    assert loaded.family["init"] == "midpoint"
    assert family.solver(torch.tensor(loaded.family["theta"], dtype=torch.float64)) == solver
