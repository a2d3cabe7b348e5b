"""Fits of several numbers of calls, guidance scales or fields, which share one theta."""

from __future__ import annotations

import math

import pytest
import torch

import fewstep as fs
from fewstep.families import Curve, Guided, SmoothCorrections
from fewstep.fitting import Adam, Features, GaussNewton

FEW = {"pairs": 8, "optimizer": GaussNewton(3)}
CURVE = Curve(degree=2, terms=1, free_slopes=False, differences=1)
TINY = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)
MANY = {"nfe": (3, 5), "family": CURVE, **FEW}
SCALES = {"nfe": 2, "guidance": (1, 2, 4), **FEW}


def bend(x, t):
    return 0.9 * torch.sin(x.roll(1, dims=1) + 2 * t[:, None])


def weak(x, t):
    return 0.8 * torch.sin(x.roll(1, dims=1) + t[:, None])


@pytest.fixture
def guided(counting):
    """A field that is guided away from a weaker one; its network counts what it is asked."""
    return fs.Field(counting(bend), shape=(3,), guide=weak, name="bend")


@pytest.fixture
def other(counting):
    """A field of the same shape that bends otherwise."""
    return fs.Field(counting(lambda x, t: torch.cos(1.2 * x + t[:, None]) - x), shape=(3,), name="other")


def rmse(solver, field, pairs):
    return float(fs.metrics.rmse(solver.sample(field, pairs.x0), pairs.x1).mean())


def fresh(field, count=16):
    return fs.reference.pairs(field, fs.noise(count, field.shape, seed=77), rtol=1e-6, atol=1e-6)


def held_out(field, count=8):
    """The pairs of seed 0 that a fit validates on."""
    return fs.reference.pairs(field, fs.noise(count, field.shape), rtol=1e-6, atol=1e-6)[-2:]


# Numbers of calls


def test_one_fit_improves_every_number_of_calls_fitted_or_not():
    """On noises that the fit never saw, down to half the base's error."""
    digits = fs.models.bundled("digits")
    curve = Curve(degree=3, terms=1, differences=2)
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
    # The fitted solvers and their starts, on two pairs, midway numbers of calls included.
    assert report.calls["errors"] == 2 * 2 * (3 + 4 + 5)


def test_max_calls_is_never_exceeded(bending):
    report = fs.fit(bending, **{**MANY, "optimizer": "gauss_newton"}, max_calls=2000).report
    assert report.calls["reference"] + report.calls["fit"] <= 2000
    assert report.stopped == "the budget of network calls was spent"


def test_the_report_lists_fitted_and_unfitted_numbers_of_calls(bending):
    fitted = fs.fit(bending, **MANY)
    report, pairs = fitted.report, held_out(bending)
    assert [(row["nfe"], row["trained"]) for row in report.rows] == [(3, True), (4, False), (5, True)]
    assert report.start == "ab2"
    for row in report.rows:
        assert set(row["errors"]) == {"fitted", "ab2"}
        solvers = {"fitted": fitted.at(row["nfe"]), "ab2": fs.classical.named("ab2", row["nfe"])}
        for name, solver in solvers.items():
            assert row["errors"][name] == pytest.approx(rmse(solver, bending, pairs), rel=1e-3, abs=1e-6)
    assert "4 calls*: RMSE" in str(report)
    assert "* not fitted, only validated" in str(report)


def test_the_iterate_chosen_is_best_over_all_tasks(bending):
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


# Guidance scales


def test_one_fit_improves_every_scale_fitted_or_not(guided):
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
    assert several.at(guidance=1.7).fitted_for["guidance"] == 1.7


def test_a_function_of_the_scale_serves_one_scale_too():
    fitted, field = fs.fit(inside, 2, guidance=2.5, **FEW), inside(2.5)
    assert fitted.solver.D == fs.fit(field, 2, **FEW).solver.D
    assert fitted.fitted_for == field.describe()


def test_the_calls_reported_are_those_that_the_field_saw(guided):
    """The network is asked once for each of them, and the guide, which is not counted here, again."""
    report = fs.fit(guided, **SCALES).report
    assert guided.model.seen == sum(report.calls.values())
    assert [(row["nfe"], row["guidance"]) for row in report.rows] == [(2, w) for w in (1, 1.5, 2, 3, 4)]
    assert report.calls["errors"] == 2 * 2 * 2 * 5


def test_the_report_has_the_errors_of_the_held_out_noises(guided):
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


def test_conditions_go_with_the_pairs():
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


# Fields


@pytest.mark.parametrize("nfe", [4, (3, 5)], ids=str)
def test_one_solver_serves_several_fields(bending, other, nfe):
    """On fresh noises it is better than its start for both, and than the fit of one for the other."""
    both = fs.fit([bending, other], nfe, pairs=16)
    assert bending.model.seen + other.model.seen == sum(both.report.calls.values())
    alone = fs.fit(bending, nfe, pairs=16)
    for field in (bending, other):
        for n in (nfe,) if isinstance(nfe, int) else nfe:
            error = rmse(both.at(n), field, fresh(field))
            assert error < 0.7 * rmse(
                fs.classical.named("deis3/cosine", n, field.schedule), field, fresh(field)
            )
            if field is other:
                with pytest.warns(UserWarning, match="was fitted for model bend"):
                    assert error < 0.9 * rmse(alone.at(n), field, fresh(field))


