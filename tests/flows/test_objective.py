"""Flow matching: the loss in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from fewstep.flows import flow_matching_loss


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
