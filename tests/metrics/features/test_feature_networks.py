import hashlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

import fewstep as fs
from fewstep.metrics import features
from fewstep.metrics.features._classifiers import MobileNetTrunk, ResNet56, _Block, same_padding
from fewstep.metrics.features._inception import _fetch


def pictures(count, shape=(3, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)


class Colours(nn.Module):
    """Mean and mean square of every channel."""

    num_features = 6

    def forward(self, x):
        x = x.double().flatten(2) / 255
        return torch.cat([x.mean(2), x.square().mean(2)], 1)


class TestQuantize:
    def test_takes_the_nearest_level(self):
        levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
        off = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.98 - 0.49
        assert torch.equal(features.quantize((levels + off) / 127.5 - 1), levels)

    def test_clamps(self):
        assert features.quantize(torch.tensor([-3.0, 1.7]).view(1, 1, 1, 2)).tolist() == [[[[0, 255]]]]

    def test_pictures_pass_through(self):
        x = pictures(2)
        assert features.quantize(x) is x

    @pytest.mark.parametrize("x", [torch.zeros(2, 5), torch.zeros(2, 1, 4, 4, dtype=torch.long)])
    def test_refuses_what_is_no_picture(self, x):
        with pytest.raises(ValueError, match=r"samples: must be pictures \(B, C, H, W\)"):
            features.quantize(x)


class TestOwnNetworks:
    def test_a_module_of_the_user(self):
        network = features.FeatureNetwork.of(Colours(), "colours")
        x = pictures(4)
        assert (network.name, network.dims, network.num_features) == ("colours", 6, 6)
        assert network.distance_name == "Fréchet distance, colours"
        assert network(x).dtype == torch.float32
        torch.testing.assert_close(network(x), Colours()(x).float())

    def test_a_function_says_how_many_features_it_has(self):
        network = features.FeatureNetwork.of(lambda x: x.float().mean((2, 3)), "means", dims=3)
        assert network(pictures(5)).shape == (5, 3)
        assert network.fingerprint is None
        with pytest.raises(ValueError, match=r"dims: means does not say how many features"):
            features.FeatureNetwork.of(lambda x: x, "means")

    def test_it_is_known_by_its_weights(self):
        one, other = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2))
        first, again, different = (
            features.FeatureNetwork.of(module, "linear", dims=2).fingerprint for module in (one, one, other)
        )
        assert first == again != different

    def test_it_evaluates_and_keeps_no_graph(self):
        class Noisy(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 2))

            def forward(self, x):
                return self.layers(x.float())

        network = features.FeatureNetwork.of(Noisy(), "noisy", dims=2)
        x = pictures(3)
        assert torch.equal(network(x), network(x))
        assert not network(x).requires_grad

    def test_it_computes_where_it_was_moved_to(self):
        network = features.FeatureNetwork.of(nn.Linear(3, 2), "linear", dims=2)
        assert network.device == torch.device("cpu")
        assert network.to("meta").device == torch.device("meta")
        assert features.load("mnist").to("meta")(pictures(2, (1, 28, 28))).is_meta

    def test_it_refuses_what_it_cannot_take(self):
        network = features.FeatureNetwork.of(Colours(), "colours")
        with pytest.raises(ValueError, match=r"colours: needs uint8 pictures .*not torch.float32"):
            network(torch.zeros(2, 3, 8, 8))
        with pytest.raises(ValueError, match=r"returned features of shape \(2, 2\) .*where \(2, 6\)"):
            network(pictures(2, (1, 8, 8)))

    def test_torchmetrics_takes_it_and_finds_the_same_distance(self):
        network = features.FeatureNetwork.of(Colours(), "colours")
        real, fake = pictures(300), (pictures(200, seed=1) * 0.8).to(torch.uint8)
        metric = FrechetInceptionDistance(feature=network).set_dtype(torch.float64)
        for part in real.split(64):
            metric.update(part, real=True)
        metric.update(fake, real=False)
        ours = fs.metrics.frechet_distance(
            *(fs.metrics.feature_moments(x, network, batch=77) for x in (real, fake))
        )
        assert ours == pytest.approx(metric.compute().item(), rel=1e-6)


