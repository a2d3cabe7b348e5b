"""The reference against closed forms, and its cache."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.reference import CallLimitError, solve
from fewstep.schedules import VE, VP, CondOT, Cosine


def rmse(a, b):
    return float((a - b).double().square().mean().sqrt())


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7, 1e-10])
def test_the_linear_ode_is_solved_within_tolerance(linear_ode, tolerance):
    velocity, solution = linear_ode
    x0 = fs.noise(20, (3,), dtype=torch.float64)
    states, nfe = solve(fs.Field(velocity), x0, rtol=tolerance, atol=tolerance)
    assert torch.equal(states[0], x0)
    assert rmse(states[-1], solution(x0)) < 10 * tolerance
    assert nfe > 7


@pytest.mark.parametrize("schedule", [CondOT(), VP(), Cosine(), VE(5.0, 0.01)], ids=repr)
def test_one_gaussian_follows_its_closed_form(schedule):
    """x_t - alpha mu scales like the standard deviation of x_t."""
    mu, s = torch.tensor([[0.5, -1.0]], dtype=torch.float64), 0.3
    field = fs.models.GaussianMixture(mu, s, schedule=schedule, prediction="noise").field()
    x0 = fs.noise(10, (2,), dtype=torch.float64)

    def at(t):
        alpha, sigma = schedule(t)[:2]
        return alpha * mu, (alpha**2 * s**2 + sigma**2).sqrt()

    (mean0, std0), times = at(0.0), (0.0, 0.5, 0.9)
    states, _ = solve(field, x0, times=times, rtol=1e-9, atol=1e-9)
    for t, state in zip(times, states, strict=True):
        mean, std = at(t)
        assert rmse(state, mean + std / std0 * (field.initial_state(x0) - mean0)) < 2e-4 * float(std)


def test_a_mixture_keeps_its_quantiles(mixture_1d, line):
    network, transport = mixture_1d()
    states, _ = solve(network.field(), line, rtol=1e-10, atol=1e-10)
    assert rmse(states[-1], transport(line, 0.0, 1.0)) < 1e-9


def test_tighter_tolerances_cost_more_and_err_less(mixture_1d, line):
    network, transport = mixture_1d()
    exact = transport(line, 0.0, 1.0)
    errors, calls = [], []
    for tolerance in (1e-3, 1e-5, 1e-7, 1e-9):
        states, nfe = solve(network.field(), line, rtol=tolerance, atol=tolerance)
        errors.append(rmse(states[-1], exact))
        calls.append(nfe)
    assert all(b < a / 5 for a, b in pairwise(errors))
    assert calls == sorted(calls)


@pytest.mark.parametrize("speed", [1.0, 1e-3, 1e-9])
def test_the_field_is_never_called_outside_its_times(counted, speed):
    """Not even by the solver's first guess of a step, which is long where the field is slow."""
    network = counted(lambda x, t: speed * x)
    solve(fs.Field(network), fs.noise(3, (2,), dtype=torch.float64))
    assert 0 <= min(t.min() for t in network.times) <= max(t.max() for t in network.times) <= 1


def test_the_call_cap_fails_loudly(counted):
    network = counted(lambda x, t: torch.sin(300 * t[:, None]) * x)
    with pytest.raises(CallLimitError, match=r"30 calls did not reach t = 1 .* raise max_nfe, loosen"):
        solve(fs.Field(network), fs.noise(3, (2,)), max_nfe=30)
    assert len(network.times) == 30 + 2  # two that would tell a random network


def test_nan_is_named():
    with pytest.raises(FloatingPointError, match=r"network returned NaN or infinity at t = 0 \(call 1\)"):
        solve(fs.Field(lambda x, t: x * torch.nan), fs.noise(3, (2,)))


def test_a_tolerance_that_float32_cannot_resolve_is_told():
    field = fs.models.random_mixture(2, 5, std=0.02).field()
    with pytest.raises((FloatingPointError, CallLimitError), match="loosen"):
        solve(field, fs.noise(3, (2,)), rtol=1e-12, atol=1e-14, max_nfe=3000)


def test_a_float64_state_keeps_the_type_of_the_noise(counted):
    """The network sees float32, the state is float64, and rounding is out of the way."""
    network = counted(lambda x, t: -x)
    seen = []

    def typed(x, t):
        seen.append(x.dtype)
        return network(x, t)

    x0 = fs.noise(50, (2,))
    states, _ = solve(fs.Field(typed), x0, rtol=1e-8, atol=1e-8, dtype=torch.float64)
    assert set(seen) == {torch.float32}
    assert states.dtype == torch.float32
    assert rmse(states[-1], x0.double() * torch.tensor(-1.0, dtype=torch.float64).exp()) < 1e-7


def test_pairs_count_their_calls_and_estimate_their_error(counted, mixture_1d, line):
    network, transport = mixture_1d()
    network = counted(network)
    pairs = fs.reference.pairs(fs.Field(network), line, rtol=1e-4, atol=1e-4, batch=4)
    true = rmse(pairs.x1, transport(line, 0.0, 1.0))
    assert true / 10 < pairs.error < 10 * true
    assert pairs.calls == sum(len(t) for t in network.times)
    assert 0 < pairs.nfe < len(network.times)
    assert torch.equal(pairs.x0, line)


