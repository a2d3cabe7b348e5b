"""Where a fit starts: classical solvers by name, and the best of them on the training pairs."""

from __future__ import annotations

import math

import pytest
import torch

import fewstep as fs
from fewstep.families import NonStationary, Timesteps
from fewstep.fitting import Adam, GaussNewton, Reference
from fewstep.fitting._gauss_newton import Iterate
from fewstep.fitting._rivals import candidates, ranked, ranking_cost
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._starts import contest

pytestmark = pytest.mark.all_rivals

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
    first = sampled(bending, candidates(4, bending), 4, pairs[:4])
    best = sorted(first, key=lambda name: -first[name])[: -(-len(first) // 4)]
    assert sorted(order) == sorted(best)
    again = sampled(bending, best, 4, pairs[:12])
    assert again[order[0]] == pytest.approx(max(again.values()), abs=1e-3)
    assert [again[name] for name in order] == pytest.approx(sorted(again.values(), reverse=True), abs=1e-3)
    assert rollout.calls == 4 * (4 * len(first) + 12 * len(best)) <= ranking_cost(4, bending)


def test_at_most_16_pairs_are_ranked_on(bending):
    x0 = fs.noise(40, (3,))
    pairs, calls = fs.Pairs(x0, x0), []
    for count in (40, 16, 10):
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
        name, iterates, losses = contest(runs)
        assert (name, losses) == ("slow", {"poor": 10, "slow": 1, "fast": 3, "poorer": 11})
        assert self.made == {"poor": 3, "slow": 5, "fast": 5, "poorer": 3}
        assert [iterate.loss for iterate in iterates] == slow

    def test_one_start_is_not_run_ahead(self):
        name, iterates, _ = contest(self.runs(only=[3, 2]))
        assert (name, self.made) == ("only", {"only": 0})
        assert [iterate.loss for iterate in iterates] == [3, 2]

    def test_a_start_that_settles_has_its_last_loss(self):
        assert contest(self.runs(settled=[4], other=[5, 4.5, 4.4, 4.3]))[0] == "settled"

    def test_it_ends_with_the_calls(self):
        rollout = Rollout(fs.Field(lambda x, t: x), 1, limit=22)

        def run(name, loss):
            for _ in range(9):
                rollout.spend(4)
                self.made[name] += 1
                yield Iterate(torch.zeros(1), loss)

        self.made = {"a": 0, "b": 0, "c": 0}
        runs = {name: run(name, loss) for name, loss in (("a", 3), ("b", 2), ("c", 1))}
        name, iterates, losses = contest(runs)
        assert (name, losses) == ("b", {"a": 3, "b": 2, "c": math.inf})
        assert self.made == {"a": 3, "b": 2, "c": 0}
        assert len(list(iterates)) == 2


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


class TestOtherStarts:
    """They are tried where the default gains little, here: always, or never."""

    def others(self, report):
        return [note for note in report.notes if "gained little" in note]

    @pytest.mark.parametrize("init", ["euler", "midpoint"])
    def test_validation_chooses_between_them_and_the_default(self, monkeypatch, bending, pairs, init):
        alone = {name: fs.fit(bending, 4, pairs=pairs, init=name).report for name in ("deis3/cosine", init)}
        psnr = {
            name: report.curve[report.best_iteration]["validation_psnr"] for name, report in alone.items()
        }
        monkeypatch.setattr("fewstep.fitting._starts.LITTLE", math.inf)
        monkeypatch.setattr("fewstep.fitting._starts._tried", lambda *_: [init])
        report = fs.fit(bending, 4, pairs=pairs).report
        assert report.start == max(psnr, key=psnr.get)
        assert report.curve[report.best_iteration]["validation_psnr"] == pytest.approx(
            max(psnr.values()), abs=0.1
        )
        assert f"from {init} was finished, and validation chose" in self.others(report)[0]

    def test_three_are_begun_from_different_methods(self, monkeypatch, bending, pairs):
        monkeypatch.setattr("fewstep.fitting._starts.LITTLE", math.inf)
        (note,) = self.others(fs.fit(bending, 4, pairs=pairs).report)
        tried = [part.split(" to ")[0] for part in note.split("loss: ")[1].split(")")[0].split(", ")]
        assert len({name.split("/")[0] for name in tried}) > 1
        assert any(len(candidates(4, bending)[name].points) <= 4 for name in tried)

    def test_none_is_where_the_default_gains_enough(self, bending, pairs):
        report = fs.fit(bending, 4, pairs=pairs).report
        assert report.errors["fitted"] < 0.5 * report.errors[report.rival]
        assert not self.others(report)

    @pytest.mark.parametrize("spare", [0, 300, 3000])
    def test_a_budget_that_ends_there_is_kept(self, monkeypatch, bending, pairs, spare):
        monkeypatch.setattr("fewstep.fitting._starts.LITTLE", math.inf)
        least = pairs.calls + 3 * ranking_cost(4, bending)
        bending.model.seen = pairs.calls
        report = fs.fit(bending, 4, pairs=pairs, max_calls=least + spare).report
        assert bending.model.seen - report.calls["errors"] <= least + spare
        assert sum(report.calls.values()) == bending.model.seen
        (note,) = self.others(report)
        if not spare:
            assert "no network calls were left for fits from other starts" in note


def test_one_noise_that_falls_to_another_mode_is_no_reason_to_drop_a_fit():
    """With it the mean error of 8 validation pairs is above that of a classical solver."""
    field = fs.models.random_mixture(2, 4, std=0.1).field("four modes")
    pairs = fs.reference.pairs(field, fs.noise(32, (2,)), rtol=1e-5, atol=1e-5)
    many = fs.noise(2048, (2,), seed=1)
    fit, rival = fs.fit(field, 4, pairs=pairs), fs.classical.named("ab2", 4, field.schedule)
    ends = [solver.sample(field, many) for solver in (fit.solver, rival)]
    farthest = (ends[0] - ends[1]).square().sum(1).argmax()
    pairs.x0[31], pairs.x1[31] = many[farthest], ends[1][farthest]
    report = fs.fit(field, 4, pairs=pairs).report
    assert report.errors["fitted"] > report.errors["ab2"]
    assert report.rows[0]["outdone_by"] is None
    assert report.last_steps == 2
    assert any("a few noises decide" in note for note in report.notes)


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
        if fit.solver.name == best:
            row = fit.report.rows[0]
            assert (row["typical"], row["left"], row["by_chance"], row["outdone_by"]) == (1, None, None, None)

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
