from dataclasses import replace

import pytest

import fewstep as fs
from fewstep.report import describe, warnings


def test_calls_times_and_coefficients_are_told():
    text = describe(fs.classical.midpoint(1))
    assert "midpoint: 2 network calls a sample, 1 step with 1 stage" in text
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
        scores={"validation_rmse": {"euler": 0.5, "fitted": 0.01}, "typical": 0.03, "left": 0.09},
        citation=("Somebody, 2024",),
    )
    text = describe(solver)
    assert "family: non_stationary" in text
    assert "fitted for: model toy" in text
    assert "guidance" not in text
    assert "validation RMSE: fitted 0.01, euler 0.5\n" in text
    assert "  against the best other: 0.03x for the typical noise, at most 9% left to the last row" in text
    assert "cite: Somebody, 2024" in text


def test_a_score_that_was_not_finite_comes_last():
    solver = replace(fs.classical.euler(1), scores={"validation_rmse": {"heun": None, "fitted": 0.01}})
    assert "fitted 0.01, heun inf" in describe(solver)


def test_a_table_for_other_predictions_names_its_schedule():
    text = describe(fs.classical.ddim(2, schedule=fs.schedules.Cosine()))
    assert "predictions under Cosine()" in text


def test_lines_fit_a_screen():
    solvers = [
        fs.classical.euler(16).unroll(),
        fs.classical.rk4(2),
        fs.classical.dpmpp("2M", 4, schedule=fs.schedules.VP()),
        replace(fs.classical.euler(8).unroll(), D=((1.0,), *fs.classical.euler(8).unroll().D[1:])),
    ]
    for solver in solvers:
        assert max(map(len, describe(solver).splitlines())) <= 110


def test_every_coefficient_is_told_however_long_the_row():
    text = describe(fs.classical.euler(16).unroll())
    row = text[text.index("x16") : text.index("consistent;")]
    assert [f"+0.0625 u{j}" in row for j in range(16)] == [True] * 16


def test_the_order_is_told_with_how_it_was_measured():
    assert "order: 2.00, measured repeated on equal pieces of the path, 4 to 1024 calls" in describe(
        fs.classical.midpoint(2)
    )
    bound = describe(fs.classical.dpmpp("2M", 4))
    assert "order: not measured: a table of data predictions for one schedule cannot be refined" in bound
    assert "residuals up to" in bound
    assert "for the noise" in bound


def test_exactness_and_stability_are_told():
    text = describe(fs.classical.rk4(2))
    assert "one pass is exact for velocities polynomial in time of degree 3" in text
    assert "for dx/dt = mu x up to mu^4" in text
    assert "some state outgrows x0 from mu = -5.571" in text
    assert "1 in every call: up to 1.0000 in the sample, most from call 1 (0.1667)" in text


def test_what_is_needed_is_told():
    text = describe(fs.classical.midpoint(2))
    assert "memory for 4 states and predictions at once" in text
    assert "velocity, data, v on cond_ot, cosine; velocity, noise, data, v on vp, ve" in text
    assert "no model in particular" in text
    fitted_for = {"model": "toy", "guidance": 2.5, "shape": [3, 8, 8], "schedule": {"name": "ve", "rho": 7}}
    text = describe(replace(fs.classical.euler(1), fitted_for=fitted_for))
    assert "fitted for: model toy, guidance 2.5, shape 3x8x8, schedule ve(rho=7)" in text
    assert "at the guidance scale 2.5 alone" in text


def test_a_damaged_table_is_warned_of_and_a_fitted_one_is_not():
    damaged = replace(fs.classical.euler(2), D=((0.5,), (0.0, 0.6)))
    text = describe(damaged)
    assert "order: not measured: an inconsistent table does not converge" in text
    assert "not consistent: the sample misses a constant by 0 and the slope 1 by 0.1" in text
    assert "warning: it is inconsistent, most of all in state 2" in text
    fitted = describe(replace(damaged, family={"name": "non_stationary"}))
    assert "fitted, not consistent" in fitted
    assert "warning" not in fitted


@pytest.mark.parametrize(
    ("solver", "warning"),
    [
        (fs.classical.euler(grid=[0, 0.9999, 1]), "shortest step is 0.0001 of the path"),
        (
            fs.Solver(
                (0.0, 0.7, 0.2),
                ((1.0,), (1.0, 0.0), (1.0, 0.0, 0.0)),
                ((0.7,), (0.2, 0), (0, 0.5, 0.5)),
                (0, 3),
            ),
            "call 2 goes back in time, from t = 0.7 to 0.2",
        ),
        (
            replace(fs.classical.euler(2), prediction="noise", schedule=fs.schedules.CondOT()),
            "call 0, at t = 0, uses a prediction of the noise",
        ),
        (
            fs.Solver((0.0, 0.5), ((1.0,), (1.0, 0.0)), ((0.5,), (-2.0, 3.0)), (0, 1, 2)),
            "errors of the network are amplified up to 5 times in the sample",
        ),
    ],
    ids=["tiny step", "back", "no news", "cancellation"],
)
def test_what_may_go_wrong_is_warned_of(solver, warning):
    (found,) = [text for text in warnings(fs.inspect(solver)) if warning in text]
    assert found.endswith(".")
    assert warning in " ".join(describe(solver).split())


def test_a_table_without_a_form_for_velocities_is_told_without_stability():
    text = describe(replace(fs.classical.heun(2), prediction="noise", schedule=fs.schedules.VE()))
    assert "stability" not in text


def test_what_a_user_wants_is_told_before_the_numbers():
    """Calls, times, order, needs, what it was fitted for, and warnings: all above the coefficients."""
    solver = replace(fs.classical.heun(2), fitted_for={"model": "toy", "guidance": 2.5})
    first = describe(solver).split("\n\n")[0]
    begins = [line.split()[0] for line in first.splitlines() if not line.startswith(" ")]
    assert begins == ["heun:", "times:", "reads", "order:", "needs:", "warning:"]
    assert "times: 0, 0.5, 0.5, 1, and ends at 1\n" in first
    assert "fitted for: model toy" in first
    assert "u0" not in first