def test_the_report_names_the_fields(bending, other):
    fitted = fs.fit([bending, other], 4, **FEW)
    rows = fitted.report.rows
    assert [(row["model"], row["nfe"]) for row in rows] == [("bend", 4), ("other", 4)]
    for row, field in zip(rows, (bending, other), strict=True):
        error = rmse(fitted.solver, field, held_out(field))
        assert row["errors"]["fitted"] == pytest.approx(error, rel=1e-3)
    assert "4 calls of other: RMSE" in str(fitted)
    assert fitted.fitted_for == {**bending.describe(), "also": [other.describe()]}
    with pytest.raises(ValueError, match="this fit has 2 tasks"):
        _ = fitted.report.errors
    twice = fs.fit([bending, bending], 4, **FEW).report
    assert [row["model"] for row in twice.rows] == ["bend 1", "bend 2"]


def test_a_list_of_one_field_is_that_field(bending):
    one, listed = fs.fit(bending, 3, **FEW), fs.fit([bending], 3, **FEW)
    assert listed.solver.D == one.solver.D
    assert listed.report.rows == one.report.rows


def test_pairs_may_be_given_by_field(bending, other):
    x0 = fs.noise(8, (3,))
    given = [fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6) for field in (bending, other)]
    made, again = (fs.fit([bending, other], 4, **{**FEW, "pairs": pairs}) for pairs in (8, given))
    assert made.solver.D == again.solver.D


def test_several_fields_have_several_scales_too(guided, counting):
    second = fs.Field(counting(lambda x, t: 0.5 * bend(x, t)), shape=(3,), guide=weak, name="half")
    fitted = fs.fit([guided, second], 2, guidance=(1, 3), **FEW)
    assert [(row["model"], row["guidance"]) for row in fitted.report.rows] == [
        (model, w) for model in ("bend", "half") for w in (1, 2, 3)
    ]
    assert guided.model.seen + second.model.seen == sum(fitted.report.calls.values())
    for field in (guided, second):  # without a warning that it was fitted for another
        assert fitted.at(guidance=2).sample(field.with_guidance(2), fs.noise(2, (3,))).shape == (2, 3)


# One of them


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


# What does not go together


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"family": "timesteps"}, "several guidance scales are fitted by .* not by 'timesteps'"),
        ({"family": "scale_time"}, "several guidance scales are fitted by .* not by 'scale_time'"),
        (
            {"init": fs.classical.euler(2)},
            "from a classical solver by name, not by 'non_stationary' from the solver 'euler'",
        ),
        ({"family": Guided(CURVE, 1, 3)}, "guidance=4.0 is outside the scales fitted, 1 to 3"),
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


def test_fields_that_do_not_go_together_are_named(bending, other, guided):
    given = [fs.reference.pairs(field, fs.noise(n, (3,))) for field, n in ((bending, 8), (other, 6))]
    for options, words in (
        ({"pairs": given}, "every field needs as many pairs, but there are 8 and 6"),
        ({"pairs": given[:1]}, "a list of pairs goes with as many fields, but there are 1 for 2 fields"),
        ({"pairs": given[0]}, "one set of pairs cannot serve 2 fields and scales"),
        ({"optimizer": Adam(3)}, "'adam' fits one solver of one field"),
        ({"guidance": 2}, r"needs unconditional=\{\.\.\.\}"),
    ):
        with pytest.raises(ValueError, match=words):
            fs.fit([bending, other], 4, **{**FEW, **options})
    pairs = {w: fs.reference.pairs(guided.with_guidance(w), fs.noise(4, (3,), seed=w)) for w in (1, 2)}
    with pytest.raises(ValueError, match="must have the same noises at every guidance scale"):
        fs.fit(guided, 2, guidance=(1, 2), pairs=pairs)
    with pytest.raises(ValueError, match="field is a Linear"):
        fs.fit([bending, torch.nn.Linear(3, 3).eval()], 4)


# The record


def test_the_ratio_is_against_the_start_where_that_is_best():
    """DEIS on the cosine grid is better for the digits than any classical solver on the uniform one."""
    digits = fs.models.bundled("digits")
    report = fs.fit(digits, 8, pairs=8, optimizer=GaussNewton(1)).report
    errors = report.errors
    assert report.start == report.rival == "deis3/cosine"
    assert set(fs.classical.baselines(8)) | {"fitted", "deis3/cosine"} == set(errors)
    uniform = min(errors[name] for name in fs.classical.baselines(8))
    assert errors["deis3/cosine"] < 0.9 * uniform
    assert report.ratio == errors["fitted"] / errors["deis3/cosine"] > errors["fitted"] / uniform
    assert f"{report.ratio:.2f}x deis3/cosine" in str(report)


def test_a_start_that_shares_the_name_of_a_classical_solver_hides_none(bending):
    """Euler on another grid is called euler, too; and a solver may be called anything."""
    uniform = fs.fit(bending, 4, init="euler", **FEW).report.errors["euler"]
    slow = fs.classical.euler(grid=fs.grids.quadratic(4))
    for name in ("euler", "fitted"):
        start = fs.Solver(slow.times, slow.C, slow.D, points=slow.points, end=slow.end, name=name)
        report = fs.fit(bending, 4, init=start, **FEW).report
        assert report.errors["euler"] == pytest.approx(uniform, rel=1e-4)
        error = rmse(slow, bending, held_out(bending))
        assert report.errors[report.start] == pytest.approx(error, rel=1e-4)
        assert report.errors["fitted"] == report.curve[report.best_iteration]["validation"]


def test_notes_name_the_places_that_became_worse(bending, other):
    """Both fields cannot be served where their exact solvers differ: one has the other's start."""
    still = fs.Field(lambda x, t: x * 0 + 1, shape=(3,), name="still")  # any classical solver is exact
    report = fs.fit([bending, still], 4, **FEW).report
    worse = [row for row in report.rows if row["errors"]["fitted"] > min(row["errors"].values())]
    noted = any("worse on validation than its start" in note for note in report.notes)
    assert noted == bool(worse)
    assert math.isfinite(report.reference_error)
