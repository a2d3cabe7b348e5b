"""Networks: shapes, time, smoothness, batch."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.networks import MLP, UNet
from fewstep.networks._time import TimeEmbedding


def make(network):
    """A network whose zeroed layers are filled, so that every part of it counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network.double().eval().requires_grad_(False)


NETWORKS = {
    "MLP points": (lambda: MLP((2,), width=16, blocks=2), (2,)),
    "MLP pictures": (lambda: MLP((1, 4, 4), width=16, blocks=1), (1, 4, 4)),
    "UNet": (lambda: UNet(1, width=8, multipliers=(1, 2), blocks=1), (1, 8, 8)),
    "UNet of three levels": (
        lambda: UNet(3, width=8, multipliers=(1, 1, 2), blocks=2, patch=1),
        (3, 8, 12),
    ),
}
each_network = pytest.mark.parametrize(("build", "shape"), NETWORKS.values(), ids=NETWORKS.keys())


@each_network
def test_the_output_is_like_the_state(build, shape):
    network, x = build().eval(), fs.noise(3, shape)
    assert network(x, torch.tensor(0.5)).shape == x.shape
    assert network.double()(x.double(), torch.tensor(0.5)).dtype == torch.float64


@each_network
def test_a_fresh_network_predicts_the_same_for_every_state_and_time(build, shape):
    """Its last layer is zero but for a bias."""
    network = build().eval()
    out = network(fs.noise(3, shape), torch.rand(3))
    torch.testing.assert_close(out, network(torch.zeros(3, *shape), torch.zeros(3)), rtol=0, atol=1e-6)


@each_network
def test_time_may_be_scalar_or_batch_and_matters(build, shape):
    network, x = make(build()), fs.noise(3, shape, dtype=torch.float64)
    out = network(x, torch.tensor(0.3))
    torch.testing.assert_close(network(x, torch.full((3,), 0.3)), out, rtol=1e-12, atol=1e-12)
    mixed = network(x, torch.tensor([0.3, 0.9, 0.3]))
    torch.testing.assert_close(mixed[[0, 2]], out[[0, 2]], rtol=1e-12, atol=1e-12)
    assert float((mixed[1] - out[1]).abs().max()) > 1e-4


@each_network
def test_samples_of_a_batch_do_not_see_each_other(build, shape):
    network, x = make(build()), fs.noise(4, shape, dtype=torch.float64)
    t = torch.tensor([0.1, 0.4, 0.6, 0.9])
    alone = torch.cat([network(x[i : i + 1], t[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(network(x, t), alone, rtol=1e-10, atol=1e-12)


@each_network
def test_every_weight_is_trained(build, shape):
    network = make(build()).requires_grad_()
    network(fs.noise(3, shape, dtype=torch.float64), torch.rand(3)).square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in network.parameters())


@each_network
def test_the_output_is_smooth_in_time(build, shape):
    """Half the step halves the change: no fast frequency is at work."""
    network, x = make(build()), fs.noise(2, shape, dtype=torch.float64)

    def change(h):
        late, early = (network(x, torch.tensor(t, dtype=torch.float64)) for t in (0.5 + h, 0.5))
        return float((late - early).norm())

    assert change(0.002) / change(0.001) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_knows_the_time_as_finely(dtype):
    """Rounded times would move the fastest of its sinusoids by tenths."""
    torch.manual_seed(0)
    embedding, t = TimeEmbedding(16, turns=40.0), torch.linspace(0, 1, 101)
    expected = embedding(t, torch.zeros(101, 1))
    found = embedding.to(dtype)(t, torch.zeros(101, 1, dtype=dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.01)
