"""Curves: smooth functions from which solvers of any number of calls are read."""

from __future__ import annotations

import math

import pytest
import torch

import fewstep as fs
from fewstep.families import Curve, ScaleTime
from fewstep.families.curve import bernstein

DOUBLE = torch.float64


def field(x, t):
    """A velocity that is nonlinear in state and time."""
    return torch.sin(2 * x + t.reshape(-1, *[1] * (x.ndim - 1))) - 0.3 * x


def random_theta(curve, scale=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(curve.size, dtype=DOUBLE, generator=generator)


@pytest.mark.parametrize("degree", [1, 3, 5, 7, 8])
@pytest.mark.parametrize("base", ["euler", "ab2", "ab3", "midpoint", "heun", "kutta3", "rk4"])
def test_theta_zero_is_the_base_solver_to_the_bit(base, degree):
    curve = Curve(base, degree)
    for nfe in range(2, 13):
        if nfe % curve.stages == 0:
            start, plain = curve.member(nfe).solver(), fs.classical.named(base, nfe)
            assert (start.times, start.C, start.D, start.points) == (
                plain.times,
                plain.C,
                plain.D,
                plain.points,
            )


def test_bernstein_polynomials_are_binomial_probabilities():
    r = torch.tensor([0.0, 0.3, 1.0], dtype=DOUBLE)
    expected = [[math.comb(4, k) * float(p) ** k * (1 - float(p)) ** (4 - k) for k in range(5)] for p in r]
    torch.testing.assert_close(bernstein(4, r), torch.tensor(expected, dtype=DOUBLE), rtol=0, atol=1e-15)


@pytest.mark.parametrize("degree", [1, 2, 5, 8])
def test_slopes_are_the_derivatives_of_the_functions(degree):
    """Against automatic differentiation in r."""
    curve = Curve(degree=degree, terms=2, free_slopes=False)
    theta = random_theta(curve)
    r = torch.linspace(0, 1, 11, dtype=DOUBLE, requires_grad=True)
    nodes = curve.nodes(theta, r, nfe=7)
    for value, slope in ((nodes.t, nodes.dt), (nodes.s, nodes.ds)):
        (exact,) = torch.autograd.grad(value.sum(), r, retain_graph=True)
        torch.testing.assert_close(slope.detach(), exact, rtol=1e-10, atol=1e-10)


def test_free_slopes_depart_from_the_exact_ones_as_one_over_n_squared():
    exact, free = Curve(degree=3, terms=1, free_slopes=False), Curve(degree=3, terms=1)
    theta, r = random_theta(free), torch.linspace(0, 1, 6, dtype=DOUBLE)
    shared, e, d, g = theta.split([5, 4, 4, 16])
    for nfe in (4, 8, 12):
        start, own = exact.nodes(torch.cat([shared, g]), r, nfe), free.nodes(theta, r, nfe)
        assert torch.equal(own.t, start.t)
        assert torch.equal(own.s, start.s)
        share = 16 / nfe**2
        torch.testing.assert_close((own.dt / start.dt).log(), share * (bernstein(3, r) @ e))
        torch.testing.assert_close((own.ds - start.ds) / start.s, share * (bernstein(3, r) @ d))


@pytest.mark.parametrize("scale", [0.5, 2.0, 5.0])
def test_time_increases_from_0_to_1_and_the_scale_starts_at_1(scale):
    curve = Curve(degree=6)
    r = torch.linspace(0, 1, 50, dtype=DOUBLE)
    for seed in range(20):
        t, dt, s, _ = curve.nodes(random_theta(curve, scale, seed), r, nfe=5)
        assert (float(t[0]), float(t[-1]), float(s[0])) == (0, 1, 1)
        assert bool((t.diff() > 0).all())
        assert bool((dt >= 0).all())
        assert bool((s > 0).all())


@pytest.mark.parametrize("base", ["euler", "midpoint", "heun", "rk4"])
def test_a_runge_kutta_member_is_the_scale_time_solver_of_its_nodes(base):
    curve, steps = Curve(base, 5, differences=0), 3
    family, theta = ScaleTime(base, steps), random_theta(curve)
    r = family._grid
    t, dt, s, ds = curve.nodes(theta, r, family.nfe)
    grow = (t.diff() / r.diff()).log()
    called = family._sizes["dt"]
    own = torch.cat([(grow - grow[-1])[:-1], dt[:called].log(), s[1:].log(), ds[:called]])
    solver, expected = curve.solver(theta, family.nfe), family.solver(own)
    x0 = fs.noise(4, (2,), dtype=DOUBLE)
    torch.testing.assert_close(solver.sample(field, x0), expected.sample(field, x0), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("base", ["euler", "ab2", "ab3", "midpoint", "rk4"])
def test_it_is_the_base_solver_on_the_transformed_field_divided_by_the_last_scale(base):
    """ubar_r(x) = (s'/s) x + t' s u(x / s, t)."""
    curve, nfe = Curve(base, 4, differences=0), 8
    theta = random_theta(curve)

    def ubar(x, r):
        t, dt, s, ds = curve.nodes(theta, r[:1].double(), nfe)
        return ds / s * x + dt * s * field(x / s, t.expand(len(x)))

    x0 = fs.noise(4, (2,), dtype=DOUBLE)
    end = curve.nodes(theta, torch.ones(1, dtype=DOUBLE), nfe).s
    plain = fs.classical.named(base, nfe).sample(ubar, x0) / end
    torch.testing.assert_close(curve.solver(theta, nfe).sample(field, x0), plain, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("base", "order", "value"), [("euler", 1, 1 / 2), ("ab2", 2, 5 / 12), ("ab3", 3, 3 / 8)]
)
def test_one_more_difference_makes_the_next_adams_bashforth_method(base, order, value):
    """With the textbook's coefficient before the next backward difference; AB starts up with lower orders."""
    nfe = 8
    curve = Curve(base, 3, terms=1, differences=order)
    g = torch.zeros(order, 4, dtype=DOUBLE)
    g[-1] = value * (nfe / 4 if order == 1 else 1)
    theta = torch.cat([torch.zeros(curve.size - g.numel(), dtype=DOUBLE), g.flatten()])
    expected = fs.classical.named(f"ab{order + 1}", nfe)
    torch.testing.assert_close(curve.member(nfe).table(theta).D, expected.table.D, rtol=0, atol=1e-14)


def test_the_terms_are_a_series_in_one_over_n():
    one, two = Curve(degree=4, terms=1), Curve(degree=4, terms=2)
    first, second = random_theta(two).chunk(2)
    for nfe in (4, 5, 16):
        table = two.member(nfe).table(torch.cat([first, second]))
        expected = one.member(nfe).table(first + 4 / nfe * second)
        for part, other in zip(table, expected, strict=True):
            torch.testing.assert_close(part, other, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(("base", "order"), [("midpoint", 2), ("ab2", 2), ("kutta3", 3), ("rk4", 4)])
def test_smooth_curves_keep_the_order_of_the_base(base, order):
    """Free slopes and weights of differences keep order 2, which is what such bases have."""
    velocity = fs.models.random_mixture(2, 3, std=0.5)
    x0 = fs.noise(8, (2,), dtype=DOUBLE)
    exact = fs.reference.solve(velocity.field(), x0, rtol=1e-11, atol=1e-11).states[-1]
    curve = Curve(base, 4, free_slopes=order < 3)
    assert curve.differences == (4 if base == "ab2" else 0)
    theta = random_theta(curve, 0.2)

    def error(nfe):
        return (curve.solver(theta, nfe).sample(velocity, x0) - exact).norm()

    nfe = 128 if base == "ab2" else 16 * curve.stages
    assert float((error(nfe) / error(2 * nfe)).log2()) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("train", ["time", "scale"])
def test_the_ablations_fix_the_other_half(train):
    curve = Curve(degree=4, train=train, differences=0)
    r = torch.linspace(0, 1, 9, dtype=DOUBLE)
    t, dt, s, ds = curve.nodes(random_theta(curve), r, 8)
    if train == "time":
        assert bool((s == 1).all() and (ds == 0).all())
        assert not torch.equal(t, r)
    else:
        assert torch.equal(t, r)
        assert bool((dt == 1).all())
        assert bool((s[1:] != 1).all())


@pytest.mark.parametrize("base", ["ab2", "midpoint"])
def test_the_table_is_differentiable_in_theta_and_every_number_matters(base):
    member = Curve(base, 3).member(6)
    theta = random_theta(member)
    assert torch.autograd.gradcheck(lambda theta: tuple(member.table(theta)), theta.requires_grad_())
    jacobian = torch.autograd.functional.jacobian(
        lambda theta: torch.cat([part.flatten() for part in member.table(theta)]), theta
    )
    assert bool((jacobian.abs().amax(dim=0) > 1e-6).all())


def test_a_member_makes_exactly_its_calls(counted):
    network = counted(field)
    curve = Curve()
    for nfe in (1, 2, 3, 7, 32):
        network.times.clear()
        curve.solver(random_theta(curve), nfe).sample(network, fs.noise(2, (2,)))
        assert len(network.times) == nfe


def test_the_solver_file_tells_the_curve_and_theta(tmp_path):
    curve = Curve(degree=3)
    solver = curve.solver(random_theta(curve), 5)
    solver.save(tmp_path / "solver.json")
    family = dict(fs.Solver.load(tmp_path / "solver.json").family)
    assert family.pop("name") == "curve"
    theta = torch.tensor(family.pop("theta"), dtype=DOUBLE)
    assert Curve(**family).solver(theta, 5) == solver


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": "dpmpp_2m"}, "base must be one of euler, midpoint, .* ab4, not 'dpmpp_2m'"),
        ({"train": "all"}, "train must be 'both', 'time' or 'scale', not 'all'"),
        ({"degree": 0}, "degree must be a whole number of at least 1, not 0"),
        ({"terms": 1.5}, "terms must be a whole number of at least 1, not 1.5"),
        ({"differences": -1}, "differences must be a whole number of at least 0, not -1"),
        ({"base": "heun", "differences": 2}, "base 'heun' makes several calls a step, .* differences=0"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        Curve(**options)


@pytest.mark.parametrize("nfe", [0, 5, 2.0, True])
def test_a_number_of_calls_that_the_base_cannot_make_is_refused(nfe):
    with pytest.raises(
        ValueError, match="makes 2 calls a step, so nfe must be a positive multiple of 2, not"
    ):
        Curve("midpoint").member(nfe)
