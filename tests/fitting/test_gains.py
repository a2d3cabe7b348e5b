"""What a fit gains for the typical noise, and what is left to its last row, against numpy's least squares."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep._gains import gains
from fewstep.families import NonStationary, Timesteps
from fewstep.fitting import GaussNewton
from fewstep.fitting._gains import least_mse, left, median_ratio
from fewstep.fitting._report import few_decide
from fewstep.fitting._rollout import Rollout
from fewstep.fitting._task import Task

FEW = GaussNewton(iterations=5, last_steps=0)
KNOWN = {
    "nfe": 4,
    "guidance": None,
    "model": None,
    "trained": True,
    "typical": 0.4,
    "left": 0.1,
    "by_chance": 0.02,
}
ERRORS = {"fitted": 0.02, "ab2": 0.05}


def field(prediction="velocity", schedule=None):
    schedule = schedule or fs.schedules.CondOT()
    network = fs.models.random_mixture(24, 20, std=0.4, schedule=schedule, prediction=prediction)
    return fs.Field(network, schedule, prediction, shape=(24,))


def norms(x):
    return np.linalg.norm(x, axis=-1)


def remainders(columns, targets):
    """Lengths of targets ``(B, d)`` less their projections on columns ``(B, K, d)``."""
    solved = [np.linalg.lstsq(A.T, b, rcond=None)[0] @ A for A, b in zip(columns, targets, strict=True)]
    return norms(targets - np.stack(solved))


def numbers(solver, its_field, pairs):
    """Shares left and by chance, from what the network itself returns in a sampling."""
    path = solver.sample(its_field, pairs.x0, trajectory=True)
    columns = torch.cat([path.states[:1], path.predictions]).transpose(0, 1).double().numpy()
    target, end = pairs.x1.double().numpy(), path.x1.double().numpy()
    now = norms(target - end).mean()
    own = remainders(columns, target).mean()
    others = remainders(np.roll(columns, 1, axis=0), target - end).mean()
    return 1 - own / now, 1 - others / now


@pytest.mark.parametrize(
    ("prediction", "schedule"),
    [("velocity", None), ("noise", fs.schedules.VP()), ("data", fs.schedules.Cosine())],
)
def test_the_shares_are_those_of_least_squares_in_every_sample(prediction, schedule):
    one = field(prediction, schedule)
    pairs = fs.reference.pairs(one, fs.noise(32, (24,)), rtol=1e-5, atol=1e-5)
    fit = fs.fit(one, 4, pairs=pairs, init="deis3/cosine", optimizer=FEW)
    (row,) = fit.report.rows
    own, chance = numbers(fit.solver, one, pairs[24:])
    assert row["left"] == pytest.approx(own, abs=2e-3)
    assert row["by_chance"] == pytest.approx(chance, abs=2e-3)
    assert 0.05 < chance < own < 0.95
    assert f"at most {row['left']:.0%} left to the last row ({row['by_chance']:.0%} by chance)" in str(fit)
    assert "\nleft: " in str(fit)


def test_no_last_row_shared_by_all_samples_gains_more():
    one = field()
    pairs = fs.reference.pairs(one, fs.noise(32, (24,)), rtol=1e-5, atol=1e-5)
    fit = fs.fit(one, 4, pairs=pairs, init="deis3/cosine", optimizer=FEW)
    path = fit.solver.sample(one, pairs.x0[24:], trajectory=True)
    columns = torch.cat([path.states[:1], path.predictions]).flatten(1).double().numpy()
    target = pairs.x1[24:].double().numpy()
    shared = np.linalg.lstsq(columns.T, target.ravel(), rcond=None)[0] @ columns
    now, best = norms(target - path.x1.numpy()).mean(), norms(target - shared.reshape(target.shape)).mean()
    assert best >= (1 - fit.report.rows[0]["left"]) * now


def test_every_task_has_its_own_shares():
    one = field()
    pairs = fs.reference.pairs(one, fs.noise(32, (24,)), rtol=1e-5, atol=1e-5)
    fit = fs.fit(one, (2, 6), pairs=pairs, optimizer=FEW)
    assert [row["nfe"] for row in fit.report.rows] == [2, 4, 6]
    for row in fit.report.rows[:1]:
        own, chance = numbers(fit.at(row["nfe"]), one, pairs[24:])
        assert (row["left"], row["by_chance"]) == pytest.approx((own, chance), abs=2e-3)
    assert fit.report.rows[2]["left"] is None  # seven columns in 24 dimensions
    assert fit.report.rows[1]["returned"]  # and a classical solver has no fitted row
    assert fit.report.rows[1]["left"] is None
    assert str(fit).count("left to the last row (") == 1


def test_the_typical_ratio_is_the_median_over_pairs_of_that_to_the_best_rival():
    one = field()
    pairs = fs.reference.pairs(one, fs.noise(32, (24,)), rtol=1e-5, atol=1e-5)
    report = (fit := fs.fit(one, 4, pairs=pairs, init="deis3/cosine", optimizer=FEW)).report
    solvers = fit.solver, fs.classical.named(report.rival, 4, one.schedule)
    x0, x1 = pairs.x0[24:], pairs.x1[24:]
    ours, theirs = (norms((solver.sample(one, x0) - x1).double().numpy()) for solver in solvers)
    assert report.rows[0]["typical"] == pytest.approx(np.median(ours / theirs), rel=1e-3)
    assert np.median(ours / theirs) != pytest.approx(ours.mean() / theirs.mean(), rel=1e-2)


def test_one_noise_that_changes_mode_does_not_move_the_median():
    mse, rival = torch.tensor([1.0, 4, 9, 1e6]).double(), torch.tensor([4.0, 16, 16, 1]).double()
    assert median_ratio(mse, rival) == pytest.approx((0.5 + 0.75) / 2)
    zero = torch.zeros(3).double()
    assert median_ratio(zero, zero) == 1


def test_columns_that_depend_on_each_other_count_once():
    e = torch.eye(6)
    residual = 3 * e[0] + 4 * e[1]
    columns = [torch.stack([x, x]) for x in (e[0] + e[2], 2 * e[0] + 2 * e[2], 0 * e[0])]
    found = least_mse(torch.stack([residual, torch.full((6,), torch.nan)]), columns)
    # Half of the first coordinate's square remains, and all of the second's.
    assert float(found[0]) == pytest.approx((9 / 2 + 16) / 6)
    assert found[1].isnan()


def test_nothing_is_said_where_a_sample_has_few_dimensions():
    mse, least, others = torch.tensor([4.0, 16]), torch.tensor([1.0, 9]), torch.tensor([4.0, 9])
    assert left(mse, least, others, 12, 3) == pytest.approx({"left": 1 / 3, "by_chance": 1 / 6})
    assert left(mse, least, others, 11, 3) == {"left": None, "by_chance": None}
    assert left(0 * mse, 0 * least, 0 * others, 12, 3) == {"left": None, "by_chance": None}
    assert left(mse, least, others * torch.nan, 12, 3) == pytest.approx({"left": 1 / 3, "by_chance": None})


def test_chance_is_unknown_where_a_batch_has_one_pair():
    one, pairs = field(), fs.Pairs(fs.noise(3, (24,)), fs.noise(3, (24,), seed=1))
    family = NonStationary(Timesteps("deis3/cosine", 4, one.schedule, decoupled=True))
    few, all_three = (Task(Rollout(one, size), family.member(), pairs) for size in (2, 3))
    (mse, own, others), known = (task.limits(torch.zeros(family.size).double()) for task in (few, all_three))
    torch.testing.assert_close((mse, own), known[:2])
    assert known[2].isfinite().all()
    assert others.isfinite().tolist() == [True, True, False]
    row = {**KNOWN, "errors": ERRORS, **left(mse, own, others, 24, 5)}
    assert list(gains(row))[1] == f"at most {row['left']:.0%} left to the last row"


def test_a_low_dimensional_fit_has_no_share(bending):
    report = fs.fit(bending, 4, pairs=8, init="ab2", optimizer=FEW).report
    assert report.rows[0]["left"] is None
    assert "left" not in str(report)
    assert "x for the typical noise" in str(report)


@pytest.mark.parametrize(
    ("typical", "said"), [(0.32, False), (0.29, True), (0.5, False), (0.54, True), (None, False)]
)
def test_a_note_says_where_a_few_noises_decide(typical, said):
    notes = list(few_decide([{**KNOWN, "errors": ERRORS, "typical": typical}]))
    words = (
        f"it is 0.40x that of ab2, but the median of the noises' own ratios is {typical:.2f}x" if said else ""
    )
    assert len(notes) == said
    assert words in "".join(notes)


def test_the_note_is_in_the_report():
    """At four calls a few noises fall between the modes of this mixture."""
    report = fs.fit(
        fs.models.bundled("mixture"), 4, pairs=48, init="deis3/cosine", optimizer=GaussNewton(8)
    ).report
    assert report.rows[0]["typical"] < report.ratio / 2
    assert any(note.startswith("a few noises decide the RMSE of 4 calls: ") for note in report.notes)


def test_scores_of_the_solver_have_the_gains_and_older_records_load():
    row = {**KNOWN, "errors": ERRORS}
    report = fs.fit(field(), 2, pairs=8, init="euler", optimizer=GaussNewton(1)).report
    report = replace(report, rows=(row,))
    assert report.facts(4)["scores"] == {
        "validation_rmse": ERRORS,
        "typical": 0.4,
        "left": 0.1,
        "by_chance": 0.02,
    }
    record = report.to_dict()
    assert fs.FitReport.from_dict(record).rows == report.rows
    for key in ("typical", "left", "by_chance"):
        del record["rows"][0][key]
    older = fs.FitReport.from_dict(record)
    assert older.errors == ERRORS
    assert "typical" not in str(older)