class TestStreaming:
    @pytest.mark.parametrize("batch", [1, 7, 50])
    def test_moments_do_not_depend_on_the_batch(self, batch):
        network, x = features.FeatureNetwork.of(Colours(), "colours"), pictures(50)
        moments = fs.metrics.feature_moments(x, network, batch=batch)
        expected = network(x).double()
        assert moments.count == 50
        torch.testing.assert_close(moments.mean, expected.mean(0))
        torch.testing.assert_close(moments.covariance, expected.T.cov())

    @pytest.mark.parametrize("batch", [7, 50])
    def test_processes_share_the_batches(self, monkeypatch, batch):
        network, x = features.FeatureNetwork.of(Colours(), "colours"), pictures(50)
        parts = []
        for rank in range(3):
            monkeypatch.setattr("fewstep.metrics.features._streaming.place", lambda rank=rank: (rank, 3))
            parts.append(fs.metrics.feature_moments(x, network, batch=batch))
        together, whole = parts[0] + parts[1] + parts[2], fs.metrics.Moments.of(network(x))
        assert together.count == 50
        torch.testing.assert_close(together.covariance, whole.covariance)
        assert len(fs.metrics.feature_matrix(x, network, batch=batch)) == 50

    def test_of_some_pictures(self):
        network, x = features.FeatureNetwork.of(Colours(), "colours"), pictures(20)
        rows = [3, 4, 11, 19]
        found = fs.metrics.feature_matrix(x, network, indices=rows, batch=3)
        torch.testing.assert_close(found, network(x[rows]))

    def test_samples_are_rounded(self):
        network = features.FeatureNetwork.of(Colours(), "colours")
        x = pictures(6)
        found = fs.metrics.feature_matrix(fs.data.scale(x) + 1e-3, network)
        assert torch.equal(found, network(x))

    def test_of_pairs_the_samples(self, tmp_path):
        x0, x1 = fs.noise(5, (3, 8, 8)), fs.noise(5, (3, 8, 8), seed=1)
        fs.Pairs(x0, x1, nfe=1, calls=5, provenance={}, seeds=torch.arange(5)).save(
            tmp_path / "pairs-0-4.safetensors"
        )
        network = features.FeatureNetwork.of(Colours(), "colours")
        found = fs.metrics.feature_matrix(fs.data.PairShards(tmp_path), network, batch=2)
        assert torch.equal(found, network(features.quantize(x1)))

    def test_the_batch_is_checked(self):
        with pytest.raises(ValueError, match="batch must be a whole number of at least 1, not 0"):
            fs.metrics.feature_moments(pictures(2), features.FeatureNetwork.of(Colours(), "c"), batch=0)


class TestInception:
    def test_the_standard_network_measures_fid(self, inception):
        network = features.load("inception")
        assert (network.name, network.dims, network.distance_name) == ("inception", 12, "FID")
        assert network.fingerprint == hashlib.sha256(inception.read_bytes()).hexdigest()

    def test_grey_pictures_are_repeated(self, inception):
        network, x = features.load("inception"), pictures(4, (1, 9, 9))
        torch.testing.assert_close(network(x), network(x.repeat(1, 3, 1, 1)))

    def test_another_file_is_refused_before_it_is_read(self, tmp_path, monkeypatch):
        path = tmp_path / "inception-2015-12-05.pt"
        path.write_bytes(b"not even TorchScript")
        sentence = r"is not the standard Inception network, whose sha256 begins with f58cb9b6, but"
        with pytest.raises(ValueError, match=sentence):
            features.load(path)
        monkeypatch.setenv("FEWSTEP_INCEPTION", str(path))
        with pytest.raises(ValueError, match=sentence):
            features.load("inception")

    def test_another_network_under_a_name_of_its_own(self, inception, torchscript):
        network = features.load(torchscript(seed=1), name="tiny")
        assert (network.name, network.distance_name) == ("tiny", "Fréchet distance, tiny")
        assert network(pictures(2)).shape == (2, 12)

    def test_a_name_cannot_be_that_of_the_standard_network(self, torchscript):
        for name in ("inception", "FID", "my-fid"):
            with pytest.raises(ValueError, match="would pass for another network"):
                features.load(torchscript(), name=name)

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / "net.pt").write_bytes(b"x" * 100)
        with pytest.raises(ValueError, match=r"net\.pt: not a readable TorchScript network"):
            features.load(tmp_path / "net.pt", name="net")

    def test_fetched_once_and_checked(self, inception, tmp_path, monkeypatch):
        monkeypatch.delenv("FEWSTEP_INCEPTION")
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        monkeypatch.setattr("fewstep.metrics.features._inception._ADDRESS", inception.as_uri())
        first = features.load("inception")
        kept = tmp_path / "hub" / "fewstep" / "inception-2015-12-05.pt"
        assert kept.read_bytes() == inception.read_bytes()
        inception.unlink()
        assert features.load("inception").fingerprint == first.fingerprint

    def test_what_was_sent_instead_is_not_kept(self, torchscript, tmp_path, monkeypatch):
        monkeypatch.setattr("fewstep.metrics.features._inception._ADDRESS", torchscript().as_uri())
        with pytest.raises(ValueError, match=r"is not the standard network .* and was not kept"):
            _fetch(tmp_path / "hub" / "inception.pt", progress=False)
        assert list((tmp_path / "hub").iterdir()) == []

    def test_offline_it_says_what_to_do(self, tmp_path, monkeypatch):
        monkeypatch.delenv("FEWSTEP_INCEPTION", raising=False)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        monkeypatch.setattr("fewstep.metrics.features._inception._ADDRESS", (tmp_path / "no").as_uri())
        with pytest.raises(OSError, match=r"set FEWSTEP_INCEPTION to a copy of the file, or use other"):
            features.load("inception")


