"""The fields that come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.flows import flow_matching_loss
from fewstep.models import bundled, load_field, load_network, save_network
from fewstep.networks import MLP, UNet


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("digits", (1, 8, 8)),
        ("mnist", (1, 28, 28)),
        ("mnist-straight", (1, 28, 28)),
        ("digits-kde", (1, 8, 8)),
        ("mixture", (24,)),
        ("mixture-2d", (2,)),
    ],
)
def test_a_bundled_field_samples(name, shape):
    field = bundled(name)
    x1 = fs.classical.midpoint(4).sample(field, fs.noise(4, shape))
    assert field.shape == shape
    assert bool(x1.isfinite().all())
    assert field.fingerprint() == bundled(name).fingerprint()


def test_the_digits_flow_makes_digits():
    """Samples have the mean picture of the data, which noise has not."""
    images, _ = fs.data.digits()
    x1 = fs.classical.midpoint(8).sample(bundled("digits"), fs.noise(256, (1, 8, 8)))
    assert float((x1.mean(0) - images.mean(0)).abs().max()) < 0.25
    assert float((x1.clamp(-1, 1) - x1).abs().mean()) < 0.05


def test_the_weights_stay_small_enough_to_ship():
    weights = Path(fs.models.__file__).parent / "weights"
    assert {file.stem for file in weights.glob("*.safetensors")} == {"digits", "mnist", "mnist-straight"}
    assert all(file.stat().st_size <= 5_000_000 for file in weights.iterdir())


def test_the_exact_digits_flow_ends_on_the_digits():
    """Nearly every sample lies within the kernel's width of a picture of the data."""
    images, _ = fs.data.digits()
    x1 = fs.reference.pairs(bundled("digits-kde"), fs.noise(32, (1, 8, 8))).x1
    nearest = torch.cdist(x1.flatten(1), images.flatten(1)).min(dim=1).values / 64**0.5
    assert 0.08 < float(nearest.median()) < 0.12


def test_the_mnist_flow_has_learned_mnist():
    """Its flow-matching loss on held-out pictures is a tenth of the variance of the target."""
    archive = Path(__file__).parents[3] / "shared" / "data" / "mnist.npz"
    if not archive.exists():
        pytest.skip("MNIST is not on this machine; it is needed only to check the weights against it")
    pictures = torch.from_numpy(np.load(archive)["x_test"][:128]).float()[:, None] / 127.5 - 1
    generator = torch.Generator().manual_seed(0)
    x0, t = torch.randn(pictures.shape, generator=generator), torch.rand(128, generator=generator)
    with torch.no_grad():
        loss = float(flow_matching_loss(bundled("mnist").model, x0, pictures, t))
    assert loss < 0.1 * float((pictures - x0).square().mean())


def test_an_unknown_name_is_told():
    with pytest.raises(ValueError, match=r"must be one of digits, mnist, .* not 'cifar'"):
        bundled("cifar")


@pytest.mark.parametrize(
    ("network", "shape"),
    [(MLP((3,), width=16, blocks=1), (3,)), (UNet(width=8, multipliers=(1, 2), blocks=1), (1, 8, 8))],
    ids=["MLP", "UNet"],
)
def test_networks_come_back_from_their_file(tmp_path, network, shape):
    path = tmp_path / "network.safetensors"
    save_network(path, network, recipe="test")
    loaded = load_network(path)
    x = fs.noise(2, shape)
    assert not loaded.training
    assert torch.equal(loaded(x, torch.tensor(0.3)), network.eval()(x, torch.tensor(0.3)))


def test_a_field_comes_back_from_the_facts_of_its_file(tmp_path):
    network = UNet(width=8, multipliers=(1, 2), blocks=1).eval()
    path, schedule = tmp_path / "net.safetensors", fs.schedules.VP()
    save_network(path, network, shape=[1, 8, 8], schedule=schedule.to_dict(), prediction="v")
    field = load_field(path)
    assert (field.shape, field.schedule, field.prediction, field.name) == ((1, 8, 8), schedule, "v", "net")
    x = fs.noise(2, (1, 8, 8))
    assert torch.equal(field.predict(x, 0.3), network(x, torch.full((2,), 0.3)))


def test_a_field_without_facts_is_a_straight_velocity_field_of_the_networks_shape(tmp_path):
    save_network(tmp_path / "net.safetensors", MLP((3,), width=16, blocks=1))
    field = load_field(tmp_path / "net.safetensors")
    assert (field.shape, field.schedule, field.prediction) == ((3,), fs.schedules.CondOT(), "velocity")


def test_a_damaged_or_absent_file_is_named(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError, match=r"net\.safetensors: there is no such"):
        load_field(path)
    save_network(path, MLP((3,), width=16, blocks=1))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"net\.safetensors: not a readable network file"):
        load_field(path)


def test_a_file_without_a_network_is_named(tmp_path):
    fs.Pairs(torch.zeros(1, 2), torch.zeros(1, 2)).save(tmp_path / "pairs.safetensors")
    with pytest.raises(
        ValueError,
        match=r"pairs\.safetensors: .* \(its metadata lack 'fewstep.network'",
    ):
        load_network(tmp_path / "pairs.safetensors")


@pytest.mark.parametrize(("clock", "told"), [((1000, 0), 750.0), ("sigma", 3.0), (None, 0.25)])
def test_a_file_may_say_what_its_network_is_told_of_the_time(tmp_path, clock, told):
    facts = {} if clock is None else {"clock": clock}
    save_network(tmp_path / "net.safetensors", MLP((2,), width=8), **facts)
    field = load_field(tmp_path / "net.safetensors")
    seen = []
    field.model = lambda x, t: seen.append(t) or x
    field(torch.zeros(3, 2), 0.25)
    assert seen[0].tolist() == pytest.approx([told] * 3)
