"""One fit for every number of calls, and the file that keeps it."""

from __future__ import annotations

import json

import pytest
import torch
from fewstep.fitting._fit_curve import resolve_curve
from fewstep.fitting.joint import JointGaussNewton, Task

import fewstep as fs
from fewstep.families import Curve, SmoothCorrections
from fewstep.fitting import ENDPOINT_LOSSES
from fewstep.fitting._rollout import Rollout

SMALL = {
    "nfes": (3, 5),
    "curve": Curve(degree=2, terms=1, free_slopes=False, differences=1),
    "pairs": 8,
    "iterations": 3,
}


@pytest.fixture
def small(bending):
    return fs.fit_curve(bending, **SMALL)


def test_one_fit_improves_every_number_of_calls_fitted_or_not():
    """On noises that the fit never saw, down to half the base's error."""
    digits = fs.models.bundled("digits")
    fitted = fs.fit_curve(
        digits, (4, 8), curve=Curve(degree=3, terms=1, differences=2), pairs=12, iterations=5
    )
    fresh = fs.reference.pairs(digits, fs.noise(8, digits.shape, seed=77), rtol=1e-5, atol=1e-5)
    for nfe in (4, 5, 6, 7, 8, 10):
        error, base = (
            float(fs.metrics.rmse(solver.sample(digits, fresh.x0), fresh.x1))
            for solver in (fitted.solver(nfe), fs.classical.named("ab2", nfe))
        )
        assert error < (0.8 if nfe < 6 else 0.6) * base


def test_the_loss_is_the_mean_logarithm_of_the_rmse(bending, double_pairs):
    """Computed from samples, at the start and at the last iterate."""
    curve, pairs, nfes = SMALL["curve"], double_pairs(bending, 6), (2, 5)
    tasks = [Task(Rollout(bending, 64), curve.member(nfe), pairs) for nfe in nfes]
    iterates = list(JointGaussNewton(tasks, ENDPOINT_LOSSES["rmse"])(5))
    for iterate in (iterates[0], iterates[-1]):
        errors = [
            fs.metrics.rmse(curve.solver(iterate.theta, nfe).sample(bending, pairs.x0), pairs.x1)
            for nfe in nfes
        ]
        expected = float(torch.stack(errors).log().mean())
        assert iterate.loss == pytest.approx(expected, abs=1e-5)
    assert iterates[-1].loss < iterates[0].loss - 0.5


def test_the_normal_equations_hold_the_slope_of_the_loss(bending, double_pairs):
    """Twice g is the gradient, here by central differences of the loss."""
    curve, pairs = SMALL["curve"], double_pairs(bending, 6)
    tasks = [Task(Rollout(bending, 64), curve.member(nfe), pairs) for nfe in (2, 5)]
    joint = JointGaussNewton(tasks, ENDPOINT_LOSSES["rmse"], step=1e-6)
    theta = 0.1 * torch.ones(curve.size, dtype=torch.float64)
    slope = [
        (joint._loss(theta + 1e-5 * unit, joint.pairs) - joint._loss(theta - 1e-5 * unit, joint.pairs)) / 2e-5
        for unit in torch.eye(curve.size, dtype=torch.float64)
    ]
    _, g = joint._normal_equations(theta, joint.pairs)
    torch.testing.assert_close(2 * g, torch.tensor(slope, dtype=torch.float64), rtol=1e-3, atol=1e-5)


def test_the_calls_reported_are_those_that_the_network_saw(bending, small):
    assert sum(small.report.calls.values()) == bending.model.seen
    assert small.report.calls["errors"] == 2 * 2 * (3 + 4 + 5)


def test_max_calls_is_never_exceeded(bending):
    limit = 2000
    report = fs.fit_curve(bending, **{**SMALL, "iterations": 30}, max_calls=limit).report
    assert report.calls["reference"] + report.calls["fit"] <= limit
    assert report.stopped == "the budget of network calls was spent"


def test_the_report_lists_fitted_and_unfitted_numbers_of_calls(small, bending):
    report = small.report
    assert report.nfes == (3, 5)
    assert [row["nfe"] for row in report.errors] == [3, 4, 5]
    pairs = fs.reference.pairs(bending, fs.noise(8, (3,)), rtol=1e-6, atol=1e-6)[6:]
    for row in report.errors:
        for key, solver in (
            ("fitted", small.solver(row["nfe"])),
            ("start", fs.classical.named("ab2", row["nfe"])),
        ):
            error = fs.metrics.rmse(solver.sample(bending, pairs.x0), pairs.x1).mean()
            assert row[key] == pytest.approx(float(error), rel=1e-3, abs=1e-6)
    assert "4 calls* RMSE" in str(report)


