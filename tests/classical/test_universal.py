"""Universal solvers: exact under changes of coordinates, and better than classical ones on an unseen flow."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import torch

import fewstep as fs
from fewstep.classical import data_scale, named, universal
from fewstep.models import GaussianMixture, random_mixture
from fewstep.schedules import DDPM, VE, VP, CondOT, Cosine

CALLS = sorted(map(int, json.loads((files("fewstep.classical") / "universal.json").read_text())))


def noises(count: int, dimension: int) -> torch.Tensor:
    return fs.noise(count, (dimension,), seed=5, dtype=torch.float64)


@pytest.mark.parametrize("nfe", CALLS)
def test_samples_of_larger_data_are_as_much_larger(nfe):
    mixture, x0 = random_mixture(6, 4, std=0.3), noises(32, 6)
    larger = GaussianMixture(2.5 * mixture.means, 2.5 * mixture.variances.sqrt(), mixture.log_weights.exp())
    own = universal(nfe, scale=1.2).sample(mixture.field(), x0)
    torch.testing.assert_close(
        universal(nfe, scale=3.0).sample(larger.field(), x0), 2.5 * own, rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("nfe", CALLS)
def test_samples_move_with_the_mean_of_the_data(nfe):
    mixture, x0 = random_mixture(6, 4, std=0.3), noises(32, 6)
    moved = GaussianMixture(mixture.means + 0.7, mixture.variances.sqrt(), mixture.log_weights.exp())
    solver = universal(nfe, scale=1.2)
    own = solver.sample(mixture.field(), x0)
    torch.testing.assert_close(solver.sample(moved.field(), x0), own + 0.7, rtol=0, atol=1e-9)


@pytest.mark.parametrize("schedule", [Cosine(), VP(), VE(), DDPM()], ids=repr)
def test_other_schedules_and_predictions_cost_no_accuracy(schedule):
    mixture, x0 = random_mixture(6, 4, std=0.3), noises(64, 6)
    means, stds, weights = mixture.means + 1, mixture.variances.sqrt(), mixture.log_weights.exp()

    def error(schedule, solver):
        field = GaussianMixture(means, stds, weights, schedule, "noise").field()
        exact = fs.reference.pairs(field, x0, rtol=1e-7, atol=1e-7).x1
        return float((solver.sample(field, x0) - exact).square().mean(1).sqrt().mean())

    # VP, VE and DDPM begin with a little signal; without the step back to noise they have 1.4x to 2x this.
    plain = error(CondOT(), universal(8, scale=1.2))
    assert error(schedule, universal(8, schedule, scale=1.2)) < 1.15 * plain
    assert error(schedule, named("deis3", 8, schedule)) > 5 * plain


def test_it_calls_as_often_as_asked_and_starts_in_noise():
    for nfe in CALLS:
        solver = universal(nfe, scale=2.0)
        assert (solver.nfe, solver.times[0], solver.name) == (nfe, 0.0, f"universal-{nfe}")


def test_scale_weighs_principal_components_by_variance():
    x = fs.noise(50, (3,), seed=1, dtype=torch.float64)
    # Columns with mean 0, variance 1 and no correlation.
    x = torch.linalg.qr(x - x.mean(0))[0] * 50**0.5
    assert data_scale(0.3 * x + 5) == pytest.approx(0.3)
    # Variances 4 and 1 have shares 0.8 and 0.2 of the sum; the third is nothing.
    wide = x * torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
    turn = torch.linalg.qr(
        torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )[0]
    assert data_scale(wide @ turn) == pytest.approx(2**0.8)


def test_scale_is_the_same_with_fewer_samples_than_dimensions():
    x = fs.noise(20, (2, 30), seed=1, dtype=torch.float64)
    x = x - x.mean(0)
    v = torch.linalg.svdvals(x.flatten(1)).square() / len(x)
    expected = float((v * v.clamp(min=1e-300).log()).sum() / v.sum() / 2)
    assert data_scale(x) == pytest.approx(torch.tensor(expected).exp().item(), rel=1e-6)


def test_on_the_bundled_flow_of_digits_it_beats_the_solvers_it_corrects():
    field, x0 = fs.models.bundled("digits"), fs.noise(64, (1, 8, 8), seed=9)
    exact = fs.reference.pairs(field, x0, rtol=1e-5, atol=1e-5)
    for nfe in CALLS:
        solvers = (universal(nfe, scale=1.0), named("ab3/cosine", nfe), named("unipc2", nfe))
        errors = [
            float((s.sample(field, x0) - exact.x1).square().mean((1, 2, 3)).sqrt().mean()) for s in solvers
        ]
        assert errors[0] < min(errors[1:]), nfe


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: universal(3, scale=1.0), "nfe must be one of 4, "),
        (lambda: universal(8, scale=0.0), "scale must be a positive number, not 0.0"),
        (lambda: universal(8, DDPM(steps=300), scale=1.0), "begins with more signal"),
        (lambda: data_scale(torch.ones(5, 3)), "several different ones"),
        (lambda: data_scale(torch.randn(1, 3)), "several different ones"),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_condot_is_the_default():
    assert universal(4, scale=2.0) == universal(4, CondOT(), scale=2.0)
