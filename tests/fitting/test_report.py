import json
import math
from dataclasses import replace

import pytest

import fewstep as fs
from fewstep.fitting import GaussNewton, Reference

REPORT = fs.FitReport(
    family="non_stationary",
    start="ab2",
    optimizer="gauss_newton",
    loss="rmse",
    parameters=17,
    pairs={"train": 12, "validation": 4},
    rows=(
        {
            "nfe": 4,
            "guidance": None,
            "model": None,
            "trained": True,
            "errors": {"fitted": 0.01, "ab2": 0.06, "midpoint": 0.05, "euler": 0.1},
            "typical": 0.15,
            "left": 0.09,
            "by_chance": 0.02,
        },
    ),
    calls={"reference": 1000, "fit": 2500, "errors": 32},
    seconds={"reference": 1.0, "fit": 2.0, "errors": 0.5},
    reference_error=1e-6,
    best_iteration=3,
    stopped="the training loss settled",
    curve=({"iteration": 0, "loss": 0.1, "validation": 0.02, "calls": 64},),
    notes=("mind the gap.",),
)


def with_errors(**errors):
    return replace(REPORT, rows=({**REPORT.rows[0], "errors": errors},))


def row(nfe, trained=True, guidance=None, model=None, **errors):
    return {
        **REPORT.rows[0],
        "nfe": nfe,
        "guidance": guidance,
        "model": model,
        "trained": trained,
        "errors": errors,
    }


def test_the_rival_is_the_best_of_all_others_the_start_included():
    assert REPORT.rival == "midpoint"
    assert REPORT.ratio == pytest.approx(0.2)
    report = with_errors(**{**REPORT.errors, "ab2": 0.02})
    assert report.rival == "ab2"
    assert report.ratio == pytest.approx(0.5)


def test_a_fit_that_is_worse_than_the_best_classical_solver_has_a_ratio_above_one():
    assert with_errors(fitted=0.03, ab2=0.03, midpoint=0.02).ratio == pytest.approx(1.5)


def test_several_tasks_have_rows_and_no_errors_of_their_own():
    rows = (
        row(3, guidance=1.0, fitted=0.01, ab2=0.04),
        row(4, guidance=1.5, trained=False, fitted=0.02, ab2=0.04, model="one"),
    )
    report = replace(REPORT, rows=rows)
    text = str(report)
    assert "3 calls at guidance 1: RMSE 0.01, 0.25x ab2 (0.04)" in text
    assert "4 calls at guidance 1.5 of one*: RMSE 0.02, 0.50x ab2 (0.04)" in text
    assert "* not fitted, only validated" in text
    assert "* not fitted" not in str(REPORT)
    for name in ("errors", "rival", "ratio"):
        with pytest.raises(ValueError, match=r"this fit has 2 tasks; read the errors in report\.rows"):
            getattr(report, name)
    assert report.facts(4, 1.5)["scores"]["validation_rmse"] == {"fitted": 0.02, "ab2": 0.04}
    assert report.facts(4, 1.0)["scores"] is None
    assert report.facts(3, 1.0)["protocol"]["optimizer"] == "gauss_newton"


def test_text_says_errors_calls_seconds_and_notes():
    text = str(REPORT)
    for fact in (
        "RMSE 0.01, 0.20x midpoint (0.05), 0.15x for the typical noise, at most 9% left to the last row",
        "12 + 4 pairs",
        "3,500 network calls (1,000 reference + 2,500 fit)",
        "3.5 s",
        "non_stationary from ab2, 17 parameters",
        "fitted 0.01, midpoint 0.05, ab2 0.06, euler 0.1",
        "note: mind the gap.",
        "the fit is better on validation than all 3 others",
    ):
        assert fact in text
    assert "is better on validation" not in str(with_errors(fitted=0.02, midpoint=0.02))


def test_to_dict_holds_every_field_and_survives_json():
    assert fs.FitReport.from_dict(json.loads(json.dumps(REPORT.to_dict()))) == REPORT


def test_to_dict_has_none_for_what_is_not_finite():
    report = replace(
        with_errors(**REPORT.errors, heun=math.inf),
        reference_error=math.nan,
        curve=({"iteration": 0, "loss": math.inf, "validation": math.nan, "calls": 0},),
    )
    record = report.to_dict()
    json.dumps(record, allow_nan=False)
    assert (
        record["rows"][0]["errors"]["heun"] is record["reference_error"] is record["curve"][0]["loss"] is None
    )
    assert report.errors["heun"] == math.inf
    again = fs.FitReport.from_dict(record)
    assert again.errors == report.errors
    assert math.isnan(again.reference_error)


def test_notes_warn_of_few_validation_pairs_and_of_a_coarse_reference(bending):
    notes = " ".join(fs.fit(bending, 4, pairs=8, reference=Reference(1e-2, 1e-2)).report.notes)
    assert "validation rests on 2 pairs only" in notes
    assert "tighten rtol and atol" in notes


def test_a_note_says_when_the_start_was_returned():
    """Euler is exact for a constant velocity: nothing can be better."""
    field = fs.Field(lambda x, t: x * 0 + 1, shape=(3,))
    x0 = fs.noise(8, (3,)).double()
    fitted = fs.fit(field, 2, init="euler", pairs=fs.Pairs(x0, x0 + 1), loss="mse")
    assert fitted.report.best_iteration == 0
    assert "the start is returned" in " ".join(fitted.report.notes)


def test_the_ratio_is_against_the_start_where_that_is_best():
    """DEIS on the cosine grid is better for the digits than any classical solver on the uniform one."""
    digits = fs.models.bundled("digits")
    report = fs.fit(digits, 8, pairs=8, optimizer=GaussNewton(1)).report
    errors = report.errors
    assert report.start == report.rival == "deis3/cosine"
    assert set(fs.classical.baselines(8)) | {"fitted", "deis3/cosine"} <= set(errors)
    uniform = min(errors[name] for name in fs.classical.baselines(8))
    assert errors["deis3/cosine"] < 0.9 * uniform
    assert report.ratio == errors["fitted"] / errors["deis3/cosine"] > errors["fitted"] / uniform
    assert f"{report.ratio:.2f}x deis3/cosine" in str(report)


def test_a_start_that_shares_the_name_of_a_classical_solver_hides_none(rmse, held_out, bending):
    """Euler on another grid is called euler, too; and a solver may be called anything."""
    uniform = fs.fit(bending, 4, init="euler", pairs=8, optimizer=GaussNewton(3)).report.errors["euler"]
    slow = fs.classical.euler(grid=fs.grids.quadratic(4))
    for name in ("euler", "fitted"):
        start = fs.Solver(slow.times, slow.C, slow.D, points=slow.points, end=slow.end, name=name)
        report = fs.fit(bending, 4, init=start, pairs=8, optimizer=GaussNewton(3)).report
        assert report.errors["euler"] == pytest.approx(uniform, rel=1e-4)
        error = rmse(slow, bending, held_out(bending))
        assert report.errors[report.start] == pytest.approx(error, rel=1e-4)
        assert report.errors["fitted"] <= report.curve[report.best_iteration]["validation"]
