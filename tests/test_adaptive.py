"""The adaptive solver against closed forms, the reference, and a network that counts."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

import fewstep as fs
from fewstep.reference import CallLimitError


def rmse(a, b):
    return float((a - b).double().square().mean().sqrt())


def stiffness(x, t, rate):
    """dx/dt = rate cos(rate t) x, whose solution at 1 is x exp(sin(rate))."""
    return rate[:, None] * torch.cos(rate * t)[:, None] * x


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_the_linear_ode_is_solved_within_tolerance(linear_ode, tolerance):
    velocity, solution = linear_ode
    x0 = fs.noise(20, (3,), dtype=torch.float64)
    result = fs.Adaptive(tolerance, tolerance).sample(fs.Field(velocity), x0)
    assert rmse(result.x1, solution(x0)) < 10 * tolerance


def test_a_mixture_keeps_its_quantiles_better_the_tighter_the_tolerance(mixture_1d, line):
    """Errors fall with the tolerance, and calls grow like its inverse fifth root: that is order five."""
    network, transport = mixture_1d()
    exact = transport(line, 0.0, 1.0)
    results = [fs.Adaptive(tol, tol).sample(network.field(), line) for tol in (1e-4, 1e-6, 1e-8, 1e-10)]
    errors = [rmse(result.x1, exact) for result in results]
    steps = [float(result.accepted.double().mean()) for result in results]
    assert all(b < a / 10 for a, b in pairwise(errors))
    assert errors[-1] < 1e-9
    assert steps[-1] / steps[1] == pytest.approx(10 ** (4 / 5), rel=0.25)


@pytest.mark.parametrize("prediction", ["noise", "data", "v"])
@pytest.mark.parametrize("schedule", [fs.schedules.CondOT(), fs.schedules.Cosine()], ids=repr)
def test_it_agrees_with_the_reference_whatever_the_network_predicts(mixture_1d, line, schedule, prediction):
    field = mixture_1d(schedule, prediction)[0].field()
    expected = fs.reference.solve(field, line, rtol=1e-9, atol=1e-9).states[-1]
    assert rmse(fs.Adaptive(1e-8, 1e-8).sample(field, line).x1, expected) < 1e-6


def test_samples_do_not_depend_on_the_batch(mixture_1d, line):
    field = mixture_1d()[0].field()
    whole = fs.Adaptive().sample(field, line)
    for k in (0, 4, 8):
        one = fs.Adaptive().sample(field, line[k : k + 1])
        torch.testing.assert_close(one.x1, whole.x1[k : k + 1], rtol=1e-12, atol=1e-12)
        assert all(int(a) == int(b[k]) for a, b in zip(one[1:], whole[1:], strict=True))


def test_every_call_is_counted_for_the_sample_it_was_made_for():
    calls = torch.zeros(4, dtype=torch.int64)

    def network(x, t, rate, number):
        calls[number] += 1
        return stiffness(x, t, rate)

    rate = torch.tensor([0.0, 1.0, 6.0, 20.0], dtype=torch.float64)
    x0 = fs.noise(4, (3,), dtype=torch.float64)
    result = fs.Adaptive(1e-8, 1e-8).sample(
        fs.Field(network), x0, per_sample={"rate": rate, "number": torch.arange(4)}
    )
    assert torch.equal(result.nfe, calls)
    assert torch.equal(calls, 2 + 6 * (result.accepted + result.rejected))
    assert calls.unique().numel() == 4
    torch.testing.assert_close(result.x1, x0 * rate.sin().exp()[:, None], rtol=1e-6, atol=1e-6)


def test_the_last_step_ends_at_exactly_one_and_no_call_lies_outside(counted):
    network = counted(lambda x, t: 3 * torch.cos(9 * t)[:, None] * x)
    points = []
    x0 = fs.noise(5, (2,), dtype=torch.float64)
    callback = lambda index, t, x, u: points.append((index, t, x, u))  # noqa: E731
    result = fs.Adaptive().sample(fs.Field(network), x0, callback=callback)
    times = torch.cat(network.times)
    assert (float(times.min()), float(times.max())) == (0, 1)
    last = {
        int(k): (float(t), x) for index, ts, xs, _ in points for k, t, x in zip(index, ts, xs, strict=True)
    }
    assert all(t == 1 for t, _ in last.values())
    assert torch.equal(torch.stack([last[k][1] for k in range(5)]), result.x1)
    _, t, x, u = points[-1]
    assert torch.equal(u, network(x, t))
    assert sum(len(index) for index, *_ in points) == 5 + int(result.accepted.sum())


@pytest.mark.parametrize("speed", [0.0, 1e-9])
def test_a_field_that_stands_still_is_crossed(speed):
    x0 = fs.noise(3, (2,))
    result = fs.Adaptive().sample(fs.Field(lambda x, t: speed * x), x0)
    torch.testing.assert_close(result.x1, x0)
    assert int(result.nfe.max()) < 80


def test_a_float64_state_keeps_the_type_of_the_noise():
    seen = set()

    def network(x, t):
        seen.add(x.dtype)
        return -x

    x0 = fs.noise(50, (2,))
    result = fs.Adaptive(1e-8, 1e-8, dtype=torch.float64).sample(fs.Field(network), x0)
    assert seen == {torch.float32}
    assert result.x1.dtype == torch.float32
    assert rmse(result.x1, x0.double() * torch.tensor(-1.0, dtype=torch.float64).exp()) < 1e-7


def test_the_call_cap_fails_loudly(counted):
    """Only the stiff samples are named, and no call is made past the cap."""
    network = counted(stiffness)
    rate = torch.tensor([0.0, 300.0, 300.0], dtype=torch.float64)
    x0 = fs.noise(3, (2,), dtype=torch.float64)
    with pytest.raises(
        CallLimitError, match=r"100 calls did not take 2 of 3 samples to t = 1 .* raise max_nfe"
    ):
        fs.Adaptive(max_nfe=100).sample(fs.Field(network), x0, per_sample={"rate": rate})
    assert len(network.times) <= 100 + 2  # two that would tell a random network


def test_nan_is_named():
    field = fs.Field(lambda x, t: torch.where((t > 0.5)[:, None], torch.nan, 1.0) * x)
    with pytest.raises(FloatingPointError, match="network returned NaN or infinity for 3 of 3 samples"):
        fs.Adaptive().sample(field, fs.noise(3, (2,)))


def test_a_jump_that_no_step_can_resolve_is_told():
    field = fs.Field(lambda x, t: 1 / (t - 1 / 3).abs().clamp(min=1e-300)[:, None] * torch.ones_like(x))
    with pytest.raises((FloatingPointError, CallLimitError), match="loosen"):
        fs.Adaptive(1e-9, 1e-9).sample(field, fs.noise(3, (2,), dtype=torch.float64))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="Adaptive: rtol must be a positive number, not 0"):
        fs.Adaptive(0, 1)
    with pytest.raises(ValueError, match=r"takes one time for the batch .* use fs\.reference\.solve"):
        fs.Adaptive().sample(fs.Field(lambda x, t: x, time_shape="scalar"), fs.noise(2, (2,)))
