"""Searched time grids: the dynamic program, and what it finds on fields with known answers."""

from __future__ import annotations

import itertools
import math
from itertools import pairwise

import pytest
import torch

import fewstep as fs
from fewstep import grids
from fewstep.classical._grid_search import _best_path
from fewstep.schedules import VE, VP, CondOT, Cosine

SEARCHES = [grids.gits, grids.optimal_steps]
BY_NAME = dict(argvalues=SEARCHES, ids=["gits", "optimal_steps"])


@pytest.fixture
def accelerating():
    """``dx/dt = t^2``: every Euler error is known, and errors neither grow nor shrink."""
    return fs.Field(lambda x, t: t.reshape(-1, 1).square().expand_as(x), shape=(2,))


@pytest.mark.parametrize("coefficient", [1.0, 1.15, 0.5])
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8])
def test_the_dynamic_program_finds_the_best_of_all_paths(coefficient, steps):
    generator = torch.Generator().manual_seed(steps)
    cost = torch.rand(9, 9, dtype=torch.float64, generator=generator)
    allowed = torch.ones(9, 9).triu(1).bool()
    cost = torch.where(allowed, cost, torch.full_like(cost, math.inf))
    path, least = _best_path(steps, 9, lambda k, best, source: best[:, None] + coefficient**k * cost)

    def total(nodes):
        return sum(coefficient**k * float(cost[i, j]) for k, (i, j) in enumerate(pairwise(nodes)))

    every = [(0, *inner, 8) for inner in itertools.combinations(range(1, 8), steps - 1)]
    assert least == pytest.approx(min(map(total, every)), rel=1e-12)
    assert total(path) == pytest.approx(least, rel=1e-12)


@pytest.mark.parametrize("search", **BY_NAME)
@pytest.mark.parametrize(("steps", "best"), [(2, [2 / 3]), (3, [12 / 23, 18 / 23])])
def test_the_best_left_riemann_sum_of_a_parabola(accelerating, search, steps, best):
    """Where the derivative of ``sum (t_{i+1} - t_i) t_i^2`` in every inner time is zero."""
    found = search(accelerating, steps, noise=2, candidates=grids.uniform(276))
    assert found.grid[1:-1] == pytest.approx(best, abs=1 / 276)
    if search is grids.gits:
        exact = 1 / 3 - sum((t - s) * s**2 for s, t in pairwise([0, *best, 1]))
        assert found.cost == pytest.approx(exact, rel=1e-3)


def test_gits_is_the_best_of_all_grids_by_its_own_measure(linear_ode):
    """Costs worked out by hand from the exact flow, on every grid of three steps."""
    velocity, _ = linear_ode
    field, noise = fs.Field(velocity), fs.noise(3, (2,), seed=1, dtype=torch.float64)
    times, a = grids.uniform(8), -1.5
    p = [(math.sin(t) - a * math.cos(t)) / (1 + a**2) for t in times]
    exact = [(noise - p[0]) * math.exp(a * t) + p[i] for i, t in enumerate(times)]

    def cost(i, j):
        step = exact[i] + (times[j] - times[i]) * velocity(exact[i], torch.tensor(times[i]))
        return float((step - exact[j]).square().mean(dim=1).sqrt().mean())

    every = [(0, i, j, 8) for i, j in itertools.combinations(range(1, 8), 2)]
    totals = {path: sum(1.3**k * cost(i, j) for k, (i, j) in enumerate(pairwise(path))) for path in every}
    best = min(every, key=totals.__getitem__)
    found = grids.gits(field, 3, noise, coefficient=1.3, candidates=times, rtol=1e-9, atol=1e-9)
    assert found.grid == tuple(times[i] for i in best)
    assert found.cost == pytest.approx(totals[best], rel=1e-6)


@pytest.mark.parametrize("rule", ["euler", "ddim"])
def test_the_cost_of_optimal_steps_is_the_error_of_its_grid(rule):
    """Its states are those of the solver: the cost is the RMSE on the noises of the search."""
    field = fs.models.random_mixture(6, 3, schedule=Cosine()).field()
    x0 = fs.noise(16, (6,), seed=3, dtype=torch.float64)
    tight = {"rtol": 1e-7, "atol": 1e-7}
    found = grids.optimal_steps(field, 4, x0, rule=rule, candidates=grids.cosine(16), batch=5, **tight)
    make = {"euler": fs.classical.euler, "ddim": lambda grid: fs.classical.ddim(schedule=Cosine(), grid=grid)}
    row = fs.compare(field, [make[rule](grid=found.grid)], noise=x0, metrics=["rmse"], **tight).rows[0]
    assert found.cost == pytest.approx(row["rmse"], rel=1e-4)


@pytest.mark.parametrize("search", **BY_NAME)
def test_the_rules_are_one_on_straight_paths(search):
    field = fs.models.random_mixture(6, 3).field()
    euler, ddim = (search(field, 4, 8, rule=rule, candidates=grids.cosine(20)) for rule in ("euler", "ddim"))
    assert euler.grid == ddim.grid
    assert euler.cost == pytest.approx(ddim.cost, rel=1e-4)


