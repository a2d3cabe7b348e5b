"""Networks of this package, and of other frameworks through adapters, on the device."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep import adapters
from fewstep.networks import MLP, SongUNet, UNet, save_network

pytestmark = pytest.mark.device

NETWORKS = {
    "mlp": (lambda: MLP((1, 8, 8), width=16, blocks=1), (1, 8, 8)),
    "unet": (lambda: UNet(1, 8), (1, 8, 8)),
    "song": (lambda: SongUNet(8, 1, 1, model_channels=16, channel_mult=[1], num_blocks=1), (1, 8, 8)),
}


class Convolution(nn.Module):
    """``(x, t, **conditions)``, with a name for each of its inputs."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Conv2d(2, 2, 3, padding=1)
        self.label = nn.Embedding(4, 2)

    def forward(self, x, t, class_labels=None):
        h = torch.tanh(self.inner(x) + t.to(x.dtype).reshape(-1, 1, 1, 1))
        return h if class_labels is None else h + self.label(class_labels)[..., None, None]


BETAS = {
    "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 50,
    "_class_name": "DDIMScheduler",
}  # fmt: skip
EDM = {"_class_name": "EDMEulerScheduler", "sigma_max": 80.0, "sigma_min": 0.002, "sigma_data": 0.5}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}
ADAPTED = {
    "diffusers betas": lambda net: adapters.diffusers.field(net, BETAS, shape=(2, 4, 4)),
    "diffusers flow": lambda net: adapters.diffusers.field(net, FLOW, shape=(2, 4, 4), clock=(1000, 0)),
    "diffusers edm": lambda net: adapters.diffusers.field(net, EDM, shape=(2, 4, 4)),
    "edm": lambda net: adapters.edm.field(adapters.edm.Preconditioned(net), shape=(2, 4, 4)),
    "k_diffusion": lambda net: adapters.k_diffusion.field(net, shape=(2, 4, 4)),
    "flow_matching": lambda net: adapters.flow_matching.field(net, shape=(2, 4, 4)),
    "torchcfm": lambda net: adapters.torchcfm.field(
        lambda t, x, **own: net(x, t, **own), shape=(2, 4, 4), name="net"
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(both, device, close, name, tmp_path):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    here, there = both(network=build(), shape=shape)
    x0, solver = fs.noise(3, shape), fs.classical.midpoint(2)
    close(solver.sample(there, x0.to(device)), solver.sample(here, x0))
    save_network(tmp_path / "net.safetensors", there.model, shape=list(shape))
    loaded = fs.models.load_field(tmp_path / "net.safetensors")
    assert torch.equal(solver.sample(loaded, x0), solver.sample(here, x0))


@pytest.fixture
def adapted(device):
    """``adapted(name)``: field, noises and labels on the CPU, and the same on the device."""

    def make(name):
        net, x0, labels = (
            Convolution().eval().requires_grad_(False),
            fs.noise(3, (2, 4, 4)),
            torch.tensor([0, 1, 3]),
        )
        there = copy.deepcopy(net).to(device)
        return (ADAPTED[name](net), x0, labels), (ADAPTED[name](there), x0.to(device), labels.to(device))

    return make


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters(adapted, each, close, name):
    cases = adapted(name)
    schedule = cases[0][0].schedule
    for solver in (fs.classical.euler(grid=(0.1, 0.3, 0.6)), fs.classical.named("dpmpp_2m", 3, schedule)):

        def sample(case, solver=solver):
            field, x0, labels = case
            return solver.sample(field, x0, class_labels=labels)

        expected, found = each(cases, sample)
        close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ADAPTED)
def test_adapters_do_not_wait(adapted, waits, name):
    _, (field, x0, labels) = adapted(name)
    during = []
    fs.classical.named("deis3", 4, field.schedule).sample(
        field, x0, class_labels=labels, callback=lambda j, x, m: during.append(len(waits))
    )
    assert during[0] == during[-1]