class TestFiles:
    def test_resnet56_is_told_by_its_keys(self, tmp_path):
        state = {
            key: value for key, value in ResNet56().state_dict().items() if "num_batches_tracked" not in key
        }
        assert len(state) == 277
        save_file(state, tmp_path / "any.safetensors")
        network = features.load(tmp_path / "any.safetensors")
        assert (network.name, network.dims) == ("resnet56-cifar10", 64)
        assert network.distance_name == "Fréchet distance, CIFAR-10 ResNet-56"
        assert network(pictures(2, (3, 32, 32))).shape == (2, 64)
        with pytest.raises(ValueError, match=r"knows pictures of shape \(3, 32, 32\), not \(3, 8, 8\)"):
            network(pictures(2))

    def test_mobilenet_takes_any_size_and_grey(self, tmp_path):
        trunk = MobileNetTrunk()
        state = {
            f"{layer}{number}.{short}": getattr(module, long).half()
            for layer, modules in (("dw", trunk.depthwise), ("pw", trunk.pointwise))
            for number, module in enumerate(modules, start=1)
            for short, long in (("w", "weight"), ("b", "bias"))
        }
        state |= {"conv1.w": trunk.conv1.weight.half(), "conv1.b": trunk.conv1.bias.half()}
        save_file(state | {"dw13.w": torch.zeros(1024, 1, 3, 3)}, tmp_path / "any.safetensors")
        network = features.load(tmp_path / "any.safetensors")
        assert (network.name, network.dims) == ("mobilenet-v1", 1024)
        x = pictures(2, (1, 20, 16))
        torch.testing.assert_close(network(x), network(x.repeat(1, 3, 1, 1)))
        torch.testing.assert_close(network(x), trunk(x), rtol=1e-2, atol=1e-3)

    def test_an_unknown_file_is_refused(self, tmp_path):
        save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match="holds no network that is known here"):
            features.load(tmp_path / "a.safetensors")
        (tmp_path / "b.safetensors").write_bytes(b"12")
        with pytest.raises(ValueError, match="not a readable safetensors file"):
            features.load(tmp_path / "b.safetensors")
        with pytest.raises(FileNotFoundError, match="no such"):
            features.load(tmp_path / "c.safetensors")

    def test_what_is_not_there_is_said(self, tmp_path, monkeypatch):
        monkeypatch.delenv("FEWSTEP_DATA", raising=False)
        with pytest.raises(FileNotFoundError, match="FEWSTEP_DATA is not set; give the path of mobilenet"):
            features.load("mobilenet-v1")
        monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path))
        with pytest.raises(FileNotFoundError, match=r"resnet56-cifar10\.safetensors does not exist"):
            features.load("resnet56-cifar10")
        with pytest.raises(ValueError, match=r"network must be one of inception, mnist, .* not 'vgg'"):
            features.load("vgg")

    def test_a_file_is_the_network_that_its_name_promises(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path))
        (tmp_path / "features").mkdir()
        save_file(ResNet56().state_dict(), tmp_path / "features" / "mobilenet-v1-trunk.safetensors")
        with pytest.raises(ValueError, match="holds resnet56-cifar10, where mobilenet-v1 was expected"):
            features.load("mobilenet-v1")


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_same_padding_is_tensorflows(n, stride):
    """``out = ceil(n / s)``; of the padding that this needs, the smaller half comes first."""
    x, w = np.random.default_rng(n).normal(size=(n, n)), np.random.default_rng(stride).normal(size=(3, 3))
    out = -(-n // stride)
    before = max((out - 1) * stride + 3 - n, 0) // 2
    expected = np.zeros((out, out))
    for i in range(out):
        for j in range(out):
            for k in range(3):
                for m in range(3):
                    row, column = i * stride + k - before, j * stride + m - before
                    if 0 <= row < n and 0 <= column < n:
                        expected[i, j] += w[k, m] * x[row, column]
    padded = same_padding(torch.from_numpy(x)[None, None], stride)
    found = nn.functional.conv2d(padded, torch.from_numpy(w)[None, None], stride=stride)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-12)


