"""Fields as ``f(t, y)``, in torchdiffeq and in loops that call them as other libraries do."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import nn
from torchdiffeq import odeint, odeint_adjoint

import fewstep as fs
from fewstep.schedules import VE, VP, CondOT, Cosine

UNIT = torch.tensor([0.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
@pytest.mark.parametrize("schedule", [CondOT(), Cosine(), VE(20.0)], ids=lambda schedule: schedule.name)
def test_torchdiffeq_finds_the_exact_flow(mixture_1d, line, schedule, prediction):
    """Its steps go beyond t = 1, where a schedule may end."""
    network, transport = mixture_1d(schedule, prediction)
    field = network.field()
    start = field.initial_state(line)
    end = odeint(field.time_first(), start, UNIT, rtol=1e-8, atol=1e-8)[-1]
    zero, one = (torch.tensor(t, dtype=torch.float64) for t in (0.0, 1.0))
    torch.testing.assert_close(end, transport(start, zero, one), rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun3"])
def test_a_fixed_grid_of_torchdiffeq_is_ours(mixture_1d, line, method):
    field = mixture_1d(VP(), "noise")[0].field()
    grid = torch.linspace(0, 1, 5, dtype=torch.float64)
    theirs = odeint(field.time_first(), field.initial_state(line), grid, method=method)[-1]
    ours = getattr(fs.classical, method)(4).sample(field, line)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_every_form_of_the_time_is_taken(mixture_1d, line):
    field = mixture_1d(CondOT(), "data")[0].field()
    f, expected = field.time_first(), field(line, 0.3)
    for t in (0.3, torch.tensor(0.3), torch.tensor([0.3]), torch.full((9,), 0.3)):
        torch.testing.assert_close(f(t, line), expected, rtol=1e-6, atol=1e-6)
    times = torch.linspace(0, 1, 9, dtype=torch.float64)
    torch.testing.assert_close(f(times, line), field(line, times))
    assert torch.equal(f(1.25, line), f(1, line))
    assert torch.equal(f(torch.tensor(-0.5), line), f(0, line))


def test_samples_may_be_at_their_own_times(mixture_1d, line):
    """As torchode steps them: ``t`` of shape (B,), ``y`` of shape (B, D), a step size for each."""
    network, transport = mixture_1d()
    f, y = network.field().time_first(), line.clone()
    last = torch.linspace(0.2, 1, len(line), dtype=torch.float64)
    t, h = torch.zeros_like(last), last / 4000
    for _ in range(4000):
        middle = y + h[:, None] / 2 * f(t, y)
        y, t = y + h[:, None] * f(t + h / 2, middle), t + h
    zero = torch.tensor(0.0, dtype=torch.float64)
    expected = torch.stack([transport(line[i : i + 1], zero, last[i])[0] for i in range(len(line))])
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-6)


class Shifted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.3, -0.8], [0.9, 0.2]], dtype=torch.float64))
        self.eval()

    def forward(self, x, t, shift=0.0, scale=1.0):
        shift = shift[:, None] if isinstance(shift, torch.Tensor) else shift
        return scale * torch.tanh(x @ self.weight) + shift + t[:, None]


def test_conditions_are_bound():
    net, y = Shifted(), fs.noise(3, (2,), dtype=torch.float64)
    field, shift = fs.Field(net), torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    f = field.time_first({"scale": 2.0}, {"shift": shift})
    expected = field(y, 0.5, scale=2.0, shift=shift)
    assert torch.equal(f(0.5, y), expected)
    one_row = field.time_first({"scale": 2.0}, {"shift": shift[:1]})
    assert torch.equal(one_row(0.5, y[:2]), field(y[:2], 0.5, scale=2.0, shift=shift[:1].expand(2)))
    assert torch.equal(field.bind({"scale": 2.0}, {"shift": shift}, 3).time_first()(0.5, y), expected)
    with pytest.raises(ValueError, match="shift has 3 rows for 2 states"):
        f(0.5, y[:2])
    with pytest.raises(ValueError, match="conditions: must be a mapping of keyword arguments, not Tensor"):
        field.time_first(shift)
    guided = fs.Field(net, guidance=3.0, unconditional={"shift": torch.zeros(1, dtype=torch.float64)})
    away = field(y, 0.5, shift=torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(
        guided.time_first(per_sample={"shift": shift})(0.5, y), away + 3 * shift[:, None]
    )


def test_the_adjoint_finds_the_parameters():
    y, grid = fs.noise(3, (2,), dtype=torch.float64), torch.linspace(0, 1, 30, dtype=torch.float64)
    gradients = []
    for solve in (odeint, odeint_adjoint):
        net = Shifted()
        f = fs.Field(net).time_first()
        solve(f, y, grid, method="rk4")[-1].square().sum().backward()
        gradients.append(net.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-5, atol=1e-5)
    assert gradients[0].abs().min() > 0.01


def test_networks_are_those_of_the_field_and_of_what_it_is_derived_from():
    net, guide = Shifted(), Shifted()
    field = fs.Field(net, guidance=2.0, guide=guide)
    for one in (field, field.reversed(), field.reschedule(Cosine())):
        assert list(one.time_first().parameters()) == [net.weight, guide.weight]
    assert not field.time_first().training
    assert list(fs.Field(lambda x, t: x).time_first().parameters()) == []


def test_the_velocity_has_the_type_of_the_state():
    f = fs.Field(lambda x, t: x).time_first()
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        assert f(torch.tensor(0.5), torch.ones(2, 3, dtype=dtype)).dtype == dtype


def test_a_third_argument_may_be_passed_but_must_be_empty():
    f, y = fs.Field(lambda x, t: x).time_first(), torch.ones(2, 3)
    for args in (None, {}, ()):
        assert torch.equal(f(0.5, y, args), y)  # as diffrax calls it
        assert torch.equal(f(0.5, y, args=args), y)  # as torchdyn does, if there is an argument t
    assert "t" in inspect.signature(f.forward).parameters
    for args in ({"label": 3}, (1,), y, 0.5):
        with pytest.raises(
            TypeError, match=r"args must be None or empty.*time_first\(conditions, per_sample"
        ):
            f(0.5, y, args)


@pytest.mark.parametrize(
    ("t", "y", "words"),
    [
        (torch.ones(2, 3), torch.tensor(0.5), r"states y of shape \(B, ...\), not a tensor of shape \(\)"),
        (torch.ones(2, 3), 0.5, "not a float"),
        (torch.ones(2, 1), torch.ones(2, 3), r"one for each of 2 states, not of shape \(2, 1\)"),
        (torch.ones(3), torch.ones(2, 3), r"not of shape \(3,\)"),
        (None, torch.ones(2, 3), "must be a number or a tensor, not a NoneType"),
    ],
)
def test_wrong_calls_are_described(t, y, words):
    with pytest.raises(TypeError, match=words):
        fs.Field(lambda x, t: x).time_first()(t, y)


def test_a_field_given_to_torchdiffeq_names_the_way():
    field, y = fs.Field(lambda x, t: x), torch.ones(2, 3)
    with pytest.raises(
        TypeError, match=r"field\(x, t\).*not with a tensor of shape \(\) and.*time_first\(\)"
    ):
        odeint(field, y, torch.tensor([0.0, 1.0]))
    with pytest.raises(TypeError, match=r"not with a tensor of shape \(2,\).*time_first"):
        field(torch.zeros(2), y)
    with pytest.raises(TypeError, match=r"not with 0.5 and a tensor of shape \(2, 3\)"):
        field(0.5, y)
    with pytest.raises(TypeError, match="not with a list and"):
        field([1.0], 0.5)
