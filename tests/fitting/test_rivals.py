"""Where a fit starts: classical solvers by name, and the best of them on the training pairs."""

from __future__ import annotations

import math
from itertools import islice

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, Timesteps
from fewstep.fitting import Adam, GaussNewton, Reference
from fewstep.fitting._gauss_newton import Iterate
from fewstep.fitting._rivals import candidates, ranked, ranking_cost
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._starts import contest

ONE = GaussNewton(iterations=1)


@pytest.fixture
def pairs(bending):
    return fs.reference.pairs(bending, fs.noise(16, (3,)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", [ONE, Adam(3), GaussNewton(iterations=1, minibatch=4)], ids=str)
@pytest.mark.parametrize("family", ["non_stationary", "timesteps"])
def test_every_call_of_the_search_is_counted(bending, family, optimizer):
    fitted = fs.fit(bending, 3, family=family, init="auto", pairs=8, optimizer=optimizer)
    report = fitted.report
    assert set(report.calls) == {"reference", "search", "fit", "errors"}
    assert sum(report.calls.values()) == bending.model.seen
    assert f"{report.calls['search']:,} search" in str(report)
    assert "search" in report.seconds
    assert fitted.solver.protocol["calls"] == report.calls


def sampled(field, names, nfe, pairs):
    """Mean PSNR of solvers by name."""
    return {
        name: float(fs.metrics.psnr(candidates(nfe, field)[name].sample(field, pairs.x0), pairs.x1).mean())
        for name in names
    }


def test_the_ranking_is_that_of_samples_on_the_training_pairs(bending, pairs):
    rollout = Rollout(bending, 4096)
    order = ranked(rollout, 4, pairs[:12])
    first = sampled(bending, candidates(4, bending), 4, pairs[:8])
    best = sorted(first, key=lambda name: -first[name])[: -(-len(first) // 4)]
    assert sorted(order) == sorted(best)
    again = sampled(bending, best, 4, pairs[:12])
    assert again[order[0]] == pytest.approx(max(again.values()), abs=1e-3)
    assert [again[name] for name in order] == pytest.approx(sorted(again.values(), reverse=True), abs=1e-3)
    assert rollout.calls == 4 * (8 * len(first) + 12 * len(best)) <= ranking_cost(4, bending)


def test_at_most_32_pairs_are_ranked_on(bending):
    x0 = fs.noise(40, (3,))
    pairs, calls = fs.Pairs(x0, x0), []
    for count in (40, 32, 20):
        rollout = Rollout(bending, 4096)
        ranked(rollout, 2, pairs[:count])
        calls.append(rollout.calls)
    assert calls[0] == calls[1] > calls[2]


def test_one_step_is_no_start_where_only_times_are_free(bending, pairs):
    tried = ranked(Rollout(bending, 4096), 4, pairs[:8], steps=2)
    assert all(len(candidates(4, bending)[name].points) > 2 for name in tried)


class TestContest:
    """Starts whose losses are known in advance."""

    def runs(self, **losses):
        self.made = dict.fromkeys(losses, 0)

        def run(name):
            for k, loss in enumerate(losses[name]):
                self.made[name] += 1
                yield Iterate(torch.tensor([float(k)]), loss)

        return {name: run(name) for name in losses}

    def test_the_better_half_goes_on(self):
        slow, fast = [9, 8, 7, 3, 1, 0], [8, 6, 5, 4, 3, 2]
        all_losses = {"poor": [10] * 6, "slow": slow, "fast": fast, "poorer": [11] * 6}
        runs = self.runs(**all_losses)
        name, iterates, losses = contest(runs, Rollout(fs.Field(lambda x, t: x), 1))
        assert (name, losses) == ("slow", {"poor": 10, "slow": 1, "fast": 3, "poorer": 11})
        assert self.made == {"poor": 3, "slow": 5, "fast": 5, "poorer": 3}
        assert {name: [iterate.loss for iterate in rest] for name, rest in iterates.items()} == all_losses

    @pytest.mark.parametrize(("loss", "kept"), [(1.9, True), (2.1, False)])
    def test_the_loss_from_the_first_start_counts_half(self, loss, kept):
        runs = self.runs(first=[9, 9, loss], other=[8, 8, 1])
        assert contest(runs, Rollout(fs.Field(lambda x, t: x), 1))[0] == ("first" if kept else "other")

    def test_it_does_not_where_it_has_hardly_fallen(self):
        """Below nine tenths of the least loss of any start."""
        for fallen, kept in ((3.5, True), (3.7, False)):
            runs = self.runs(first=[9, 9, fallen], other=[4, 4, 2.5])
            assert contest(runs, Rollout(fs.Field(lambda x, t: x), 1))[0] == ("first" if kept else "other")

    def test_logarithms_are_compared_as_errors(self):
        losses = [0.0, 0.0, 2 * math.log(0.5)], [0.0, 0.0, 2 * math.log(0.3)]
        runs = self.runs(first=losses[0], other=losses[1])
        rollout = Rollout(fs.Field(lambda x, t: x), 1)
        name, _, sizes = contest(runs, rollout, logarithmic=True)
        assert (name, sizes) == ("first", pytest.approx({"first": 0.5, "other": 0.3}))

    def test_one_start_is_not_run_ahead(self):
        name, iterates, _ = contest(self.runs(only=[3, 2]), Rollout(fs.Field(lambda x, t: x), 1))
        assert (name, self.made) == ("only", {"only": 0})
        assert [iterate.loss for iterate in iterates["only"]] == [3, 2]

    def test_a_start_that_settles_has_its_last_loss(self):
        runs = self.runs(settled=[4], other=[5, 4.5, 4.4, 4.3])
        assert contest(runs, Rollout(fs.Field(lambda x, t: x), 1))[0] == "settled"

    def test_it_ends_with_its_share_of_the_calls(self):
        rollout = Rollout(fs.Field(lambda x, t: x), 1, limit=30)

        def run(name, loss):
            for _ in range(9):
                rollout.spend(4)
                self.made[name] += 1
                yield Iterate(torch.zeros(1), loss)

        self.made = {"a": 0, "b": 0, "c": 0}
        runs = {name: run(name, loss) for name, loss in (("a", 3), ("b", 2), ("c", 1))}
        name, iterates, _ = contest(runs, rollout)
        assert name == "a"
        assert self.made == {"a": 3, "b": 0, "c": 0}
        assert len(list(islice(iterates["a"], 5))) == 5


def test_solvers_that_the_field_cannot_be_sampled_with_are_no_start(counting):
    """Heun calls this noise prediction at t = 1, where it leaves the velocity undefined."""
    network = fs.models.random_mixture(4, 3, prediction="noise", schedule=fs.schedules.VP())
    field = fs.Field(counting(network), fs.schedules.VP(), "noise", shape=(4,))
    fitted = fs.fit(field, 4, pairs=8, optimizer=ONE)
    assert math.isfinite(fitted.report.errors[fitted.report.start])
    assert sum(fitted.report.calls.values()) == field.model.seen
    assert bool(fitted.solver.sample(field, fs.noise(3, (4,))).isfinite().all())


def test_a_budget_too_small_for_the_search_starts_from_the_default_and_says_so(bending, pairs):
    needed = ranking_cost(4, bending)
    least = pairs.calls + 3 * needed
    bending.model.seen = pairs.calls
    for spare in (-1, 0):
        report = fs.fit(bending, 4, pairs=pairs, max_calls=least + spare).report
        assert (report.calls["search"] > 0) == (spare == 0)
        assert bending.model.seen - report.calls["errors"] <= least + spare
        assert sum(report.calls.values()) == bending.model.seen
        bending.model.seen = pairs.calls
        if spare:
            assert f"no start was searched for, which takes {needed:,} network calls" in report.notes[0]
            assert report.start == "deis3/cosine"


def test_validation_chooses_between_the_winner_and_the_default(monkeypatch, bending, pairs):
    """A contest is a short fit, and may be misled."""
    alone = {init: fs.fit(bending, 4, pairs=pairs, init=init).report for init in ("deis3/cosine", "euler")}
    psnr = {init: report.curve[report.best_iteration]["validation_psnr"] for init, report in alone.items()}

    def misled(runs, rollout, *, logarithmic):
        return "euler", dict(runs), dict.fromkeys(runs, 1.0)

    monkeypatch.setattr("fewstep.fitting._starts.contest", misled)
    monkeypatch.setattr("fewstep.fitting._starts._tried", lambda *_: ["deis3/cosine", "euler"])
    assert fs.fit(bending, 4, pairs=pairs).report.start == max(psnr, key=psnr.get)


class TestNeverWorse:
    """A fit that no iterate of which beats the best classical solver returns that."""

    @pytest.fixture
    def spoilt(self, bending):
        """Training pairs whose targets are noise, and held-out pairs that are right."""
        pairs = fs.reference.pairs(bending, fs.noise(16, (3,)), rtol=1e-6, atol=1e-6)
        pairs.x1[:12] = fs.noise(12, (3,), seed=5)
        return pairs

    @pytest.mark.parametrize("options", [{}, {"init": "euler"}, {"family": "scale_time"}], ids=str)
    def test_the_best_classical_solver_is_returned(self, bending, spoilt, options):
        fit = fs.fit(bending, 4, pairs=spoilt, optimizer=GaussNewton(2), **options)
        errors = fit.report.errors
        best = min((name for name in errors if name != "fitted"), key=errors.get)
        assert errors["fitted"] == errors[best]
        assert fit.solver.name == best or errors[fit.report.start] == errors[best]
        own = (fit.sample(bending, spoilt.x0[12:]) - spoilt.x1[12:]).square().mean(1).sqrt().mean()
        assert float(own) == pytest.approx(errors["fitted"], rel=1e-5)
        assert any("is returned. Try more pairs" in note for note in fit.report.notes)

    def test_it_is_saved_and_loaded(self, bending, spoilt, tmp_path):
        fit = fs.fit(bending, 4, pairs=spoilt, init="euler", optimizer=GaussNewton(2))
        fit.save(tmp_path / "fit.json")
        loaded = fs.load(tmp_path / "fit.json")
        x0 = fs.noise(3, (3,))
        assert loaded.solver.name == fit.solver.name != "euler"
        assert torch.equal(loaded.sample(bending, x0), fit.sample(bending, x0))


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
