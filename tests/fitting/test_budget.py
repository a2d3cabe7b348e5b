"""Budgets of network calls: how many pairs they buy, and whether they sufficed."""

import pytest
import torch

import fewstep as fs
from fewstep.fitting import Adam, GaussNewton
from fewstep.fitting._budget import Ledger, affordable_pairs, budget_notes
from fewstep.fitting._follow import Chosen


def test_the_pairs_bought_leave_room_for_twenty_five_iterations():
    """Summed by hand: 100 calls of reference; 0.75 (30 + 1.3 x 8) + 0.25 x 8 an iteration."""
    a_pair = 100 + 25 * (0.75 * (30 + 10.4) + 2)
    assert affordable_pairs(50 * a_pair + 1, 8, 100, 30) == 50
    assert affordable_pairs(10, 8, 100, 30) == 16
    assert affordable_pairs(10**9, 8, 100, 30) == 256
    assert affordable_pairs(40_000, 8, 100, None) == 100  # a quarter of the budget


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": Adam(iterations=300)}, {"init": "auto"}, {"optimizer": GaussNewton(minibatch=8)}],
    ids=str,
)
def test_a_budget_is_kept_and_counted(bending, options):
    report = fs.fit(bending, 4, max_calls=30_000, **options).report
    assert sum(report.calls.values()) == bending.model.seen
    assert bending.model.seen - report.calls["errors"] <= 30_000
    assert 16 < sum(report.pairs.values()) <= 256


def test_a_larger_budget_buys_more_pairs_of_the_same_noises(bending):
    counts = []
    for budget in (8_000, 20_000, 40_000):
        fitted = fs.fit(bending, 4, init="ab2", max_calls=budget)
        counts.append(sum(fitted.report.pairs.values()))
    assert counts == sorted(set(counts))
    pairs = fs.reference.pairs(bending, fs.noise(counts[0], (3,)), rtol=1e-6, atol=1e-6)
    given = fs.fit(bending, 4, init="ab2", pairs=pairs)
    bought = fs.fit(bending, 4, init="ab2", max_calls=8_000)
    fresh = fs.noise(64, (3,), seed=77)
    x1 = [fit.solver.sample(bending, fresh) for fit in (given, bought)]
    torch.testing.assert_close(*x1, rtol=0, atol=5e-3)


def test_a_budget_too_small_for_sixteen_pairs_is_refused_and_kept(bending):
    made = fs.reference.pairs(bending, fs.noise(16, (3,)), rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match=r"max_calls=\d+ is not enough: the reference took"):
        fs.fit(bending, 4, max_calls=made.calls + 50)


def test_conditions_in_rows_say_how_many_pairs_there_are():
    field = fs.Field(lambda x, t, target, scale: (target - x) * scale[:, None], shape=(2,))
    given = {"target": 3 * fs.noise(40, (2,), seed=1), "scale": torch.ones(1)}
    for budget in (None, 400_000):
        report = fs.fit(field, 2, max_calls=budget, per_sample=given).report
        assert sum(report.pairs.values()) == 40


def test_without_a_budget_there_are_256_pairs(bending):
    report = fs.fit(bending, 2, optimizer=GaussNewton(iterations=1)).report
    assert sum(report.pairs.values()) == 256
    assert "plan" not in report.calls


@pytest.mark.all_rivals
def test_eight_calls_on_the_digits_cost_a_hundred_thousand_network_calls():
    field = fs.models.bundled("digits")
    report = fs.fit(field, 8, max_calls=100_000, seed=99).report
    assert sum(report.calls.values()) - report.calls["errors"] <= 100_000
    assert len(report.curve) > 10
    assert sum(report.pairs.values()) > 48
    assert report.errors["fitted"] < 0.0045  # with 96 pairs and 200 thousand calls: 0.003
    assert any("max_calls=100,000" in note and "sufficed" in note for note in report.notes)


def curve(*quality, loss=1.0, validation=1.0):
    return [{"validation_psnr": q, "loss": loss, "validation": validation} for q in quality]


def notes(spent, stopped, curve, iteration):
    ledger = Ledger(100)
    ledger.calls = {"reference": spent, "errors": 1000}  # the latter are outside the budget
    chosen = Chosen(torch.zeros(1), iteration, stopped, curve)
    return budget_notes(ledger, chosen, "rmse")


def test_notes_say_whether_more_would_help():
    spent = "the budget of network calls was spent"
    (note,) = notes(100, spent, curve(10, 20, 30, 31, 32, 33), 5)
    assert "3.0 dB over the last 3 iterations); more calls would help." in note
    (note,) = notes(100, spent, curve(10, 33, 33.1, 33, 33.05), 2)
    assert note.startswith("max_calls=100 was spent, and sufficed")
    (note,) = notes(60, "the training loss settled", curve(10, 33, 33), 1)
    assert note == "max_calls=100 sufficed: the training loss settled with 40 calls left."
    (note,) = notes(60, "the training loss settled", curve(1, 9, validation=2.0), 1)
    assert "2.0 times that of training, so that more pairs would help" in note
    (note,) = notes(100, spent, curve(10), 0)
    assert "more calls would help" in note
