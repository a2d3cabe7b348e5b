"""Numbers out of range end in one sentence, wherever they are taken."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from fractions import Fraction

import numpy as np
import pytest
import torch

import fewstep as fs

MIDPOINT = fs.classical.midpoint(2)


@pytest.fixture
def field():
    return fs.Field(lambda x, t: -x, shape=(2,), name="decay")


@pytest.mark.parametrize(
    "options",
    [
        {"rtol": -1e-3},
        {"atol": math.nan},
        {"rtol": math.inf},
        {"rtol": "1"},
        {"max_nfe": 0},
        {"max_nfe": 2.5},
        {"rtol": torch.ones(2)},
    ],
    ids=str,
)
def test_tolerances_and_limits_are_checked_wherever_they_are_taken(field, options):
    (name,), x0 = options, fs.noise(2, (2,))
    takers = [
        lambda: fs.reference.solve(field, x0, **options),
        lambda: fs.reference.pairs(field, x0, **options),
        lambda: fs.log_likelihood(field, x0, **options),
        lambda: fs.Adaptive(**options),
        lambda: fs.fitting.Reference(**options),
    ]
    for take in takers:
        with pytest.raises(ValueError, match=f": {name} must be a "):
            take()


@pytest.mark.parametrize(
    "x0",
    [torch.ones(2, 2, dtype=torch.int32), torch.ones(2, 2) + 0j, np.ones((2, 2)), torch.tensor(1.0), [[1.0]]],
    ids=lambda x0: f"{type(x0).__name__} {getattr(x0, 'dtype', '')}",
)
def test_what_is_no_noise_is_refused_wherever_noise_is_taken(field, x0):
    takers = [
        lambda: MIDPOINT.sample(field, x0),
        lambda: fs.Adaptive().sample(field, x0),
        lambda: fs.reference.solve(field, x0),
        lambda: fs.reference.pairs(field, x0),
        lambda: fs.classical.grids.gits(field, 2, x0),
        lambda: fs.Pairs(x0, x0),
    ]
    for take in takers:
        with pytest.raises(ValueError, match=r"must be a floating-point tensor of shape \(B, \.\.\.\)"):
            take()


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, "8", None, math.nan, torch.tensor([2, 3])], ids=str)
def test_counts_are_whole_numbers(field, tmp_path, bad):
    takers = {
        "batch": [
            lambda: fs.compare(field, MIDPOINT, noise=4, batch=bad),
            lambda: fs.generate(field, MIDPOINT, range(4), tmp_path / "out", batch=bad),
            lambda: fs.fitting.Adam(batch=bad),
            lambda: fs.flows.Settings(batch=bad),
        ],
        "count": [lambda: fs.noise(bad, (2,))],
        "nfe": [lambda: fs.classical.named("midpoint", bad)],
        "steps": [lambda: fs.reference.solve(field, fs.noise(2, (2,)), steps=0 if bad is None else bad)],
    }
    for name, functions in takers.items():
        for take in functions:
            with pytest.raises(ValueError, match=f"{name}:? must be a whole number"):
                take()
    assert not (tmp_path / "out").exists()


def test_a_table_too_large_for_memory_is_refused_at_once():
    for make in (fs.classical.midpoint, lambda n: fs.classical.named("euler", n)):
        with pytest.raises(ValueError, match="whole number from 1 to 10,000, not 1000000"):
            make(1_000_000)


def test_settings_of_numpy_are_ready_for_json(field, tmp_path):
    settings = fs.flows.Settings(batch=np.int64(8), lr=np.float32(0.5))
    assert (type(settings.batch), type(settings.lr)) == (int, float)
    result = fs.generate(field, MIDPOINT, range(4), tmp_path / "out", batch=np.int64(2), shard=np.int64(2))
    assert result["count"] == 4


@pytest.mark.parametrize(
    ("one", "half"),
    [
        (torch.tensor(1), torch.tensor(0.5)),
        (np.array(1), np.array(0.5)),
        (np.int64(1), np.float32(0.5)),
        (1.0, Fraction(1, 2)),
    ],
    ids=["tensor", "array", "numpy", "fraction"],
)
def test_whatever_is_one_number_is_taken_as_that_number(field, tmp_path, one, half):
    x0 = fs.noise(2, (2,), seed=1)
    assert fs.noise(2 * one, (2,), seed=one, start=0 * one).equal(x0)
    assert field(x0, half).equal(field(x0, 0.5))
    plain = fs.reference.solve(field, x0, times=(0, 0.5, 1), rtol=0.5, max_nfe=64).states
    taken = fs.reference.solve(field, x0, times=[0 * one, half, one], rtol=half, max_nfe=64 * one).states
    assert taken.equal(plain)
    plain = fs.reference.solve(field, x0, steps=1).states
    assert fs.reference.solve(field, x0, steps=one).states.equal(plain)
    assert fs.grids.flow_shift(2 * one, half) == fs.grids.flow_shift(2, 0.5)
    assert fs.classical.midpoint(2 * one).describe() == MIDPOINT.describe()
    assert fs.Adaptive(half, half).sample(field, x0).x1.equal(fs.Adaptive(0.5, 0.5).sample(field, x0).x1)
    assert fs.schedules.VP(half).to_dict() == fs.schedules.VP(0.5).to_dict()
    scaled = fs.Field(field.model, data_moments=(0 * one, half), guidance_rescale=0 * half)
    assert scaled.data_moments == (0, 0.5)
    assert scaled(x0, half).equal(fs.Field(field.model, data_moments=(0, 0.5))(x0, 0.5))
    clocked = fs.Field(field.model, clock=(0 * one, half))
    assert json.dumps(clocked.describe()["clock"]) in ("[0, 0.5]", "[0.0, 0.5]")
    assert fs.classical.grids.gits(field, 2 * one, 2, candidates=(0, 0.3, 0.6, 1)).grid[0] == 0
    pairs = fs.reference.pairs(field, x0, rtol=half, batch=2 * one, steps=2 * one)
    pairs.save(tmp_path / "pairs.safetensors")
    assert pairs.provenance["rtol"] == 0.5
    settings = fs.flows.Settings(lr=half, steps=5 * one, seed=4 * one, ema=(8 * one,), betas=(half, half))
    plain = fs.flows.Settings(lr=0.5, steps=5, seed=4, ema=(8,), betas=(0.5, 0.5))
    assert asdict(settings) == asdict(plain)
    json.dumps(asdict(settings))  # numbers of Python


@pytest.mark.parametrize("times", [(0, 1 + 1e-12), (-1e-17, 1), (-1e-7, 1 + 1e-7)], ids=str)
def test_times_are_rounded_into_their_range(times):
    seen = []
    field = fs.Field(lambda x, t: seen.append(t.double()) or -x, shape=(2,))
    exact = fs.reference.solve(field, fs.noise(2, (2,)), times=(0, 1)).states
    assert fs.reference.solve(field, fs.noise(2, (2,)), times=times).states.equal(exact)
    field(fs.noise(2, (2,)), times[0]), field(fs.noise(2, (2,)), times[1])
    assert torch.cat(seen).aminmax() == (0, 1)
    assert fs.Field(field.model, guidance_interval=times).guidance_interval == (0, 1)
    for wrong in [(0, 1 + 1e-5), (-1e-5, 1), (0, 1, 1 + 1e-7)]:
        with pytest.raises(ValueError, match="times: must increase from 0 within"):
            fs.reference.solve(field, fs.noise(2, (2,)), times=wrong)


@pytest.mark.parametrize("t", [1.5, -0.1, math.nan, "0", None, torch.zeros(3)], ids=str)
def test_a_field_is_called_within_its_times(field, t):
    with pytest.raises(ValueError, match=r"t must be a time in \[0, 1\], a number or a tensor of shape"):
        field(fs.noise(2, (2,)), t)
    assert field(fs.noise(2, (2,)), 1 + 1e-9).shape == (2, 2)
