from dataclasses import replace

import fewstep as fs
from fewstep.report import describe


def test_calls_times_and_coefficients_are_told():
    text = describe(fs.classical.midpoint(1))
    assert "midpoint: 2 network calls a sample, 1 steps with 1 stages" in text
    assert "+0.5000 u0" in text
    assert "+1.0000 u1" in text
    assert "reads velocity predictions" in text


def test_a_call_at_the_end_of_time_is_warned_of():
    assert "warning: it calls the network at t = 1" in describe(fs.classical.heun(2))
    assert "warning" not in describe(fs.classical.midpoint(2))


def test_huge_coefficients_are_warned_of():
    solver = replace(fs.classical.euler(1), D=((-31.5,),))
    assert "warning: its largest coefficient is 31.5" in describe(solver)


def test_origin_scores_and_citation_are_told():
    solver = replace(
        fs.classical.euler(2),
        family={"name": "non_stationary"},
        fitted_for={"model": "toy", "guidance": None},
        scores={"validation_rmse": {"euler": 0.5, "fitted": 0.01}},
        citation=("Somebody, 2024",),
    )
    text = describe(solver)
    assert "family: non_stationary" in text
    assert "fitted for: model toy" in text
    assert "guidance" not in text
    assert "validation RMSE: fitted 0.01, euler 0.5" in text
    assert "cite: Somebody, 2024" in text


def test_a_score_that_was_not_finite_comes_last():
    solver = replace(fs.classical.euler(1), scores={"validation_rmse": {"heun": None, "fitted": 0.01}})
    assert "fitted 0.01, heun inf" in describe(solver)


def test_a_table_for_other_predictions_names_its_schedule():
    text = describe(fs.classical.ddim(2, schedule=fs.schedules.Cosine()))
    assert "predictions under Cosine()" in text
