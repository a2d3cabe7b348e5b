"""Smooth corrections to a classical solver, read off for any number of calls."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import SmoothCorrections, Timesteps
from fewstep.families.smooth_corrections import bernstein

DOUBLE = torch.float64


def random_theta(smooth, scale=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(smooth.size, dtype=DOUBLE, generator=generator)


@pytest.mark.parametrize("base", ["deis3/cosine", "ab2", "ddim", "unipc2/quadratic"])
def test_theta_zero_is_the_classical_solver_to_the_bit(base):
    smooth, schedule = SmoothCorrections(base), fs.schedules.CondOT()
    for nfe in (1, 2, 3, 4, 5, 9):
        start, plain = smooth.member(nfe).solver(), fs.classical.named(base, nfe).to("velocity", schedule)
        assert (start.times, start.C, start.D, start.points) == (
            plain.times,
            plain.C,
            plain.D,
            plain.points,
        )


@pytest.mark.parametrize("nfe", [2, 3, 6])
def test_a_table_is_the_classical_one_at_its_times_plus_what_the_formula_says(nfe):
    """Written out step by step, with differences by their recursion."""
    smooth = SmoothCorrections(degree=2, terms=1, differences=2, startup=3)
    theta = random_theta(smooth)
    m, tau, c, g, b = theta.split([2, 3, 3, 9, 6])
    h = 4 / nfe

    def function(p, r):
        return float((bernstein(2, torch.tensor([r], dtype=DOUBLE)) @ p)[0])

    bend = [function(torch.cat([m, m.new_zeros(1)]), (i + 0.5) / nfe) for i in range(nfe)]
    moves = torch.tensor([value - bend[-1] for value in bend[:-1]], dtype=DOUBLE)
    told = torch.tensor([h * function(tau, i / nfe) for i in range(nfe)], dtype=DOUBLE)
    start = Timesteps("deis3/cosine", nfe, decoupled=True).table(torch.cat([moves, told]))

    def nabla(k, i):
        """The coefficients of u_0, u_1, ... in the k-th difference at i."""
        if k == 0:
            return torch.eye(nfe, dtype=DOUBLE)[i]
        return nabla(k - 1, i) - nabla(k - 1, i - 1)

    table = smooth.member(nfe).table(theta)
    weights, first = iter(b.tolist()), {}
    for i in range(3):
        for j in range(i + 1):
            first[i, j] = next(weights)
    torch.testing.assert_close(table.times, start.times)
    for i in range(nfe):
        row = start.D[i].clone()
        for k in range(min(i, 2) + 1):
            row += h ** (2 - k) / nfe * function(g.reshape(3, 3)[k], i / nfe) * nabla(k, i)
        for j in range(i + 1):
            row[j] += h / nfe * first.get((i, j), 0.0)
        torch.testing.assert_close(table.D[i], row)
        own = start.C[i].clone()
        own[i] += h**2 / nfe * function(c, i / nfe)
        torch.testing.assert_close(table.C[i], own)


@pytest.mark.parametrize("base", ["deis3", "ab2"])
def test_smooth_corrections_keep_order_2_at_least(base):
    velocity = fs.models.random_mixture(2, 3, std=0.5)
    x0 = fs.noise(8, (2,), dtype=DOUBLE)
    exact = fs.reference.solve(velocity.field(), x0, rtol=1e-11, atol=1e-11).states[-1]
    smooth = SmoothCorrections(base)
    theta = random_theta(smooth)

    def error(nfe):
        return (smooth.solver(theta, nfe).sample(velocity, x0) - exact).norm()

    assert float((error(96) / error(192)).log2()) > 1.75


def test_the_terms_are_a_series_in_one_over_n():
    one, two = SmoothCorrections(degree=3, terms=1), SmoothCorrections(degree=3, terms=2)
    first, second = random_theta(two).chunk(2)
    for nfe in (3, 8):
        table = two.member(nfe).table(torch.cat([first, second]))
        expected = one.member(nfe).table(first + 4 / nfe * second)
        for part, other in zip(table, expected, strict=True):
            torch.testing.assert_close(part, other, rtol=1e-13, atol=1e-14)


def test_the_table_is_differentiable_and_every_number_matters():
    family = SmoothCorrections("ab2", degree=2, terms=1, differences=1, startup=2).member(6).own
    generator = torch.Generator().manual_seed(0)
    theta = 0.3 * torch.randn(family.size, dtype=DOUBLE, generator=generator)
    assert torch.autograd.gradcheck(lambda theta: tuple(family.table(theta)), theta.requires_grad_())
    jacobian = torch.autograd.functional.jacobian(
        lambda theta: torch.cat([part.flatten() for part in family.table(theta)]), theta
    )
    assert bool((jacobian.abs().amax(dim=0) > 1e-6).all())


def test_the_solver_file_tells_the_functions_at_its_number_of_calls(tmp_path):
    smooth = SmoothCorrections(schedule=fs.schedules.VP(), degree=2)
    solver = smooth.solver(random_theta(smooth), 5)
    solver.save(tmp_path / "solver.json")
    family = dict(fs.Solver.load(tmp_path / "solver.json").family)
    assert family.pop("name") == "smooth_corrections"
    theta = torch.tensor(family.pop("theta"), dtype=DOUBLE)
    assert SmoothCorrections.from_dict(family).solver(theta, 5) == solver


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"base": "euler/none"}, "none"),
        ({"base": "heun"}, "'heun' makes several calls a step, .* take 'deis3/cosine' or 'ab2'"),
        ({"degree": 0}, "degree must be a whole number from 1 to 100, not 0"),
        ({"terms": 1.5}, "terms must be a whole number from 1 to 100, not 1.5"),
        ({"differences": -1}, "differences must be a whole number from 0 to 100, not -1"),
        ({"startup": True}, "startup must be a whole number from 0 to 100, not True"),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        SmoothCorrections(**options).member(4)
