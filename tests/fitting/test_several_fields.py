"""Fits of one solver to several fields."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.fitting import Adam, GaussNewton

FEW = {"pairs": 8, "optimizer": GaussNewton(3, last_steps=0)}


@pytest.mark.parametrize("nfe", [4, (3, 5)], ids=str)
def test_one_solver_serves_several_fields(rmse, fresh, bending, other, nfe):
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


def test_the_report_names_the_fields(rmse, held_out, bending, other):
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
    second = fs.Field(
        counting(lambda x, t: 0.5 * torch.sin(x + t[:, None])),
        shape=(3,),
        guide=guided.guide,
        name="half",
    )
    fitted = fs.fit([guided, second], 2, guidance=(1, 3), **FEW)
    assert [(row["model"], row["guidance"]) for row in fitted.report.rows] == [
        (model, w) for model in ("bend", "half") for w in (1, 2, 3)
    ]
    assert guided.model.seen + second.model.seen == sum(fitted.report.calls.values())
    for field in (guided, second):  # without a warning that it was fitted for another
        assert fitted.at(guidance=2).sample(field.with_guidance(2), fs.noise(2, (3,))).shape == (2, 3)


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


def test_a_note_names_the_places_that_became_worse(bending):
    """Nearly straight paths, where classical solvers err by rounding only, lose to one field that bends."""
    straight = fs.Field(lambda x, t: 1e-3 * x, shape=(3,), name="straight")
    report = fs.fit([bending, straight], (3, 5), **FEW).report
    worse = {row["nfe"] for row in report.rows if row["errors"]["fitted"] > min(row["errors"].values())}
    noted = [note for note in report.notes if "a classical solver is better on validation" in note]
    assert bool(noted) == bool(worse)
    assert worse
    assert all(f"{nfe} calls" in noted[0] for nfe in worse)
