"""Parameters that are polynomials in the logarithm of the guidance scale."""

from __future__ import annotations

import math

import pytest
import torch

import fewstep as fs
from fewstep.families import Guided, NonStationary, SmoothCorrections, Timesteps

DOUBLE = torch.float64


@pytest.fixture
def solvers():
    return NonStationary(Timesteps("ab2", 3, fs.schedules.VP(), decoupled=True))


def random_theta(family, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(family.size, dtype=DOUBLE, generator=generator)


def test_the_basis_is_that_of_chebyshev_in_the_logarithm(solvers):
    guided = Guided(solvers, 1, 9, terms=4)
    for w, v in ((1, -1.0), (3, 0.0), (9, 1.0), (3**1.5, 0.5)):
        expected = torch.tensor([1, v, 2 * v**2 - 1, 4 * v**3 - 3 * v], dtype=DOUBLE)
        torch.testing.assert_close(guided.basis(w), expected, rtol=1e-12, atol=1e-12)


def test_as_many_terms_as_scales_pass_through_any_parameters(solvers):
    """Theta solved for from three thetas given at three scales."""
    guided, scales = Guided(solvers, 1, 5, terms=3), (1, 2, 5)
    given = [random_theta(solvers, seed) for seed in range(3)]
    links = torch.cat([guided.member(guidance=w).link for w in scales])
    theta = torch.linalg.solve(links, torch.cat(given))
    for w, own in zip(scales, given, strict=True):
        for part, other in zip(guided.member(guidance=w).table(theta), solvers.table(own), strict=True):
            torch.testing.assert_close(part, other, rtol=1e-10, atol=1e-10)


def test_between_scales_a_quadratic_of_the_logarithm_is_read(solvers):
    guided = Guided(solvers, 1, 5, terms=3)
    p = [random_theta(solvers, seed) for seed in range(3)]

    def own(w):
        return p[0] + math.log(w) * p[1] + math.log(w) ** 2 * p[2]

    links = torch.cat([guided.member(guidance=w).link for w in (1, 2.5, 5)])
    theta = torch.linalg.solve(links, torch.cat([own(w) for w in (1, 2.5, 5)]))
    for w in (1.3, 2, 4.4):
        torch.testing.assert_close(guided.member(guidance=w).link @ theta, own(w), rtol=1e-10, atol=1e-12)


def test_a_curve_is_read_at_both_the_number_of_calls_and_the_scale():
    curve = SmoothCorrections("ab2", degree=2, terms=2)
    guided = Guided(curve, 1, 4, terms=2)
    theta = random_theta(guided)
    first, second = theta.chunk(2)
    for w, v in ((1, -1), (2, 0), (4, 1)):
        expected = curve.solver(first + v * second, 5)
        torch.testing.assert_close(guided.member(5, w).table(theta).D, expected.table.D)
    assert guided.nfe is None


def test_one_scale_is_the_family_itself(solvers):
    guided = Guided(solvers, 3, 3, terms=1)
    assert torch.equal(guided.member(guidance=3).link, torch.eye(solvers.size, dtype=DOUBLE))


@pytest.mark.parametrize("curve", [SmoothCorrections(schedule=fs.schedules.VP()), None])
def test_what_it_describes_makes_it_again(curve, solvers):
    guided = Guided(curve or solvers, 1, 4, terms=2)
    again, theta = Guided.from_dict(guided.describe()), random_theta(guided)
    nfe = None if curve is None else 4
    assert again.member(nfe, 1.7).solver(theta) == guided.member(nfe, 1.7).solver(theta)
    assert again.describe() == guided.describe()


def test_bad_arguments_are_named(solvers):
    for options, words in (
        ({"low": 0, "high": 2}, "must be positive numbers, the least first, not 0 and 2"),
        ({"low": 3, "high": 2}, "the least first, not 3 and 2"),
        ({"low": 1, "high": 2, "terms": 0}, "terms must be a whole number of at least 1, not 0"),
        ({"low": 2, "high": 2}, "the one guidance scale 2 leaves terms=1, not 2"),
    ):
        with pytest.raises(ValueError, match=words):
            Guided(solvers, **options)
    guided = Guided(solvers, 1, 5)
    for scale in (0.99, 5.01, math.nan):
        with pytest.raises(ValueError, match=r"outside the scales fitted, 1 to 5.*fit with scales that incl"):
            guided.member(guidance=scale)
    with pytest.raises(ValueError, match="make 3 calls, not nfe=4"):
        guided.member(4, 2)
    with pytest.raises(ValueError, match="any number of calls; say which, as nfe=8"):
        Guided(SmoothCorrections(), 1, 2).member(guidance=1.5)
    with pytest.raises(ValueError, match="only corrections to a classical solver's own times"):
        Guided(NonStationary(fs.classical.euler(2)), 1, 2).describe()
