"""Time grids: where they start, end and lie."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

import fewstep as fs
from fewstep import grids
from fewstep.classical._baselines import GRIDS
from fewstep.schedules import VE, VP, CondOT, Cosine


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE()], ids=repr)
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 50])
def test_grids_increase_from_exactly_0_to_exactly_1(schedule, name, steps):
    grid = GRIDS[name](steps, schedule)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert all(s < t for s, t in pairwise(grid))
    assert fs.classical.euler(grid=grid).point_times == grid


@pytest.mark.parametrize("schedule", [VE(10.0), VE(80.0, 0.02), VE(5.0, 0.1), VP(0.1, 5.0)], ids=repr)
@pytest.mark.parametrize("name", ["karras", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_grids_stay_inside_a_schedule_that_is_narrower_than_their_levels(schedule, name, steps):
    grid = GRIDS[name](steps, schedule)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (0.0, 1.0)
    assert all(s < t for s, t in pairwise(grid))


def test_a_schedule_that_ends_in_noise_is_crossed_in_equal_parts():
    """With EDM's own sigma_min the grid is EDM's, uniform in the time of VE with the same rho."""
    assert grids.karras(5, VE(80.0, 0.02), sigma_min=0.002) == pytest.approx(grids.uniform(5), abs=1e-9)


def test_uniform_and_cosine_by_hand():
    assert grids.uniform(4) == (0, 0.25, 0.5, 0.75, 1)
    assert grids.cosine(4) == pytest.approx([math.sin(math.pi * i / 8) ** 2 for i in range(5)], abs=1e-15)


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE()], ids=repr)
def test_karras_has_the_noise_levels_of_edm(schedule):
    """Karras et al. 2022, eq. 5, at the points between the first and the last."""
    grid = grids.karras(6, schedule, rho=5.0, sigma_min=0.01, sigma_max=50.0)
    for i, t in list(enumerate(grid))[1:-1]:
        alpha, sigma = schedule(t)[:2]
        level = (50 ** (1 / 5) + i / 5 * (0.01 ** (1 / 5) - 50 ** (1 / 5))) ** 5
        assert float(sigma / alpha) == pytest.approx(level, rel=1e-9)


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine()], ids=repr)
def test_log_snr_steps_are_equal(schedule):
    values = [float(schedule.log_snr(t)) for t in grids.log_snr(6, schedule)[1:-1]]
    steps = [b - a for a, b in pairwise(values)]
    assert steps == pytest.approx([math.log(80 / 0.002) / 5] * 4, rel=1e-9)
    assert values[-1] == pytest.approx(-math.log(0.002), rel=1e-9)


def test_an_explicit_list_is_used_as_it_is():
    times = [0.0, 0.1, 0.15, 0.7, 1]
    assert fs.classical.euler(grid=times).point_times == tuple(times)
    assert fs.classical.euler(4, grid=times).nfe == 4


def test_a_grid_may_stop_short_of_the_end():
    solver = fs.classical.euler(grid=[0.0, 0.5, 0.9])
    assert (solver.end, solver.point_times) == (0.9, (0.0, 0.5, 0.9))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "steps: give a number of steps, or grid="),
        ({"steps": 0}, "steps: must be a whole number from 1 to 10,000, not 0"),
        ({"steps": 2.5}, "steps: must be a whole number from 1 to 10,000, not 2.5"),
        ({"steps": True}, "steps: must be a whole number from 1 to 10,000, not True"),
        ({"grid": [0.0, 0.5, 0.5, 1.0]}, "grid: must increase strictly within"),
        ({"grid": [0.0, 0.6, 0.5, 1.0]}, "grid: must increase strictly within"),
        ({"grid": [0.0, math.nan, 1.0]}, "grid: must increase strictly within"),
        ({"grid": [-0.1, 1.0]}, r"grid: must increase strictly within \[0, 1\].*not \[-0.1, 1.0\]"),
        ({"grid": [0.0, 1.1]}, "grid: must increase strictly within"),
        ({"grid": [0.0]}, "with two times or more"),
        ({"steps": 3, "grid": [0.0, 1.0]}, "has 1 steps, but steps=3; give only one"),
    ],
)
def test_bad_grids_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        fs.classical.euler(**options)


def test_quadratic_is_that_of_ddim_and_dpm_solver():
    """The square root of the time to go falls linearly: ``linspace(1, 0, n + 1)^2`` in their direction."""
    assert grids.quadratic(4) == pytest.approx([1 - (k / 4) ** 2 for k in (4, 3, 2, 1, 0)], abs=1e-15)
