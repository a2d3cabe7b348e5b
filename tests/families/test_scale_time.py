"""Scale-time solvers against the formulas of their paper, written out by hand."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, ScaleTime

RUNGE_KUTTA = ["euler", "midpoint", "heun", "ralston", "heun3", "kutta3", "rk4"]
BASES = [*RUNGE_KUTTA, "ab2", "ab3", "ab4"]
#: Adams-Bashforth on equal steps, newest slope first, in units of h (Bashforth and Adams 1883).
WEIGHTS = {
    1: [1],
    2: [3 / 2, -1 / 2],
    3: [23 / 12, -16 / 12, 5 / 12],
    4: [55 / 24, -59 / 24, 37 / 24, -9 / 24],
}
each_base = pytest.mark.parametrize("base", BASES)


def field(x, t):
    """A velocity that is nonlinear in state and time."""
    return torch.sin(2 * x + t.reshape(-1, *[1] * (x.ndim - 1))) - 0.3 * x


def random_theta(family, scale=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(family.size, dtype=torch.float64, generator=generator)


def classical(base, steps):
    """The plain method: Euler's, ..., or of the Adams-Bashforth methods the one of an order."""
    if base.startswith("ab"):
        return fs.classical.adams_bashforth(int(base[2:]), steps)
    return getattr(fs.classical, base)(steps)


@pytest.mark.parametrize("n", [1, 4, 5, 8, 10])
def test_parameter_counts_are_those_of_the_paper(n):
    assert ScaleTime("euler", n).size == 4 * n - 1
    assert ScaleTime("midpoint", n).size == 8 * n - 1
    assert {ScaleTime(base, n).size for base in ("ab2", "ab3", "ab4")} == {4 * n - 1}
    assert {4: 31, 5: 39, 8: 63, 10: 79}.get(n, 8 * n - 1) == ScaleTime("midpoint", n).size


@pytest.mark.parametrize("train", ["both", "time", "scale"])
@each_base
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_theta_zero_is_the_base_solver_to_the_bit(base, steps, train):
    family = ScaleTime(base, steps, train)
    start, plain = family.solver(), classical(base, steps)
    assert (start.times, start.C, start.D, start.points) == (plain.times, plain.C, plain.D, plain.points)
    x0 = fs.noise(5, (2,))
    assert torch.equal(start.sample(field, x0), plain.sample(field, x0))


def test_rk1_is_the_formula_of_the_paper():
    """x' = ((s_i + h s'_i) / s_(i+1)) x + (h t'_i s_i / s_(i+1)) u(x, t_i)."""
    n = 5
    family = ScaleTime("euler", n)
    theta = random_theta(family)
    t, dt, s, ds = family.nodes(theta)
    x0 = fs.noise(4, (2,), dtype=torch.float64)
    x, h = x0, 1 / n
    for i in range(n):
        x = (s[i] + h * ds[i]) / s[i + 1] * x + h * dt[i] * s[i] / s[i + 1] * field(x, t[i])
    torch.testing.assert_close(family.solver(theta).sample(field, x0), x, rtol=1e-12, atol=1e-12)


def test_rk2_is_the_formula_of_the_paper():
    """Nodes alternate between points i and midpoints m = i + 1/2."""
    n = 4
    family = ScaleTime("midpoint", n)
    theta = random_theta(family)
    t, dt, s, ds = family.nodes(theta)
    x0 = fs.noise(4, (2,), dtype=torch.float64)
    x, h = x0, 1 / n
    for i in range(n):
        p, m, q = 2 * i, 2 * i + 1, 2 * i + 2
        z = (s[p] + h / 2 * ds[p]) * x + h / 2 * s[p] * dt[p] * field(x, t[p])
        slope = ds[m] / s[m] * z + dt[m] * s[m] * field(z / s[m], t[m])
        x = s[p] / s[q] * x + h / s[q] * slope
    torch.testing.assert_close(family.solver(theta).sample(field, x0), x, rtol=1e-12, atol=1e-12)


