"""The last steps of a fit, on all of its pairs, and the comparison of errors by pairs."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.fitting import Adam, Features, GaussNewton
from fewstep.fitting._follow import outdone


@pytest.fixture
def pairs(bending):
    return fs.reference.pairs(bending, fs.noise(16, (3,)), rtol=1e-6, atol=1e-6)


def error(fit, field, pairs):
    return float(fs.metrics.rmse(fit.solver.sample(field, pairs.x0), pairs.x1))


def test_they_lower_the_loss_on_all_pairs_and_are_counted(bending, pairs):
    fits = {}
    for steps in (0, 1, 2):
        bending.model.seen = pairs.calls
        fits[steps] = fs.fit(bending, 4, pairs=pairs, optimizer=GaussNewton(12, last_steps=steps))
        assert sum(fits[steps].report.calls.values()) == bending.model.seen
        assert fits[steps].report.last_steps == steps
        assert ("steps on all" in str(fits[steps].report)) == (steps > 0)
    errors = [error(fit, bending, pairs) for fit in fits.values()]
    assert errors[2] < errors[1] < errors[0]
    assert len({fit.report.errors["fitted"] for fit in fits.values()}) == 1  # those before


def test_fewer_pairs_are_fitted_better_with_them():
    """Over ten draws of 16 pairs of a mixture, on other noises."""
    field = fs.models.random_mixture(16, 8).field("mixture")
    fresh = fs.reference.pairs(field, fs.noise(256, (16,), seed=9), rtol=1e-5, atol=1e-5)
    ratios = []
    for seed in range(10):
        pairs = fs.reference.pairs(field, fs.noise(16, (16,), seed=100 + seed), rtol=1e-5, atol=1e-5)
        with_them, without = (
            error(
                fs.fit(field, 4, pairs=pairs, init="ab2", optimizer=GaussNewton(8, last_steps=n)),
                field,
                fresh,
            )
            for n in (2, 0)
        )
        ratios.append(with_them / without)
    assert torch.tensor(ratios).log().mean() < -0.02


@pytest.mark.parametrize(
    ("options", "made"),
    [
        ({"loss": Features(lambda x: x[:, :2])}, 2),
        ({"family": "scale_time"}, 2),
        ({"loss": "nodes"}, 0),
        ({"optimizer": Adam(5)}, 0),
        ({"optimizer": GaussNewton(5, minibatch=4)}, 0),
    ],
    ids=["features", "scale_time", "nodes", "adam", "minibatch"],
)
def test_only_a_loss_that_judges_both_kinds_of_pairs_has_them(bending, pairs, options, made):
    report = fs.fit(bending, 4, pairs=pairs, **options).report
    assert report.last_steps == (made if report.best_iteration else 0)


def test_a_joint_fit_has_them_too(bending, pairs):
    fitted = fs.fit(bending, (4, 6), pairs=pairs, optimizer=GaussNewton(6))
    assert fitted.report.last_steps == 2


def test_none_is_made_from_the_start(bending, pairs):
    spoilt = fs.Pairs(pairs.x0, torch.cat([fs.noise(12, (3,), seed=5), pairs.x1[12:]]))
    report = fs.fit(bending, 4, pairs=spoilt, init="ab2", optimizer=GaussNewton(2)).report
    assert report.best_iteration == report.last_steps == 0


@pytest.mark.parametrize("steps", [-1, 0.5, True])
def test_no_other_number_of_them_is_taken(steps):
    with pytest.raises(ValueError, match=f"last_steps must be a whole number of at least 0, not {steps}"):
        GaussNewton(last_steps=steps)


class TestOutdone:
    """Mean squares of errors of a solver and of its rival."""

    def test_errors_are_compared_by_their_mean(self):
        ones = torch.ones(12)
        assert outdone(1.1 * ones, ones)
        assert not outdone(ones, ones)
        assert not outdone(0.9 * ones, ones)

    def test_one_noise_that_falls_to_another_mode_does_not_decide(self):
        mse = torch.full((12,), 0.01)
        mse[3] = 100.0
        assert not outdone(mse, torch.full((12,), 0.02))
        assert outdone(mse.flip(0), torch.full((12,), 0.005))
        mse[4] = 100.0  # two do
        assert outdone(mse, torch.full((12,), 0.02))

    def test_with_few_noises_it_does(self):
        mse = torch.tensor([0.01, 0.01, 0.01, 100.0])
        assert outdone(mse, torch.full((4,), 0.02))
