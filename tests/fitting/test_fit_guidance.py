"""One fit for a range of guidance scales, and the file that keeps it."""

from __future__ import annotations

import json

import pytest
import torch

import fewstep as fs
from fewstep.families import Curve, SmoothCorrections

SMALL = {"nfe": 2, "scales": (1, 2, 4), "pairs": 8, "iterations": 3}
TINY = SmoothCorrections("ab2", degree=1, terms=1, differences=1, startup=1)


def bend(x, t):
    return 0.9 * torch.sin(x.roll(1, dims=1) + 2 * t[:, None])


def weak(x, t):
    return 0.8 * torch.sin(x.roll(1, dims=1) + t[:, None])


@pytest.fixture
def guided(counting):
    """A field that is guided away from a weaker one; its network counts what it is asked."""
    return fs.Field(counting(bend), shape=(3,), guide=weak, name="bend")


@pytest.fixture
def small(guided):
    return fs.fit_guidance(guided, **SMALL)


def rmse(solver, field, pairs):
    return float(fs.metrics.rmse(solver.sample(field, pairs.x0), pairs.x1).mean())


def test_one_fit_improves_every_scale_fitted_or_not(guided):
    """On noises that the fit never saw."""
    fitted = fs.fit_guidance(guided, 3, scales=(1, 2, 3), pairs=12, iterations=6)
    for w in (1, 1.4, 2, 2.5, 3):
        field = guided.with_guidance(w)
        fresh = fs.reference.pairs(field, fs.noise(16, (3,), seed=77), rtol=1e-6, atol=1e-6)
        start = fs.classical.named("deis3/cosine", 3, field.schedule)
        assert rmse(fitted.solver(w), field, fresh) < 0.4 * rmse(start, field, fresh)


def test_at_scale_one_it_is_the_fit_without_guidance(guided, counting):
    plain = fs.Field(counting(bend), shape=(3,), name="bend")
    options = {**SMALL, "scales": (1,)}
    one = fs.fit_guidance(guided, **options)
    other = fs.fit_guidance(lambda w: plain, **options)
    assert torch.equal(one.theta, other.theta)
    assert one.report.calls == other.report.calls
    assert guided.model.seen == plain.model.seen == sum(one.report.calls.values())


def test_a_function_of_the_scale_is_as_good_as_a_field(guided, small):
    """Guidance inside the model."""

    def inside(w):
        return fs.Field(
            lambda x, t: weak(x, t) + w * (bend(x, t) - weak(x, t)), shape=(3,), name=f"w = {w:g}"
        )

    other = fs.fit_guidance(inside, **SMALL)
    for row, expected in zip(other.report.errors, small.report.errors, strict=True):
        assert row == pytest.approx(expected, rel=0.1)
    assert other.solver(1.7).fitted_for["guidance"] == 1.7


def test_the_calls_reported_are_those_that_the_field_saw(guided, small):
    """The network is asked once for each of them, and the guide, which is not counted here, again."""
    assert guided.model.seen == sum(small.report.calls.values())
    rows = small.report.errors
    assert [(row["nfe"], row["guidance"]) for row in rows] == [(2, w) for w in (1, 1.5, 2, 3, 4)]
    assert small.report.calls["errors"] == 2 * 2 * 2 * 5


def test_the_report_has_the_errors_of_the_held_out_noises(small, guided):
    x0 = fs.noise(8, (3,))[6:]
    for row in small.report.errors:
        field = guided.with_guidance(row["guidance"])
        pairs = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6)
        assert row["fitted"] == pytest.approx(rmse(small.solver(row["guidance"]), field, pairs), rel=1e-3)
        assert row["fitted"] < row["start"]
    assert "2 calls at 1.5 * RMSE" in str(small.report)
    assert "at guidance 1, 2, 4, " in str(small.report)


def test_pairs_may_be_given_by_scale(guided, small):
    x0 = fs.noise(8, (3,))
    given = {
        w: fs.reference.pairs(guided.with_guidance(w), x0, rtol=1e-6, atol=1e-6) for w in SMALL["scales"]
    }
    assert torch.equal(fs.fit_guidance(guided, **{**SMALL, "pairs": given}).theta, small.theta)


