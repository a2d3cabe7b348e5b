"""Fits of several numbers of calls, which share one theta, and what one of their solvers tells."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import SmoothCorrections
from fewstep.fitting import Features, GaussNewton

FEW = {"pairs": 8, "optimizer": GaussNewton(3, last_steps=0)}
CURVE = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)
TINY = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)
MANY = {"nfe": (3, 5), "family": CURVE, **FEW}
SCALES = {"nfe": 2, "guidance": (1, 2, 4), **FEW}


def test_one_fit_improves_every_number_of_calls_fitted_or_not(rmse, fresh):
    """On noises that the fit never saw, down to half the base's error."""
    digits = fs.models.bundled("digits")
    curve = SmoothCorrections("ab2", degree=3, terms=1, differences=2)
    fitted = fs.fit(digits, (4, 8), family=curve, pairs=12, optimizer=GaussNewton(5))
    pairs = fresh(digits, 8)
    for nfe in (4, 5, 6, 7, 8, 10):
        error, base = (
            rmse(solver, digits, pairs) for solver in (fitted.at(nfe), fs.classical.named("ab2", nfe))
        )
        assert error < (0.8 if nfe < 6 else 0.6) * base


@pytest.mark.parametrize("optimizer", [GaussNewton(3), GaussNewton(6, minibatch=3)], ids=str)
def test_the_calls_reported_are_those_that_the_network_saw(bending, optimizer):
    report = fs.fit(bending, **{**MANY, "optimizer": optimizer}).report
    assert sum(report.calls.values()) == bending.model.seen
    assert set(report.calls) == {"reference", "fit", "errors"}
    # The fitted solvers, their starts and all classical ones on two pairs, midway numbers of calls included.
    rivals = {nfe: len(fs.classical.baselines(nfe)) for nfe in (3, 4, 5)}
    assert report.calls["errors"] == sum(2 * nfe * (2 + count) for nfe, count in rivals.items())


def test_max_calls_is_never_exceeded(bending):
    report = fs.fit(bending, **{**MANY, "optimizer": "gauss_newton"}, max_calls=2000).report
    assert report.calls["reference"] + report.calls["fit"] <= 2000
    assert report.stopped == "the budget of network calls was spent"


def test_the_report_lists_fitted_and_unfitted_numbers_of_calls(rmse, held_out, bending):
    fitted = fs.fit(bending, **MANY)
    report, pairs = fitted.report, held_out(bending)
    assert [(row["nfe"], row["trained"]) for row in report.rows] == [(3, True), (4, False), (5, True)]
    assert report.start == "ab2"
    for row in report.rows:
        assert {"fitted", *fs.classical.baselines(row["nfe"])} == set(row["errors"])
        solvers = {"fitted": fitted.at(row["nfe"]), "ab2": fs.classical.named("ab2", row["nfe"])}
        for name, solver in solvers.items():
            assert row["errors"][name] == pytest.approx(rmse(solver, bending, pairs), rel=1e-3, abs=1e-6)
    assert "4 calls*: RMSE" in str(report)
    assert "* not fitted, only validated" in str(report)


def test_the_iterate_chosen_is_best_over_all_tasks(held_out, bending):
    """The validation PSNR is that of the midway numbers, too."""
    fitted = fs.fit(bending, **MANY)
    pairs, report = held_out(bending), fitted.report
    quality = [entry["validation_psnr"] for entry in report.curve]
    assert report.best_iteration == quality.index(max(quality))
    psnr = [fs.metrics.psnr(fitted.at(nfe).sample(bending, pairs.x0), pairs.x1).mean() for nfe in (3, 4, 5)]
    assert max(quality) == pytest.approx(float(torch.stack(psnr).mean()), abs=0.05)


def test_by_default_corrections_to_deis_are_fitted(bending):
    fitted = fs.fit(bending, (5, 3), **FEW)
    assert (
        fitted.solvers.describe() == SmoothCorrections("deis3/cosine", bending.schedule, terms=2).describe()
    )
    assert fitted.report.start == "deis3/cosine"
    assert all(row["errors"]["fitted"] < row["errors"]["deis3/cosine"] for row in fitted.report.rows)
    assert fs.fit(bending, (3, 5), init="ab2", **FEW).report.start == "ab2"


def test_one_number_of_calls_may_be_on_a_curve(bending):
    fitted = fs.fit(bending, 4, family=TINY, **FEW)
    assert fitted.solver == fitted.at(4)
    assert fitted.report.ratio < 1
    assert set(fs.classical.baselines(4)) < set(fitted.report.errors)
    assert fitted.at(6).nfe == 6


def test_losses_of_features_are_shared_too(bending):
    loss = Features(lambda x: x[:, :2].sin())
    report = fs.fit(bending, **MANY, loss=loss).report
    assert report.feature_calls > 0
    assert report.curve[-1]["loss"] < report.curve[0]["loss"] - 0.1


def test_fit_solver_says_that_there_are_several(bending, guided):
    for fitted, words in (
        (fs.fit(bending, **MANY), r"one solver for each of nfe=3, nfe=5; take one with fit\.at\(nfe="),
        (fs.fit(guided, **SCALES), "one solver for each of nfe=2 guidance=1, nfe=2 guidance=2, nfe=2 guid"),
    ):
        for call in (lambda f: f.solver, lambda f: f.nfe, lambda f: f.sample(bending, fs.noise(2, (3,)))):
            with pytest.raises(ValueError, match=words):
                call(fitted)


def test_places_that_no_solver_was_fitted_for_are_refused(bending, guided):
    curve, scales, one = fs.fit(bending, **MANY), fs.fit(guided, **SCALES), fs.fit(bending, 4, **FEW)
    for call, words in (
        (lambda: curve.at(2), r"nfe=2 is below the least number of calls fitted, 3, .* that begin at 2"),
        (lambda: curve.at(), "any number of calls; say which, as nfe=8"),
        (
            lambda: curve.at(4, 2),
            r"guidance=2, but this fit is for the scale 1; fit guidance=\(1, 2\) for both",
        ),
        (lambda: scales.at(), "serve the guidance scales 1 to 4; say which, as guidance=1"),
        (lambda: scales.at(guidance=5), "guidance=5 is outside the scales fitted, 1 to 4"),
        (lambda: scales.at(3, 2), "make 2 calls, not nfe=3"),
        (lambda: one.at(5), r"nfe=5, but this fit has one solver, of 4 calls; fit nfe=\(4, 5\) for both"),
        (lambda: one.at(4, 2), "guidance=2, but this fit is for the scale 1"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert one.at(4) == one.at() == one.solver


def test_a_solver_tells_its_place_and_its_score(bending, guided):
    curve, scales = fs.fit(bending, **MANY), fs.fit(guided, **SCALES)
    assert curve.at(5).fitted_for == bending.describe()
    assert curve.at(5).scores["validation_rmse"] == curve.report.rows[-1]["errors"]
    assert curve.at(11).scores is None
    assert scales.at(guidance=2).fitted_for == guided.with_guidance(2).describe()
    assert scales.at(guidance=2).scores["validation_rmse"] == scales.report.rows[2]["errors"]
    assert scales.at(guidance=2.2).scores is None
