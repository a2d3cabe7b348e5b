"""The published procedures: they descend, count their calls, and choose on validation pairs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

import fewstep as fs

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import published_procedures as procedures
from published_procedures import Descent, logarithm

from fewstep.families import NonStationary


@pytest.fixture(scope="module")
def field():
    return fs.models.bundled("mixture-2d")


@pytest.fixture(scope="module")
def pairs(field):
    return fs.reference.pairs(field, fs.noise(100, (2,), seed=1).double(), rtol=1e-6, atol=1e-6)


def descent(field, pairs):
    family = NonStationary(fs.classical.midpoint(2), field.schedule)
    return Descent(field, family, pairs[64:])


def test_adam_descends_and_counts_its_calls(field, pairs):
    run = descent(field, pairs)
    start = run.psnr
    run.adam(pairs[:64], logarithm, 0.01, 16, 0.1, 400)
    assert run.psnr > start + 1
    assert run.backward == 40 * 16 * 4
    assert run.rollout.calls == run.backward + 21 * 36 * 4  # validations, of which the first is of the start
    found = run.found("", 100)
    error = procedures.per_sample_mse(found.solver.sample(field, pairs.x0[64:]), pairs.x1[64:])
    assert procedures.mean_psnr(error) == pytest.approx(run.psnr, abs=1e-3)


def test_the_gradient_is_that_of_differences(field, pairs):
    run = descent(field, pairs)
    x0 = pairs.x0[:2].clone().requires_grad_()
    mse = run.gradient(pairs[:2], torch.mean, torch.inf, x0)
    step = 1e-4
    with torch.no_grad():
        run.parts[0][3] += step
        moved = (run.errors(pairs[:2]) - mse).mean() / step
        assert float(moved) == pytest.approx(float(run.parts[0].grad[3]), rel=0.02)
        run.parts[0][3] -= step
        there = fs.Pairs(x0 - step * x0.grad / x0.grad.norm(), pairs.x1[:2])
        falls = (mse - run.errors(there)).mean() / step
        assert float(falls) == pytest.approx(float(x0.grad.norm()), rel=0.02)


def test_noises_stay_in_their_balls():
    centre = torch.randn(5, 2, 3)
    away = torch.randn(5, 2, 3) * torch.tensor([0.01, 0.1, 1, 10, 100]).reshape(5, 1, 1)
    inside = procedures._in_ball(centre + away, centre, 0.5) - centre
    norms, before = inside.flatten(1).norm(dim=1), away.flatten(1).norm(dim=1)
    assert torch.allclose(norms, before.clamp(max=0.5), rtol=1e-3)
    assert torch.allclose(
        torch.nn.functional.cosine_similarity(inside.flatten(1), away.flatten(1)), torch.ones(5)
    )


def test_the_settings_are_those_of_the_validation_pairs(field, pairs, monkeypatch):
    monkeypatch.setattr(procedures, "SHORT", 20)
    monkeypatch.setattr(procedures, "LONG", 60)
    starts = ("euler", "ab2/cosine")
    families = {start: NonStationary(fs.classical.named(start, 4), field.schedule) for start in starts}
    short, long = procedures.tuned(field, 1.0, pairs, logarithm, families)
    assert short.settings.startswith("tuned: ab2/cosine")  # Euler's start is far worse
    assert short.settings.replace("20 it", "60 it") == long.settings
    assert (short.search, long.search) == (3 * short.calls, 4 * short.calls)


@pytest.mark.parametrize(
    ("rival", "start"),
    [
        (partial(procedures.ld3, "ipndm"), fs.classical.named("ipndm", 4)),
        (procedures.gs, fs.classical.named("dpmpp_3m", 4)),
        (procedures.bns, fs.classical.midpoint(2)),
    ],
    ids=["LD3", "GS", "BNS"],
)
def test_every_rival_gains_on_its_start(field, pairs, rival, start):
    some = pairs[:20] if isinstance(rival, partial) else pairs  # LD3 validates after every second
    (found,) = rival(field, 4, 0.02, some)
    error, before = (
        procedures.per_sample_mse(solver.sample(field, some.x0), some.x1).mean()
        for solver in (found.solver, start)
    )
    assert error < 0.95 * before
    assert 0 < found.backward <= found.calls
    assert found.pairs == len(some)


def test_calls_include_those_of_the_reference(field):
    (row,) = procedures.study("mixture-2d", [4], 0.001, ["BNS"])
    x0 = fs.noise(584, (2,), seed=procedures.SEED)
    reference = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6).calls
    validations = (1 + 15) * 64 * 4
    assert row["calls"] == reference + 15 * 40 * 4 + validations