def test_conditions_go_with_the_pairs():
    def network(x, t, label):
        return torch.sin(x + label[:, None]) * (1 + t[:, None])

    field = fs.Field(network, shape=(2,), unconditional={"label": torch.zeros(1)})
    options = {"scales": (1, 2), "pairs": 8, "iterations": 2, "batch": 5}
    one = fs.fit_guidance(field, 2, **options, per_sample={"label": torch.arange(8.0)})
    x0 = fs.noise(8, (2,))
    given = {
        w: fs.reference.pairs(
            field.with_guidance(w),
            x0,
            rtol=1e-6,
            atol=1e-6,
            batch=5,
            per_sample={"label": torch.arange(8.0)},
        )
        for w in (1, 2)
    }
    assert torch.equal(fs.fit_guidance(field, 2, **{**options, "pairs": given}).theta, one.theta)


def test_a_curve_in_both_serves_every_number_of_calls_and_scale(guided):
    fitted = fs.fit_guidance(guided, (2, 4), init=TINY, scales=(1, 3), pairs=8, iterations=3)
    rows = fitted.report.errors
    assert [(row["nfe"], row["guidance"]) for row in rows] == [(n, w) for n in (2, 3, 4) for w in (1, 2, 3)]
    assert all(row["fitted"] < row["start"] for row in rows)
    solver = fitted.solver(2.5, 5)
    assert solver.nfe == 5
    assert solver.fitted_for["guidance"] == 2.5
    with pytest.raises(ValueError, match=r"nfe=1 is below the least number of calls fitted, 2"):
        fitted.solver(2.5, 1)
    with pytest.raises(ValueError, match="say which, as nfe=8"):
        fitted.solver(2.5)


def test_every_bit_comes_back(small, tmp_path):
    small.save(tmp_path / "guided.json")
    loaded = fs.GuidedFit.load(tmp_path / "guided.json")
    assert torch.equal(loaded.theta, small.theta)
    assert loaded.report == small.report
    for w in (1, 1.3, 4):
        assert loaded.solver(w) == small.solver(w)
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "guided.json").read_bytes()


def test_a_solver_tells_its_scale_and_its_score(small, guided):
    solver = small.solver(2)
    assert solver.fitted_for == guided.with_guidance(2).describe()
    assert solver.scores["validation_rmse"]["fitted"] == small.report.errors[2]["fitted"]
    assert small.solver(2.2).scores is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "fewstep.curve"}, "not a guided file; its 'format' must be 'fewstep.guided'"),
        ({"theta": [0.0]}, r"theta: a guided fit of .* has \d+ numbers, not 1"),
        ({"guided": {"low": 1}}, "guided.json: "),
    ],
)
def test_a_damaged_file_is_told_in_a_sentence(small, tmp_path, change, words):
    path = tmp_path / "guided.json"
    small.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match=words):
        fs.GuidedFit.load(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scales": ()}, r"scales must be different guidance scales above 0, at least one, not \(\)"),
        ({"scales": (0, 1)}, r"above 0, at least one, not \(0, 1\)"),
        ({"scales": 3}, "not 3"),
        ({"also": (5,)}, "guidance=5.0 is outside the scales fitted, 1 to 4"),
        ({"init": Curve()}, "with nfe=2 init must be the name of a classical solver"),
        ({"nfe": (2, 2)}, "nfes must be different numbers of calls"),
        ({"pairs": 3}, "at least 4 pairs"),
        ({"pairs": {}}, "pairs has none for the scales 1, 2, 4"),
        ({"max_calls": 10}, "max_calls=10 is not enough"),
    ],
)
def test_bad_arguments_are_named(guided, options, words):
    with pytest.raises(ValueError, match=words):
        fs.fit_guidance(guided, **{**SMALL, **options})


def test_a_field_without_guidance_and_pairs_of_other_noises_are_refused(guided, bending):
    with pytest.raises(ValueError, match=r"needs unconditional=\{\.\.\.\}"):
        fs.fit_guidance(bending, **SMALL)
    pairs = {w: fs.reference.pairs(guided.with_guidance(w), fs.noise(4, (3,), seed=w)) for w in (1, 2)}
    with pytest.raises(ValueError, match="must have the same noises at every scale"):
        fs.fit_guidance(guided, 2, scales=(1, 2), pairs=pairs)