def test_conditions_go_with_their_samples():
    x0, speed = fs.noise(5, (2,), dtype=torch.float64), torch.linspace(-1, 1, 5, dtype=torch.float64)
    field = fs.Field(lambda x, t, speed, sign: sign * speed[:, None] * x)
    tight = {"rtol": 1e-9, "atol": 1e-9, "batch": 2}
    pairs = fs.reference.pairs(field, x0, **tight, conditions={"sign": -1}, per_sample={"speed": speed})
    torch.testing.assert_close(pairs.x1, x0 * (-speed).exp()[:, None], rtol=1e-7, atol=1e-7)
    assert torch.equal(pairs.per_sample["speed"], speed)


@pytest.fixture
def cached(counted, tmp_path):
    """``cached(...)``: reference pairs through a cache, and how many calls they took."""

    def run(x0=None, *, name="decay", batch=2, **options):
        network = counted(lambda x, t, **conditions: -x)
        x0 = fs.noise(6, (2,)) if x0 is None else x0
        field = fs.Field(network, options.pop("schedule", None), name=name)
        pairs = fs.reference.pairs(field, x0, batch=batch, cache=tmp_path / "cache", **options)
        return pairs, len(network.times)

    return run


def test_a_second_run_calls_nothing(cached):
    first, calls = cached()
    second, again = cached()
    assert calls > 0
    assert again == 0
    assert torch.equal(first.x1, second.x1)
    assert (first.nfe, first.calls, first.error) == (second.nfe, second.calls, second.error)


def test_an_interrupted_run_solves_only_what_is_missing(cached, tmp_path):
    first, calls = cached()
    shards = sorted(tmp_path.glob("cache/*/*.safetensors"))
    assert len(shards) == 3
    shards[1].unlink()
    second, again = cached()
    assert 0 < again < calls / 2
    assert torch.equal(first.x1, second.x1)
    assert first.calls == second.calls


@pytest.mark.parametrize(
    "other",
    [
        {"name": "growth"},
        {"schedule": VP()},
        {"rtol": 1e-4},
        {"atol": 1e-4},
        {"dtype": torch.float64},
        {"batch": 3},
        {"x0": fs.noise(6, (2,), seed=1)},
        {"x0": fs.noise(6, (2,)).reshape(6, 1, 2)},
        {"per_sample": {"label": torch.arange(6)}},
        {"conditions": {"label": torch.arange(6)}},
        {"conditions": {"text": np.zeros(3)}},
    ],
    ids=str,
)
def test_another_request_is_solved_anew(cached, other):
    cached()
    _, calls = cached(**other)
    assert calls > 0


def test_long_conditions_are_told_apart_to_the_last_number(cached):
    """A repr of a long tensor leaves out its middle."""
    text = torch.zeros(5000)
    for given in (text, text.numpy()):
        cached(conditions={"text": given})
        changed = given + 0
        changed[2500] = 1
        assert cached(conditions={"text": changed})[1] > 0
        assert cached(conditions={"text": given})[1] == 0


def test_the_cache_says_where_it_came_from(cached, tmp_path):
    pairs, _ = cached(provenance={"seed": 0})
    (file,) = tmp_path.glob("cache/*/provenance.json")
    record = json.loads(file.read_text())
    assert record["rtol"] == pairs.provenance["rtol"] == 1e-5
    assert record["field"]["model"] == "decay"
    assert record["seed"] == 0
    assert {"fingerprint", "noise", "method", "state_dtype"} <= record.keys()


def test_a_damaged_shard_is_named(cached, tmp_path):
    cached()
    shard = next(tmp_path.glob("cache/*/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"not a readable file of pairs .* write it again"):
        cached()


class TestFinest:
    """Networks of half precision get tolerances that their rounding allows."""

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [(torch.float64, 1e-6), (torch.float32, 1e-6), (torch.float16, 3e-5), (torch.bfloat16, 3e-5)],
    )
    def test_by_type(self, dtype, tolerance):
        field = fs.Field(torch.nn.Linear(2, 2, dtype=dtype).eval())
        assert fs.reference.finest(field) == tolerance
        assert fs.reference.finest(field.reversed()) == tolerance

    def test_a_function_is_taken_for_float32(self):
        assert fs.reference.finest(fs.Field(lambda x, t: -x)) == 1e-6

    def test_fits_and_comparisons_take_it(self):
        field = fs.models.bundled("digits")
        field.model.to(torch.bfloat16)
        x0 = fs.noise(32, (1, 8, 8), seed=3)
        table = fs.compare(field, fs.classical.euler(2), noise=x0)
        fit = fs.fit(field, 2, pairs=16, optimizer=fs.fitting.GaussNewton(iterations=1))
        for provenance in (table.protocol["reference"], fit.solver.protocol["reference"]):
            assert (provenance["rtol"], provenance["atol"]) == (3e-5, 3e-5)
        made = fs.reference.pairs(field, x0, rtol=3e-5, atol=3e-5)
        assert made.calls < 300 * len(x0)
        field.model.float()
        exact = fs.reference.pairs(field, x0, rtol=1e-6, atol=1e-6)
        assert (made.x1 - exact.x1).square().mean().sqrt() < 0.003
