"""Fits of several guidance scales, which share one theta."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.families import Guided, SmoothCorrections
from fewstep.fitting import GaussNewton

FEW = {"pairs": 8, "optimizer": GaussNewton(3, last_steps=0)}
CURVE = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)
TINY = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)
SCALES = {"nfe": 2, "guidance": (1, 2, 4), **FEW}


def bend(x, t):
    return 0.9 * torch.sin(x.roll(1, dims=1) + 2 * t[:, None])


def weak(x, t):
    return 0.8 * torch.sin(x.roll(1, dims=1) + t[:, None])


def test_one_fit_improves_every_scale_fitted_or_not(rmse, fresh, guided):
    fitted = fs.fit(guided, 3, guidance=(1, 2, 3), pairs=12, optimizer=GaussNewton(6))
    for w in (1, 1.4, 2, 2.5, 3):
        field = guided.with_guidance(w)
        start = fs.classical.named("deis3/cosine", 3, field.schedule)
        assert rmse(fitted.at(guidance=w), field, fresh(field)) < 0.4 * rmse(start, field, fresh(field))


def test_one_scale_is_the_fit_of_the_field_at_that_scale(guided, counting):
    one = fs.fit(guided, 2, guidance=3, **FEW)
    assert guided.model.seen == sum(one.report.calls.values())
    expected = fs.fit(guided.with_guidance(3), 2, **FEW)
    assert one.solver.D == expected.solver.D
    assert one.report.rows == expected.report.rows
    assert one.solver.fitted_for == guided.with_guidance(3).describe()
    assert one.at(guidance=3) == one.solver
    assert fs.fit(guided, 2, guidance=(3,), **FEW).solver.D == one.solver.D
    plain = fs.Field(counting(bend), shape=(3,), name="bend")
    assert fs.fit(guided, 2, guidance=1, **FEW).solver.D == fs.fit(plain, 2, **FEW).solver.D


def inside(w):
    """Guidance inside the model."""
    return fs.Field(lambda x, t: weak(x, t) + w * (bend(x, t) - weak(x, t)), shape=(3,), name=f"w = {w:g}")


def test_a_function_of_the_scale_is_as_good_as_a_field(guided):
    several, expected = fs.fit(inside, **SCALES), fs.fit(guided, **SCALES)
    for row, other in zip(several.report.rows, expected.report.rows, strict=True):
        assert row["errors"] == pytest.approx(other["errors"], rel=0.1)
    assert several.at(guidance=1.7).fitted_for["scale"] == 1.7
    assert several.at(guidance=4).mismatch(inside(4)) is None  # a field without guidance of its own


def test_a_function_of_the_scale_serves_one_scale_too():
    fitted, field = fs.fit(inside, 2, guidance=2.5, **FEW), inside(2.5)
    assert fitted.solver.D == fs.fit(field, 2, **FEW).solver.D
    assert fitted.fitted_for == field.describe()


def test_the_calls_reported_are_those_that_the_field_saw(guided):
    """The network is asked once for each of them, and the guide, which is not counted here, again."""
    report = fs.fit(guided, **SCALES).report
    assert guided.model.seen == sum(report.calls.values())
    assert [(row["nfe"], row["guidance"]) for row in report.rows] == [(2, w) for w in (1, 1.5, 2, 3, 4)]
    assert report.calls["errors"] == 2 * 2 * 5 * (2 + len(fs.classical.baselines(2)))


def test_the_report_has_the_errors_of_the_held_out_noises(rmse, held_out, guided):
    fitted = fs.fit(guided, **SCALES)
    for row in fitted.report.rows:
        field, errors = guided.with_guidance(row["guidance"]), row["errors"]
        error = rmse(fitted.at(guidance=row["guidance"]), field, held_out(field))
        assert errors["fitted"] == pytest.approx(error, rel=1e-3)
        assert errors["fitted"] < errors["deis3/cosine"]
    assert "2 calls at guidance 1.5*: RMSE" in str(fitted.report)
    assert "2 calls at guidance 4: RMSE" in str(fitted.report)


def test_pairs_may_be_given_by_scale(guided):
    x0 = fs.noise(8, (3,))
    given = {
        w: fs.reference.pairs(guided.with_guidance(w), x0, rtol=1e-6, atol=1e-6) for w in SCALES["guidance"]
    }
    made = fs.fit(guided, **SCALES)
    assert torch.equal(fs.fit(guided, **{**SCALES, "pairs": given}).theta, made.theta)


def test_conditions_go_with_the_pairs(rmse):
    """The label of each pair, and an empty one of a single row for all."""

    def network(x, t, label):
        return torch.sin(x + label[:, None]) * (1 + t[:, None])

    field = fs.Field(network, shape=(2,), unconditional={"label": torch.zeros(1)})
    labels, options = {"label": torch.arange(8.0)}, {"guidance": (1, 2), "optimizer": GaussNewton(2)}
    one = fs.fit(field, 2, **options, batch=5, per_sample=labels)
    assert sum(one.report.pairs.values()) == 8
    x0, tight = fs.noise(8, (2,)), {"rtol": 1e-6, "atol": 1e-6, "batch": 5}
    given = {w: fs.reference.pairs(field.with_guidance(w), x0, **tight, per_sample=labels) for w in (1, 2)}
    assert torch.equal(fs.fit(field, 2, **options, batch=5, pairs=given).theta, one.theta)
    row = one.report.rows[-1]
    last = given[2][-2:]
    x1 = one.at(guidance=2).sample(field.with_guidance(2), last.x0, **last.per_sample)
    assert row["errors"]["fitted"] == pytest.approx(float(fs.metrics.rmse(x1, last.x1)), rel=1e-3)


def test_a_curve_in_both_serves_every_number_of_calls_and_scale(guided):
    fitted = fs.fit(guided, (2, 4), guidance=(1, 3), family=TINY, **FEW)
    rows = fitted.report.rows
    assert isinstance(fitted.solvers, Guided)
    assert [(row["nfe"], row["guidance"]) for row in rows] == [(n, w) for n in (2, 3, 4) for w in (1, 2, 3)]
    assert [row["trained"] for row in rows] == [n != 3 and w != 2 for n in (2, 3, 4) for w in (1, 2, 3)]
    assert all(row["errors"]["fitted"] < row["errors"]["ab2"] for row in rows)
    solver = fitted.at(5, 2.5)
    assert solver.nfe == 5
    assert solver.fitted_for["guidance"] == 2.5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"family": "timesteps"}, "several guidance scales are fitted by .* not by 'timesteps'"),
        ({"family": "scale_time"}, "several guidance scales are fitted by .* not by 'scale_time'"),
        (
            {"init": fs.classical.euler(2)},
            "from a classical solver by name, not by 'non_stationary' from the solver 'euler'",
        ),
        ({"family": Guided(CURVE, 1, 3)}, "guidance=4 is outside the scales fitted, 1 to 3"),
        ({"optimizer": "adam"}, "'adam' fits one solver of one field"),
        ({"pairs": 3}, "at least 4 pairs"),
        ({"pairs": {}}, "must have all; they have none"),
        ({"pairs": {1: 8, 2: 8}}, "must have all; they have 1, 2"),
        ({"pairs": fs.Pairs(torch.zeros(8, 3), torch.zeros(8, 3))}, "cannot serve 3 fields and scales"),
        ({"max_calls": 10}, "max_calls=10 is not enough"),
    ],
)
def test_scales_that_do_not_go_together_are_named(guided, options, words):
    with pytest.raises(ValueError, match=words):
        fs.fit(guided, **{**SCALES, **options})
