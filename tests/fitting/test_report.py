import json
from dataclasses import replace

import pytest

import fewstep as fs

REPORT = fs.FitReport(
    nfe=4,
    family="non_stationary",
    optimizer="gauss_newton",
    loss="rmse",
    parameters=17,
    pairs={"train": 12, "validation": 4},
    errors={"fitted": 0.01, "start": 0.02, "midpoint": 0.05, "euler": 0.1},
    calls={"reference": 1000, "fit": 2500, "baselines": 32},
    seconds={"reference": 1.0, "fit": 2.0, "baselines": 0.5},
    reference_error=1e-6,
    best_iteration=3,
    stopped="the training loss settled",
    curve=({"iteration": 0, "loss": 0.1, "validation": 0.02, "calls": 64},),
    notes=("mind the gap.",),
)


def test_the_best_classical_solver_is_neither_the_fit_nor_its_start():
    assert REPORT.best_classical == "midpoint"
    assert REPORT.ratio == pytest.approx(0.2)


def test_without_baselines_the_start_is_what_to_beat():
    report = replace(REPORT, errors={"fitted": 0.01, "start": 0.02})
    assert report.best_classical == "start"
    assert report.ratio == pytest.approx(0.5)


def test_text_says_errors_calls_seconds_and_notes():
    text = str(REPORT)
    for fact in (
        "RMSE 0.01, 0.20x midpoint (0.05)",
        "12 + 4 pairs",
        "3,500 network calls (1,000 reference + 2,500 fit)",
        "3.5 s",
        "fitted 0.01, start 0.02, midpoint 0.05, euler 0.1",
        "note: mind the gap.",
    ):
        assert fact in text


def test_to_dict_holds_every_field_and_survives_json():
    record = json.loads(json.dumps(REPORT.to_dict()))
    assert (
        fs.FitReport(**{**record, "curve": tuple(record["curve"]), "notes": tuple(record["notes"])}) == REPORT
    )


def test_to_dict_has_none_for_what_is_not_finite():
    report = replace(
        REPORT,
        errors={**REPORT.errors, "heun": float("inf")},
        reference_error=float("nan"),
        curve=({"iteration": 0, "loss": float("inf"), "validation": float("nan"), "calls": 0},),
    )
    record = report.to_dict()
    json.dumps(record, allow_nan=False)
    assert record["errors"]["heun"] is record["reference_error"] is record["curve"][0]["loss"] is None
    assert report.errors["heun"] == float("inf")


def test_notes_warn_of_few_validation_pairs_and_of_a_coarse_reference(bending):
    notes = " ".join(fs.fit(bending, 4, pairs=8, rtol=1e-2, atol=1e-2).report.notes)
    assert "validation rests on 2 pairs only" in notes
    assert "tighten rtol and atol" in notes


def test_a_note_says_when_the_start_was_returned():
    """Euler is exact for a constant velocity: nothing can be better."""
    field = fs.Field(lambda x, t: x * 0 + 1, shape=(3,))
    x0 = fs.noise(8, (3,)).double()
    fitted = fs.fit(field, 2, init="euler", pairs=fs.Pairs(x0, x0 + 1), loss="mse")
    assert fitted.report.best_iteration == 0
    assert "the start is returned" in " ".join(fitted.report.notes)
