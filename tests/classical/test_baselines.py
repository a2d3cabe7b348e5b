"""The baselines: all with the calls asked for, all finite, all converging."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.classical import METHODS, baselines, named
from fewstep.classical._baselines import GRIDS
from fewstep.schedules import VE, VP, CondOT, Cosine


@pytest.mark.parametrize(
    ("schedule", "calls"),
    # Which solvers there are depends on the calls, and on whether the schedule begins in pure noise.
    [(CondOT(), range(2, 13)), (VP(), range(2, 13)), (Cosine(), (2, 7, 12)), (VE(), (2, 7, 12))],
    ids=repr,
)
def test_every_baseline_has_the_calls_asked_for(schedule, calls):
    for nfe in calls:
        found = baselines(nfe, schedule, tuple(GRIDS))
        assert {name: solver.nfe for name, solver in found.items()} == dict.fromkeys(found, nfe)
        assert {
            "euler",
            "ab4",
            "ddim",
            "dpmpp_2m",
            "dpmpp_3m",
            "euler/karras",
            "ddim/log_snr",
        } <= found.keys()
        assert ("midpoint" in found) == (nfe % 2 == 0)
        assert ("rk4" in found) == (nfe % 4 == 0)
        assert ("kutta3" in found) == (nfe % 3 == 0)
        assert {"unipc2", "unipc3", "deis2", "deis3", "ipndm", "lms"} <= found.keys()


@pytest.mark.parametrize(
    ("schedule", "odd"), [(CondOT(), False), (VP(), True), (Cosine(), False), (VE(), True)]
)
def test_2s_appears_where_its_calls_add_up(schedule, odd):
    for name in ("dpmpp_2s", "dpm_solver_2", "edm_heun"):
        assert (name in baselines(8, schedule)) == (not odd)
        assert (name in baselines(9, schedule)) == odd


@pytest.mark.parametrize(("schedule", "nfe"), [(CondOT(), 8), (VP(), 7), (VE(9.0, 0.1), 6)], ids=repr)
def test_3s_appears_where_its_calls_add_up(schedule, nfe):
    for calls in (nfe - 1, nfe, nfe + 1):
        found = baselines(calls, schedule)
        assert ("dpmpp_3s" in found) == ("dpm_solver_3" in found) == (calls == nfe)


@pytest.mark.parametrize("schedule", [CondOT(), Cosine()], ids=repr)
def test_more_calls_come_closer(schedule):
    field = fs.models.random_mixture(2, 3, std=0.5, schedule=schedule).field()
    x0 = fs.noise(16, (2,), dtype=torch.float64)
    exact = fs.reference.solve(field, x0, rtol=1e-8, atol=1e-8).states[-1]
    few, many = (
        {name: (s.sample(field, x0) - exact).norm() for name, s in baselines(n, schedule).items()}
        for n in (12, 48)
    )
    assert few.keys() == many.keys()
    assert all(many[name] < few[name] / 2.5 for name in few), (few, many)


@pytest.mark.parametrize("prediction", ["data", "v"])
@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE()], ids=repr)
def test_no_baseline_but_those_that_call_the_end_needs_more_than_the_prediction(schedule, prediction):
    field = fs.models.random_mixture(2, 3, schedule=schedule, prediction=prediction).field()
    x0 = fs.noise(4, (2,), dtype=torch.float64)
    for name, solver in baselines(8, schedule).items():
        if max(solver.times) < 1:
            assert bool(solver.sample(field, x0).isfinite().all()), name


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
def test_a_solver_by_name_is_the_one_among_the_baselines(schedule):
    for name, solver in baselines(8, schedule, ("uniform", "karras")).items():
        assert named(name, 8, schedule) == solver


@pytest.mark.parametrize(
    ("name", "nfe", "words"),
    [
        ("magic", 8, r"solver must be one of euler, .* not 'magic'"),
        ("euler/magic", 8, r"grid must be one of uniform, .* not 'magic'"),
        ("midpiont", 8, r"not 'midpiont' \(did you mean 'midpoint'\?\)\.$"),
        ("DPM++ 2M", 8, r"\(did you mean 'dpmpp_2m'\?\)"),
        ("euler/karas", 8, r"not 'karas' \(did you mean 'karras'\?\)\.$"),
        ("midpoint", 7, r"'midpoint' makes 2, 4, 6, \.\.\. calls under CondOT\(\), not 7; take 6 or 8\.$"),
        ("rk4", 1, r"makes 4, 8, 12, \.\.\. calls under CondOT\(\), not 1; take 4\.$"),
        ("heun", 1, r"makes 2, 3, 4, \.\.\. calls under CondOT\(\), not 1; take 2\.$"),
    ],
)
def test_a_name_that_makes_no_solver_is_an_error(name, nfe, words):
    with pytest.raises(ValueError, match=words):
        named(name, nfe)


@pytest.mark.parametrize("schedule", [CondOT(), VP()], ids=repr)
@pytest.mark.parametrize("name", METHODS)
def test_tables_are_differentiable_in_the_grid(name, schedule):
    """Autograd against central differences, along a random direction."""
    generator = torch.Generator().manual_seed(0)
    steps = next(s for s in (METHODS[name].steps(nfe, schedule) for nfe in (12, 13, 14)) if s)
    start = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 1.2
    direction = torch.rand(steps + 1, dtype=torch.float64, generator=generator) - 0.5
    direction[[0, -1]] = 0

    def numbers(size):
        table = METHODS[name].draft(start + size * direction, schedule).table
        return torch.cat([table.times, table.C.flatten(), table.D.flatten()])

    size = torch.zeros((), dtype=torch.float64, requires_grad=True)
    values = numbers(size)
    weights = torch.randn(len(values), dtype=torch.float64, generator=generator)
    (slope,) = torch.autograd.grad(weights @ values, size)
    h = 1e-6
    expected = (weights @ numbers(h) - weights @ numbers(-h)) / (2 * h)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-5)
    solver = METHODS[name].on(start + size * direction, schedule)
    assert not any(part.requires_grad for part in solver.table)
    assert solver == METHODS[name].on(start, schedule)


@pytest.mark.parametrize("nfe", [3, 7])
def test_heun_makes_an_odd_number_of_calls_by_a_last_step_of_euler(nfe):
    solver = named("heun", nfe)
    assert solver == fs.classical.heun(steps=(nfe + 1) // 2, euler_last=True)
    assert max(solver.times) < 1
    assert named("heun/karras", nfe, VP()).nfe == nfe
    assert not {"heun"} & baselines(nfe).keys()