@each_base
def test_it_is_the_base_solver_on_the_transformed_field_divided_by_s_n(base):
    """ubar_r(x) = (s'/s) x + t' s u(x / s, t), each function known at the nodes only."""
    family = ScaleTime(base, 3)
    theta = random_theta(family)
    t, dt, s, ds = family.nodes(theta)
    node = {round(float(r), 12): k for k, r in enumerate(family._grid)}

    def ubar(x, r):
        k = node[round(float(r[0]), 12)]
        return ds[k] / s[k] * x + dt[k] * s[k] * field(x / s[k], t[k])

    x0 = fs.noise(4, (2,), dtype=torch.float64)
    plain = classical(base, 3).sample(ubar, x0) / s[-1]
    torch.testing.assert_close(family.solver(theta).sample(field, x0), plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_a_multistep_base_steps_on_the_transformed_velocity(order):
    """xbar_(i+1) = xbar_i + h sum_k w_k ubar_(i-k), of lower order at first, divided by s_n at the end."""
    n = 6
    family = ScaleTime(f"ab{order}", n)
    theta = random_theta(family)
    t, dt, s, ds = family.nodes(theta)
    x0 = fs.noise(4, (2,), dtype=torch.float64)
    xbar, slopes = x0, []
    for i in range(n):
        slopes.insert(0, ds[i] / s[i] * xbar + dt[i] * s[i] * field(xbar / s[i], t[i]))
        weights = WEIGHTS[min(order, i + 1)]
        xbar = xbar + sum(w * slope for w, slope in zip(weights, slopes, strict=False)) / n
    torch.testing.assert_close(family.solver(theta).sample(field, x0), xbar / s[n], rtol=1e-12, atol=1e-12)


def test_an_exact_change_of_schedule_loses_no_order():
    """Smooth t(r), s(r) sampled at the nodes keep midpoint's order 2."""
    velocity = fs.models.random_mixture(2, 3, std=0.5)
    x0 = fs.noise(8, (2,), dtype=torch.float64)
    exact = fs.reference.solve(velocity.field(), x0, rtol=1e-10, atol=1e-10).states[-1]

    def error(steps):
        family = ScaleTime("midpoint", steps)
        r = family._grid
        t, s = (r + r**2) / 2, torch.exp(0.5 * r)
        dt, ds = 0.5 + r, 0.5 * s
        # theta of these nodes: log ratios of increments, log slopes, log scales, slopes
        grow = (t.diff() / r.diff()).log()
        theta = torch.cat([(grow - grow[-1])[:-1], dt[:-1].log(), s[1:].log(), ds[:-1]])
        torch.testing.assert_close(family.nodes(theta).t, t, rtol=0, atol=1e-12)
        return (family.solver(theta).sample(velocity, x0) - exact).norm()

    assert float((error(20) / error(40)).log2()) == pytest.approx(2, abs=0.25)


@each_base
@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_wild_theta_keeps_times_in_order_and_scales_positive(base, scale):
    family = ScaleTime(base, 5)
    for seed in range(20):
        theta = random_theta(family, scale, seed)
        t, dt, s, _ = family.nodes(theta)
        assert (t[0], t[-1], s[0]) == (0, 1, 1)
        assert bool((t.diff() >= 0).all())
        assert bool((t.diff() > 0).all()) or scale > 5
        assert bool((dt > 0).all())
        assert bool((s > 0).all())


@pytest.mark.parametrize("train", ["time", "scale"])
@each_base
def test_the_ablations_fix_the_other_half(base, train):
    family = ScaleTime(base, 4, train)
    t, dt, s, ds = family.nodes(random_theta(family))
    both = ScaleTime(base, 4)
    still = both.nodes(torch.zeros(both.size, dtype=torch.float64))
    if train == "time":
        assert (s == 1).all()
        assert (ds == 0).all()
        assert not torch.equal(t, still.t)
        assert not torch.equal(dt, still.dt)
    else:
        assert torch.equal(t, still.t)
        assert (dt == 1).all()
        assert (s[1:] != 1).all()
    assert family.size + ScaleTime(base, 4, "scale" if train == "time" else "time").size == both.size


@pytest.mark.parametrize("base", ["euler", "midpoint", "heun", "rk4", "ab3"])
def test_the_table_is_differentiable_in_theta(base):
    family = ScaleTime(base, 2)
    theta = random_theta(family).requires_grad_()
    assert torch.autograd.gradcheck(lambda theta: tuple(family.table(theta)), theta)


@each_base
def test_every_parameter_matters(base):
    """No column of the Jacobian of the table is zero."""
    family = ScaleTime(base, 3)
    jacobian = torch.autograd.functional.jacobian(
        lambda theta: torch.cat([part.flatten() for part in family.table(theta)]), random_theta(family)
    )
    assert bool((jacobian.abs().amax(dim=0) > 1e-6).all())


@each_base
def test_non_stationary_solvers_hold_every_scale_time_solver(base):
    """Embedded by unrolling, with the same samples."""
    family = ScaleTime(base, 3)
    solver = family.solver(random_theta(family))
    embedded = NonStationary(solver).solver()
    unrolled = solver.unroll()
    assert (embedded.times, embedded.C, embedded.D) == (unrolled.times, unrolled.C, unrolled.D)
    x0 = fs.noise(5, (2,), dtype=torch.float64)
    torch.testing.assert_close(embedded.sample(field, x0), solver.sample(field, x0), rtol=1e-11, atol=1e-11)


def test_the_solver_file_tells_theta_and_nodes(tmp_path):
    family = ScaleTime("midpoint", 2)
    solver = family.solver(random_theta(family), name="mine")
    solver.save(tmp_path / "solver.json")
    loaded = fs.Solver.load(tmp_path / "solver.json")
    assert loaded == solver
    theta = torch.tensor(loaded.family["theta"], dtype=torch.float64)
    assert family.solver(theta, name="mine") == solver
    assert loaded.family["s"][0] == 1
    assert "arXiv:2310.19075" in loaded.citation[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": "rk45"}, "base must be one of euler, midpoint, .* not 'rk45'"),
        ({"train": "all"}, "train must be one of both, time, scale, not 'all'"),
        ({"steps": 0}, "steps: must be a whole number from 1 to 10,000, not 0"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        ScaleTime(**options)
