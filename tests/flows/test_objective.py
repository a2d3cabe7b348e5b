"""Flow matching: the loss in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors import safe_open

from fewstep.data import ArrayDataset
from fewstep.flows import FlowMatching, Learned, Settings, Trainer, flow_matching_loss
from fewstep.models import GaussianMixture
from fewstep.networks import MLP, GaussianEncoder
from fewstep.schedules import VP, CondOT, Cosine


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


@pytest.mark.parametrize("schedule", [CondOT(), Cosine(), VP()], ids=lambda s: s.name)
def test_the_loss_on_a_schedule_by_differences(schedule):
    """The target is the derivative of ``alpha(t) x1 + sigma(t) x0``, here by central differences."""
    x0, x1 = draw_normals(64)
    t = torch.linspace(0.1, 0.9, 64, dtype=torch.float64)

    def path(t):
        at = schedule(t[:, None])
        return at.alpha * x1 + at.sigma * x0

    def model(x, time):
        torch.testing.assert_close(x, path(t))
        assert torch.equal(time, t)
        return torch.zeros_like(x)

    slope = (path(t + 1e-6) - path(t - 1e-6)) / 2e-6
    loss = flow_matching_loss(model, x0, x1, t, schedule)
    assert float(loss) == pytest.approx(float(slope.square().mean()), rel=1e-7)


def test_the_exact_field_of_a_diffusion_is_what_its_loss_is_least_for():
    """Against the mixture's closed form, which knows nothing of objectives."""
    u, eps = draw_normals(40_000)
    x1, x0 = 2 + 0.5 * u, eps
    means = torch.tensor([[2.0]], dtype=torch.float64)
    exact = GaussianMixture(means, torch.tensor([0.5], dtype=torch.float64), schedule=VP())
    t = torch.full((len(x0),), 0.6, dtype=torch.float64)

    def loss(shift, scale):
        return float(flow_matching_loss(lambda x, t: scale * exact(x, t) + shift, x0, x1, t, VP()))

    assert loss(0, 1) < min(loss(0.1, 1), loss(-0.1, 1), loss(0, 1.1), loss(0, 0.9))


def test_units_keep_the_loss_of_the_plane():
    """In coordinates ``x / s``, the errors in units of ``s`` are those of the flow ``s u(x / s)`` itself."""
    s = torch.tensor([6.0, 1.0], dtype=torch.float64)
    x1 = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    objective = FlowMatching(torch.nn.Linear(2, 2).double(), units=s)
    objective.flow = Linear(objective.flow)
    generator = torch.Generator().manual_seed(3)
    losses = objective(x1, generator=generator)
    generator.manual_seed(3)
    x0 = torch.randn(x1.shape, dtype=x1.dtype, generator=generator)
    t = torch.rand(50, dtype=x1.dtype, generator=generator)
    plain = flow_matching_loss(lambda x, t: s * objective.flow(x / s, t), s * x0, s * x1, t)
    torch.testing.assert_close(losses["flow_matching"], plain)


class Linear(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x, t):
        return self.layer(x)


def test_schedule_and_units_are_part_of_a_run_and_of_its_weights(tmp_path):
    """What goes without saying is not said, so that earlier runs may be resumed."""

    def objective(**options):
        encoder = GaussianEncoder(MLP((2,), width=8, blocks=1, out_channels=4))
        return FlowMatching(MLP((2,), width=8, blocks=1), Learned(encoder), **options)

    data = ArrayDataset(torch.randn(32, 2), name="points")
    assert objective().describe()["objective"] == {"name": "FlowMatching"}
    settings = Settings(steps=2, batch=8, warmup=1)
    trained = objective(schedule=VP(), units=(6, 1))
    Trainer(trained, data, settings, out=tmp_path, device="cpu", progress=False).run()
    with safe_open(tmp_path / "flow.safetensors", "pt") as file:
        assert '"name": "vp"' in str(file.metadata())
    with pytest.raises(ValueError, match=r"objective schedule was .*'vp'.* and is None"):
        Trainer(objective(units=(6, 1)), data, settings, out=tmp_path, device="cpu", progress=False)
    with pytest.raises(ValueError, match=r"objective weights was \[36.0, 1.0\] and is None"):
        Trainer(objective(schedule=VP()), data, settings, out=tmp_path, device="cpu", progress=False)