class TestMnist:
    def test_the_classifier_is_bundled(self):
        network = features.load("mnist")
        assert (network.dims, network.distance_name) == (64, "Fréchet distance, MNIST classifier")
        assert network(pictures(3, (1, 28, 28))).shape == (3, 64)

    def test_the_bundled_statistics_are_of_its_features(self):
        reference = features.load_reference("mnist")
        reference.check(features.load("mnist"))
        assert (reference.moments.count, reference.assumed) == (60_000, False)

    def test_it_knows_the_digits(self, shared):
        network = features.load("mnist")
        x = fs.data.load(shared / "mnist.npz", split="test")[range(2000)]
        with np.load(shared / "mnist.npz") as archive:
            digits = torch.from_numpy(archive["y_test"][:2000])
        guesses = network._features.logits(x).argmax(1)
        assert (guesses == digits).double().mean() > 0.985

    def test_test_pictures_are_near_the_training_pictures(self, shared):
        network, reference = features.load("mnist"), features.load_reference("mnist")
        x = fs.data.load(shared / "mnist.npz", split="test")[range(0, 10_000, 5)]

        def distance(pictures):
            return fs.metrics.frechet_distance(
                fs.metrics.feature_moments(pictures, network, batch=500), reference.moments
            )

        near, turned = distance(x), distance(x.transpose(2, 3))
        assert near < 0.2 < 10 < turned


def test_new_channels_of_a_shortcut_are_zero_on_both_sides():
    """Option A of He et al.: every other pixel, nothing learned."""
    block = _Block(16, 32).eval()
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(2, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any()
    assert not y[:, 24:].any()


@pytest.mark.slow
def test_resnet56_knows_cifar10(shared):
    network = features.load(shared / "features" / "resnet56-cifar10.safetensors")
    x = fs.data.load(shared / "cifar10", split="test")[range(2000)]
    with np.load(shared / "cifar10" / "labels.npz") as archive:
        classes = torch.from_numpy(archive["y_test"][:2000].astype(np.int64))
    with torch.no_grad():
        guesses = torch.cat([network._features.logits(part).argmax(1) for part in x.split(250)])
    assert (guesses == classes).double().mean() == pytest.approx(0.934, abs=0.012)


@pytest.mark.slow
def test_mobilenet_sees_what_a_picture_is_of(shared, monkeypatch):
    """The nearest neighbour is of the same class far more often than one time in ten."""
    monkeypatch.setenv("FEWSTEP_DATA", str(shared))
    x = fs.data.load(shared / "cifar10", split="test")[range(300)]
    with np.load(shared / "cifar10" / "labels.npz") as archive:
        classes = torch.from_numpy(archive["y_test"][:300].astype(np.int64))
    found = fs.metrics.feature_matrix(x, features.load("mobilenet-v1"), batch=50)
    assert found.isfinite().all()
    directions = nn.functional.normalize(found - found.mean(0))
    nearest = (directions @ directions.T).fill_diagonal_(-1).argmax(1)
    assert (classes[nearest] == classes).double().mean() > 0.5