@pytest.mark.parametrize("search", **BY_NAME)
@pytest.mark.parametrize("name", ["mixture", "digits"])
def test_searched_grids_beat_the_uniform_one_on_other_noises(search, name):
    field = fs.models.bundled(name)
    found = search(field, 8, noise=32, seed=0, candidates=grids.cosine(30))
    euler = {"uniform": fs.classical.euler(8), "searched": fs.classical.euler(grid=found.grid)}
    uniform, searched = fs.compare(field, euler, noise=64, seed=31337, rtol=1e-4, atol=1e-4).rows
    assert searched["rmse"] < 0.97 * uniform["rmse"]


@pytest.mark.parametrize("search", **BY_NAME)
@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE()], ids=repr)
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_searches_work_on_every_schedule(search, schedule, prediction):
    field = fs.models.random_mixture(4, 2, std=0.5, schedule=schedule, prediction=prediction).field()
    for rule in ("euler", "ddim"):
        found = search(field, 3, 4, rule=rule, candidates=grids.cosine(8), rtol=1e-3, atol=1e-3)
        assert len(found.grid) == 4
        assert (found.grid[0], found.grid[-1]) == (0.0, 1.0)
        assert set(found.grid) <= set(grids.cosine(8))
        assert math.isfinite(found.cost)


@pytest.mark.parametrize("search", **BY_NAME)
def test_every_network_call_is_counted_and_the_batch_does_not_matter(search, counted):
    network = counted(lambda x, t: torch.sin(3 * t).reshape(-1, 1) * x)
    field = fs.Field(network, shape=(3,))
    whole = search(field, 3, 6, candidates=grids.uniform(12), batch=6)
    assert whole.calls == sum(len(t) for t in network.times)
    parts = search(field, 3, 6, candidates=grids.uniform(12), batch=4)
    assert parts.grid == whole.grid
    assert parts.cost == pytest.approx(whole.cost, rel=1e-4)


PAIR = fs.Pairs(torch.zeros(1, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("search", **BY_NAME)
def test_conditions_go_with_their_noises(search):
    """Two samples in three have no velocity at all, so the third decides."""
    field = fs.Field(lambda x, t, speed: speed[:, None] * t.reshape(-1, 1).square(), shape=(1,))
    x0, speed = fs.noise(3, (1,)), torch.tensor([0.0, 0.0, 1.0])
    expected = search(field, 2, x0[2:], candidates=grids.uniform(30), per_sample={"speed": speed[2:]})
    pairs = fs.Pairs(x0, x0, per_sample={"speed": speed})
    for found in (
        search(field, 2, x0, candidates=grids.uniform(30), batch=2, per_sample={"speed": speed}),
        search(field, 2, pairs, candidates=grids.uniform(30), batch=2),
    ):
        assert found.grid == expected.grid == pytest.approx((0.0, 2 / 3, 1.0), abs=1e-9)
        assert found.cost == pytest.approx(expected.cost / 3, rel=1e-5)


@pytest.mark.parametrize("search", **BY_NAME)
def test_a_search_may_use_every_candidate_or_stop_short(accelerating, search):
    assert search(accelerating, 5, 2, candidates=grids.uniform(5)).grid == grids.uniform(5)
    assert search(accelerating, 1, 2).grid == (0.0, 1.0)
    assert search(accelerating, 2, 2, candidates=[0.0, 0.2, 0.6, 0.9]).grid == (0.0, 0.6, 0.9)


@pytest.mark.parametrize("search", **BY_NAME)
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "steps: must be a whole number"),
        ({"rule": "heun"}, "rule: must be 'euler' or 'ddim', not 'heun'"),
        ({"candidates": [0.1, 0.5, 0.7, 1.0]}, "must start at 0"),
        ({"candidates": [0.0, 0.5, 1.0]}, "more than steps=3, not 3 times"),
        ({"candidates": [0.0, 0.5, 0.4, 1.0]}, "must increase strictly"),
        ({"noise": PAIR, "conditions": {"label": 3}}, "but label came besides"),
        ({"per_sample": {"label": [1, 2, 3]}}, "label has 3 rows for 2 noises"),
    ],
)
def test_bad_searches_are_named(accelerating, search, options, words):
    with pytest.raises(ValueError, match=words):
        search(accelerating, **{"steps": 3, "noise": 2, **options})


def test_a_search_names_what_is_missing():
    with pytest.raises(ValueError, match="the field's shape is unknown"):
        grids.gits(fs.Field(lambda x, t: x), 3)
    with pytest.raises(ValueError, match="coefficient must be a positive number, not 0"):
        grids.gits(fs.Field(lambda x, t: x, shape=(1,)), 3, coefficient=0)
    flat = fs.Field(lambda x, t: x, fs.schedules.Polynomial(2.0), shape=(1,))
    with pytest.raises(ValueError, match=r"is undefined for .* at some of the candidates; pass rule='euler'"):
        grids.gits(flat, 3, 2, rule="ddim")
