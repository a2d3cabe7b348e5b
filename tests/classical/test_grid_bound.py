"""The model-free bound of DMN, its weights and its minimum."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import fewstep as fs
from fewstep import grids
from fewstep.classical._grid_bound import _weights, bound
from fewstep.schedules import VE, VP, CondOT, Cosine


def points(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_weights_of_orders_1_and_2_in_closed_form():
    """``int e^l`` and ``int e^l (l - l_0) / h_0`` over a step, integrated by parts."""
    lambdas = points(-4.0, -1.0, 0.5, 4.0)
    w = _weights(lambdas, 2)
    assert float(w[0, 0]) == pytest.approx(math.exp(-1) - math.exp(-4), rel=1e-12)
    assert float(w[2, 2]) == pytest.approx(math.exp(4) - math.exp(0.5), rel=1e-12)
    slope = ((0.5 - -1 - 1) * math.exp(0.5) + math.exp(-1)) / 3.0  # int e^l (l + 1) / 3
    assert float(w[1, 0]) == pytest.approx(-slope, rel=1e-12)
    assert float(w[1, 1]) == pytest.approx(math.exp(0.5) - math.exp(-1) + slope, rel=1e-12)
    assert torch.count_nonzero(w).item() == 4


@pytest.mark.parametrize("order", [1, 2, 3])
def test_weights_integrate_polynomials_of_their_order(order):
    """``int e^l l^d`` by a trapezoid rule on a million points, for every step of full order."""
    lambdas = points(-4.3, -2.0, -1.1, 0.3, 1.9, 2.5, 4.6)
    w = _weights(lambdas, order)
    for s in range(order - 1, 6 - order + 1):
        grid = torch.linspace(float(lambdas[s]), float(lambdas[s + 1]), 1_000_001, dtype=torch.float64)
        for d in range(order):
            exact = torch.trapezoid(grid.exp() * grid**d, grid)
            assert float((w[s] * lambdas[:-1] ** d).sum()) == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


def test_the_multistep_weights_are_those_of_the_exponential_integrator():
    """A table of order 1, unrolled, over ``sigma_N``: DDIM in data predictions on the same points."""
    lambdas = points(-2.0, -0.5, 0.4, 2.0)
    schedule = VP()
    table = fs.classical.ddim(schedule=schedule, grid=schedule.inverse_log_snr(lambdas).tolist()).unroll()
    sigma_N = float(schedule(table.end).sigma)
    assert [d / sigma_N for d in table.D[-1]] == pytest.approx(
        _weights(lambdas, 1).sum(dim=0).tolist(), rel=1e-6
    )


def test_the_bound_of_few_steps_by_hand():
    """All of four steps count alone, each the norm of its weights times ``sigma^p / alpha``."""
    lambdas = points(-4.0, -1.5, 0.0, 1.0, 4.0)
    w = _weights(lambdas, 3)
    for power in (1.0, 2.0):
        error = [
            (1 + math.exp(2 * x)) ** (-power / 2) * math.sqrt(1 + math.exp(-2 * x)) for x in lambdas.tolist()
        ]
        total = sum(math.hypot(*(float(w[s, n]) * error[n] for n in range(4))) for s in range(4))
        assert float(bound(lambdas, 3, power)) == pytest.approx(total, rel=1e-12)


def test_later_steps_count_together():
    lambdas = torch.linspace(-4, 4, 7, dtype=torch.float64)
    error = (-lambdas[:-1]).exp()  # sigma / alpha
    wrong = _weights(lambdas, 2) * error
    alone = sum(float(wrong[s].norm()) for s in (0, 1, 2, 5))
    together = sum(abs(float(wrong[3, n] + wrong[4, n])) for n in range(6))
    assert float(bound(lambdas, 2, 1.0)) == pytest.approx(alone + together, rel=1e-12)


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE(), VE(80.0, 0.02)], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_dmn_makes_a_grid_on_every_schedule(schedule, steps):
    grid = grids.dmn(steps, schedule)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert all(s < t for s, t in pairwise(grid))


def test_dmn_of_two_steps_is_the_minimum_of_its_bound():
    """One free point, looked for on a fine grid."""
    first, last = -math.log(80), -math.log(0.01)
    candidates = torch.linspace(first + 0.1, last - 0.1, 901, dtype=torch.float64)
    values = [float(bound(points(first, x, last), 3, 2.0)) for x in candidates.tolist()]
    best = candidates[values.index(min(values))]
    found = CondOT().log_snr(grids.dmn(2, CondOT(), power=2.0)[1])
    assert float(found) == pytest.approx(float(best), abs=0.01)


def test_dmn_is_below_its_starts_and_at_rest():
    first, last = -math.log(80), -math.log(0.01)
    for steps in (4, 7):
        inner = CondOT().log_snr(torch.tensor(grids.dmn(steps)[1:-1], dtype=torch.float64)).tolist()
        found = float(bound(points(first, *inner, last)))
        assert found < 0.7 * float(bound(torch.linspace(first, last, steps + 1, dtype=torch.float64)))
        for i in range(len(inner)):
            for nudge in (-0.05, 0.05):
                moved = [x + nudge * (i == j) for j, x in enumerate(inner)]
                assert float(bound(points(first, *moved, last))) > found * (1 - 1e-3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 4}, "order must be 1, 2 or 3"),
        ({"sigma_min": 0.0}, "0 < sigma_min < sigma_max"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "0 < sigma_min < sigma_max"),
        ({"schedule": VE(10.0, 0.1), "sigma_min": 20.0}, "no levels between sigma_min=20"),
        ({"steps": 0}, "steps: must be a whole number"),
    ],
)
def test_bad_bounds_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        grids.dmn(**{"steps": 4, **options})