def test_also_names_what_else_is_looked_at(bending):
    report = fs.fit_curve(bending, **SMALL, also=(7, 2)).report
    assert [row["nfe"] for row in report.errors] == [2, 3, 5, 7]


def test_every_bit_comes_back(small, tmp_path):
    small.save(tmp_path / "curve.json")
    loaded = fs.CurveFit.load(tmp_path / "curve.json")
    assert torch.equal(loaded.theta, small.theta)
    assert loaded.report == small.report
    for nfe in (3, 4, 5, 9):
        assert loaded.solver(nfe) == small.solver(nfe)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "curve.json").read_bytes()


def test_corrections_to_a_classical_solver_are_kept_too(bending, tmp_path):
    """By default they are fitted to DEIS, under the schedule of the field."""
    tiny = SmoothCorrections("deis2", bending.schedule, degree=1, terms=1, differences=0, startup=1)
    fitted = fs.fit_curve(bending, **{**SMALL, "curve": tiny})
    assert all(row["fitted"] < row["start"] for row in fitted.report.errors)
    fitted.save(tmp_path / "curve.json")
    loaded = fs.CurveFit.load(tmp_path / "curve.json")
    assert loaded.solver(4) == fitted.solver(4)
    assert resolve_curve(None, (4, 6), bending).describe() == SmoothCorrections(terms=2).describe()


def test_files_from_before_curves_had_names_are_read(small, tmp_path):
    path = tmp_path / "curve.json"
    small.save(path)
    content = json.loads(path.read_text())
    assert content["curve"].pop("name") == "curve"
    path.write_text(json.dumps(content))
    assert fs.CurveFit.load(path).solver(4) == small.solver(4)


def test_a_solver_of_the_curve_tells_what_it_was_fitted_for(small, bending):
    solver = small.solver(5)
    assert solver.fitted_for == bending.describe()
    assert solver.scores["validation_rmse"]["fitted"] == small.report.errors[-1]["fitted"]
    assert small.solver(11).scores is None


def test_fewer_calls_than_were_fitted_are_refused(small):
    with pytest.raises(ValueError, match=r"nfe=2 is below the least .* fitted, 3, .* that begin at 2"):
        small.solver(2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "fewstep.solver"}, "not a curve file; its 'format' must be 'fewstep.curve'"),
        ({"schema": 2}, "written with schema 2, .* reads schema 1; upgrade fewstep"),
        ({"more": 1}, "has unknown keys 'more'"),
        ({"theta": [0.0]}, r"theta: a curve of .* has \d+ numbers, not 1"),
        ({"theta": "zero"}, "curve.json: "),
        ({"theta": [float("nan")]}, "theta: must be finite numbers"),
        ({"curve": {"base": "none"}}, "base must be one of"),
        ({"curve": {"name": "bend"}}, "name must be one of curve, smooth_corrections, not 'bend'"),
        ({"report": {}}, "curve.json: "),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(small, tmp_path, change, words):
    path = tmp_path / "curve.json"
    small.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        fs.CurveFit.load(path)


def test_a_file_that_is_cut_off_or_missing_is_named(small, tmp_path):
    path = tmp_path / "curve.json"
    with pytest.raises(FileNotFoundError, match=r"no such curve file; CurveFit\.save"):
        fs.CurveFit.load(path)
    small.save(path)
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match="not complete JSON"):
        fs.CurveFit.load(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nfes": ()}, r"nfes must be different numbers of calls, at least one, not \(\)"),
        ({"nfes": (4, 4)}, r"nfes must be different .* not \(4, 4\)"),
        ({"nfes": 8}, "nfes must be different .* not 8"),
        ({"nfes": (4, 5), "curve": Curve("midpoint")}, "multiple of 2, not 5"),
        ({"curve": "midpoint"}, "'midpoint' makes several calls a step"),
        ({"curve": "rk45"}, "there is no solver 'rk45'"),
        ({"pairs": 3}, "at least 4 pairs"),
        ({"max_calls": 10}, "max_calls=10 is not enough"),
    ],
)
def test_bad_arguments_are_named(bending, options, words):
    with pytest.raises(ValueError, match=words):
        fs.fit_curve(bending, **{**SMALL, **options})
