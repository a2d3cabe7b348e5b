"""Flow matching: the loss in closed form, and a run that can be interrupted."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from fewstep.flows import flow_matching_loss, train_flow
from fewstep.networks import MLP


def draw_normals(count):
    return torch.randn(2, count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 0.9])
def test_the_best_loss_at_a_time_is_known(t):
    """For x0, x1 ~ N(0, 1): u* = (2t - 1) / v x with v = t^2 + (1 - t)^2, and the loss is 1 / v."""
    x0, x1 = draw_normals(200_000)
    v = t**2 + (1 - t) ** 2
    loss = flow_matching_loss(lambda x, time: (2 * t - 1) / v * x, x0, x1, torch.full((len(x0),), t).double())
    assert float(loss) == pytest.approx(1 / v, rel=0.015)


def test_the_best_loss_over_all_times_is_half_of_pi():
    x0, x1 = draw_normals(200_000)
    t = (torch.arange(len(x0), dtype=torch.float64) + 0.5) / len(x0)

    def best(x, t):
        t = t[:, None]
        return (2 * t - 1) / (t**2 + (1 - t) ** 2) * x

    assert float(flow_matching_loss(best, x0, x1, t)) == pytest.approx(math.pi / 2, rel=0.015)


def test_the_loss_by_hand():
    """The state is t x1 + (1 - t) x0 and the target x1 - x0, for every sample's own time."""
    x0 = torch.tensor([[[1.0, 2.0]], [[0.0, -1.0]]])
    x1 = torch.tensor([[[3.0, 0.0]], [[4.0, 1.0]]])
    t = torch.tensor([0.25, 0.5])
    seen = {}

    def model(x, time):
        seen.update(x=x, t=time)
        return torch.ones_like(x)

    loss = flow_matching_loss(model, x0, x1, t)
    torch.testing.assert_close(seen["x"], torch.tensor([[[1.5, 1.5]], [[2.0, 0.0]]]))
    assert torch.equal(seen["t"], t)
    # targets (2, -2), (4, 2): squares of 1 - target
    assert float(loss) == pytest.approx((1 + 9 + 9 + 1) / 4)


def two_modes(batch, generator):
    side = 2.0 * torch.randint(2, (batch, 1), generator=generator) - 1
    return side + 0.1 * torch.randn(batch, 1, generator=generator)


def fresh():
    torch.manual_seed(0)
    return MLP((1,), width=16, blocks=1)


OPTIONS = {"steps": 12, "batch": 8, "lr": 1e-2, "warmup": 3, "checkpoint_every": 4}


class LostMachine(Exception):
    """Ends a run in the middle."""


def test_an_interrupted_run_ends_with_the_very_weights_of_a_whole_one(tmp_path):
    whole_model = fresh()
    whole = train_flow(whole_model, two_modes, **OPTIONS)
    drawn = []

    def failing(batch, generator):
        drawn.append(batch)
        if len(drawn) == 11:
            raise LostMachine
        return two_modes(batch, generator)

    checkpoint = tmp_path / "run.safetensors"
    with pytest.raises(LostMachine):
        train_flow(fresh(), failing, checkpoint=checkpoint, **OPTIONS)
    model, steps = fresh(), []

    def counting(batch, generator):
        steps.append(batch)
        return two_modes(batch, generator)

    resumed = train_flow(model, counting, checkpoint=checkpoint, **OPTIONS)
    assert len(steps) == 4  # from the checkpoint of step 8
    for mine, other in ((resumed, whole), (model, whole_model)):
        for key, value in other.state_dict().items():
            assert torch.equal(mine.state_dict()[key], value), key
    finished = train_flow(fresh(), failing, checkpoint=checkpoint, **OPTIONS)
    assert all(torch.equal(a, b) for a, b in zip(finished.parameters(), whole.parameters(), strict=True))


def test_a_run_follows_its_seed():
    a, b, c = (train_flow(fresh(), two_modes, seed=seed, **OPTIONS) for seed in (0, 0, 1))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True))


class Constant(nn.Module):
    """A velocity that is one number."""

    def __init__(self):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1))

    def forward(self, x, t):
        return self.mean.expand_as(x)


def test_training_finds_the_best_constant_velocity():
    """It is the mean of x1 - x0, and the average that comes back is fit for use and out of autograd."""
    average = train_flow(
        Constant(),
        lambda batch, generator: 3 + 0.1 * torch.randn(batch, 1, generator=generator),
        steps=300,
        batch=64,
        lr=0.1,
        warmup=10,
        ema_half_life=20,
    )
    assert average.mean.item() == pytest.approx(3, abs=0.1)
    assert not average.training
    assert not average.mean.requires_grad
