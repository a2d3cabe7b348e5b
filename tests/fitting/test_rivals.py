"""Where a fit starts: classical solvers by name, and the best of them on the training pairs."""

from __future__ import annotations

import math

import pytest

import fewstep as fs
from fewstep.families import NonStationary, Timesteps
from fewstep.fitting import Adam, GaussNewton, Reference
from fewstep.fitting._rivals import best_classical
from fewstep.fitting._rollout import Rollout

ONE = GaussNewton(iterations=1)


@pytest.fixture
def pairs(bending):
    return fs.reference.pairs(bending, fs.noise(16, (3,)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["non_stationary", "timesteps"])
def test_every_call_of_the_search_is_counted(bending, family):
    fitted = fs.fit(bending, 3, family=family, init="auto", pairs=8, optimizer=ONE)
    report = fitted.report
    assert set(report.calls) == {"reference", "search", "fit", "errors"}
    assert sum(report.calls.values()) == bending.model.seen
    candidates = fs.classical.baselines(3, bending.schedule, list(fs.classical.GRIDS))
    steps = [len(solver.points) - 1 for solver in candidates.values()]
    tried = [n for n in steps if n > 1] if family == "timesteps" else steps
    assert report.calls["search"] == 3 * 6 * len(tried)
    assert f"{report.calls['search']:,} search" in str(report)
    assert "search" in report.seconds
    assert fitted.solver.protocol["calls"] == report.calls


def test_the_start_is_the_best_on_the_training_pairs_and_not_on_the_others(bending, pairs):
    fitted = fs.fit(bending, 4, init="auto", pairs=pairs, optimizer=ONE)
    best = fitted.solver.family["base"]
    train = pairs[:12]
    candidates = fs.classical.baselines(4, bending.schedule, list(fs.classical.GRIDS))
    psnr = {
        name: float(fs.metrics.psnr(solver.sample(bending, train.x0), train.x1).mean())
        for name, solver in candidates.items()
    }
    assert psnr[best] == pytest.approx(max(psnr.values()), abs=1e-3)
    note = f"the start is {best}, the best of {len(psnr)} classical solvers on 12 training pairs."
    assert note in fitted.report.notes


def test_no_more_than_32_pairs_are_searched_on(bending):
    x0 = fs.noise(40, (3,))
    pairs = fs.Pairs(x0, x0)
    for count, used in ((40, 32), (20, 20)):
        choice = best_classical(Rollout(bending, 4096), 2, pairs[:count])
        candidates = fs.classical.baselines(2, bending.schedule, list(fs.classical.GRIDS))
        assert choice.calls == 2 * used * len(candidates)


def test_solvers_that_the_field_cannot_be_sampled_with_are_no_start(counting):
    """Heun calls this noise prediction at t = 1, where it leaves the velocity undefined."""
    network = fs.models.random_mixture(4, 3, prediction="noise", schedule=fs.schedules.VP())
    field = fs.Field(counting(network), fs.schedules.VP(), "noise", shape=(4,))
    fitted = fs.fit(field, 4, init="auto", pairs=8, optimizer=ONE)
    assert math.isfinite(fitted.report.errors[fitted.report.start])
    assert sum(fitted.report.calls.values()) == field.model.seen
    assert bool(fitted.solver.sample(field, fs.noise(3, (4,))).isfinite().all())


def test_a_budget_too_small_for_the_search_starts_from_the_default_and_says_so(bending, pairs):
    least = pairs.calls + 4 * len(pairs)
    needed = best_classical(Rollout(bending, 4096), 4, pairs[:12]).calls
    bending.model.seen = pairs.calls
    for spare, searched in ((needed - 1, False), (needed, True)):
        report = fs.fit(bending, 4, init="auto", pairs=pairs, max_calls=least + spare).report
        assert report.calls["search"] == (needed if searched else 0)
        assert bending.model.seen - report.calls["errors"] <= least + spare
        assert sum(report.calls.values()) == bending.model.seen
        bending.model.seen = pairs.calls
        if not searched:
            assert f"no start was searched for, which takes {needed:,} network calls" in report.notes[0]
            assert f"of the {spare:,} that max_calls leaves" in report.notes[0]


def test_a_name_is_a_start_whose_coefficients_follow_its_times(bending, pairs):
    by_name = fs.fit(bending, 4, init="deis3/cosine", pairs=pairs, optimizer=GaussNewton(3)).solver
    family = NonStationary(Timesteps("deis3/cosine", 4, bending.schedule, decoupled=True))
    by_family = fs.fit(bending, 4, family=family, pairs=pairs, optimizer=GaussNewton(3)).solver
    assert (by_name.times, by_name.D) == (by_family.times, by_family.D)
    assert by_name.family["base"] == "deis3/cosine"


@pytest.mark.parametrize("name", ["digits", "mixture"])
@pytest.mark.parametrize("corrected", [False, True], ids=["timesteps", "non_stationary"])
def test_fits_on_known_flows_beat_their_start(name, corrected, mixture):
    """On noises never fitted on."""
    field = fs.models.bundled("digits") if name == "digits" else mixture
    fresh = fs.reference.pairs(field, fs.noise(64, field.shape, seed=77), rtol=1e-4, atol=1e-4)
    family = Timesteps("deis2", 4, field.schedule, decoupled=True)
    family = NonStationary(family) if corrected else family
    options = {"reference": Reference(1e-4, 1e-4), "optimizer": GaussNewton(6)}
    fitted = fs.fit(field, 4, family=family, pairs=24, **options)
    solvers = {"fitted": fitted.solver, "start": family.solver()}
    errors = {row["solver"]: row["rmse"] for row in fs.compare(field, solvers, noise=fresh).rows}
    assert errors["fitted"] < (0.5 if corrected else 0.8) * errors["start"]


def test_timesteps_are_fitted_by_adam_too(bending, pairs):
    options = {"optimizer": Adam(30), "init": "euler/quadratic"}
    report = fs.fit(bending, 4, family="timesteps", pairs=pairs, **options).report
    assert report.parameters == 3
    assert report.errors["fitted"] < report.errors["euler/quadratic"]
