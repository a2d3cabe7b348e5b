import json
import os
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch

from fewstep.metrics import Moments


@pytest.fixture
def features():
    return torch.from_numpy(np.random.default_rng(0).normal(size=(37, 5)))


def assert_moments(moments, x, rtol=1e-12):
    assert moments.count == len(x)
    np.testing.assert_allclose(moments.mean, np.mean(x, axis=0), rtol=rtol)
    np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=rtol, atol=1e-14)


def test_batches_of_any_size_give_the_moments_of_the_whole(features):
    moments = Moments()
    for batch in features.split([1, 0, 20, 3, 13]):
        moments.update(batch)
    assert_moments(moments, features.numpy())
    assert moments.dimensions == 5


def test_a_batch_larger_than_what_is_turned_to_float64_at_a_time():
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(2500, 2)))
    assert_moments(Moments.of(x), x.numpy(), rtol=1e-10)


def test_a_mean_far_from_zero_costs_no_accuracy(features):
    """Sums of squares would leave 1e-8 of the variance, ten thousand times what is allowed here."""
    far = features + 1e4
    moments = Moments()
    for batch in far.split(4):
        moments.update(batch)
    deviations = (far - 1e4).numpy()  # exact: what the shift left of the features
    np.testing.assert_allclose(moments.covariance, np.cov(deviations, rowvar=False), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_features_are_added_up_in_float64(features, dtype):
    narrow = (100 * features + 300).to(dtype)
    moments = Moments.of(narrow)
    assert moments.mean.dtype == moments.covariance.dtype == torch.float64
    assert_moments(moments, narrow.double().numpy())


def test_sums_of_moments_are_the_moments_of_both_sets(features):
    a, b = Moments.of(features[:30] + 1e3), Moments.of(features[30:])
    whole = np.concatenate([features[:30] + 1e3, features[30:]])
    assert_moments(a + b, whole)
    assert_moments(b + a, whole)
    assert_moments(a + Moments(), features[:30].numpy() + 1e3)
    assert_moments(Moments() + b, features[30:].numpy())
    assert (a.count, b.count) == (30, 7)


def test_a_sum_is_independent_of_its_parts(features):
    a, b = Moments.of(features[:30]), Moments.of(features[30:])
    both = a + b
    b.update(features)
    a.update(features)
    assert_moments(both, features.numpy())


def test_a_mean_once_read_stays(features):
    moments = Moments.of(features[:5])
    mean, covariance = moments.mean, moments.covariance
    moments.update(features)
    np.testing.assert_allclose(mean, features[:5].mean(dim=0), rtol=1e-12)
    np.testing.assert_allclose(covariance, np.cov(features[:5], rowvar=False), rtol=1e-12)


def test_features_carry_no_gradient(features):
    assert not Moments.of(features.requires_grad_()).covariance.requires_grad


def test_without_processes_it_is_a_copy(features):
    moments = Moments.of(features, {"network": "n"})
    copy = moments.over_processes()
    moments.update(features)
    assert_moments(copy, features.numpy())
    assert copy.protocol == {"network": "n"}


PROCESSES = """
    import sys, torch, numpy as np
    import torch.distributed as dist
    from fewstep.metrics import Moments

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(37, 5))) + 1e4
    own = Moments()
    for batch in x[:30].split(7) if rank == 0 else x[30:].split(3):
        own.update(batch)
    merged = own.over_processes()
    late = (Moments.of(x) if rank == 0 else Moments()).over_processes()
    try:
        Moments.of(x[:, : 3 + rank]).over_processes()
        message = ""
    except ValueError as error:
        message = str(error)
    found = {"moments": (merged.count, merged.mean, merged.covariance)}
    found |= {"late": (late.count, late.covariance), "message": message}
    torch.save(found, f"{sys.argv[1]}/{rank}.pt")
    dist.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_end_with_the_same_moments_of_all_their_features(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(textwrap.dedent(PROCESSES))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*torchrun, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    x = np.random.default_rng(0).normal(size=(37, 5)) + 1e4
    for one, other in zip(first["moments"], second["moments"], strict=True):
        assert one == other if isinstance(one, int) else torch.equal(one, other)
    count, mean, covariance = first["moments"]
    assert count == 37
    np.testing.assert_allclose(mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(covariance, np.cov(x - 1e4, rowvar=False), rtol=0, atol=1e-11)
    for found in (first, second):
        assert found["late"][0] == 37
        np.testing.assert_allclose(found["late"][1], covariance, rtol=0, atol=1e-11)
        assert "not of [3, 4] dimensions" in found["message"]


class TestFile:
    def test_a_round_trip_keeps_everything(self, features, tmp_path):
        moments = Moments.of(features, {"network": "n", "pictures": [1, 8, 8]})
        moments.save(tmp_path / "m.npz")
        found = Moments.load(tmp_path / "m.npz")
        assert (found.count, found.protocol) == (37, moments.protocol)
        np.testing.assert_array_equal(found.mean, moments.mean)
        np.testing.assert_allclose(found.covariance, moments.covariance, rtol=1e-15)
        assert_moments(found + Moments.of(features, found.protocol), np.tile(features.numpy(), (2, 1)))

    def test_other_programs_find_mu_and_sigma(self, features, tmp_path):
        Moments.of(features).save(tmp_path / "reference")  # the name is taken as it stands
        with np.load(tmp_path / "reference", allow_pickle=False) as file:
            np.testing.assert_allclose(file["mu"], features.mean(dim=0), rtol=1e-12)
            np.testing.assert_allclose(file["sigma"], np.cov(features, rowvar=False), rtol=1e-12)
            assert json.loads(str(file["facts"])) == {"count": 37, "protocol": {}}

    def test_a_file_without_facts_has_no_count(self, features, tmp_path):
        sigma = np.cov(features, rowvar=False)
        np.savez(tmp_path / "edm.npz", mu=features.mean(dim=0), sigma=sigma)
        moments = Moments.load(tmp_path / "edm.npz")
        assert moments.count is None
        assert moments.dimensions == 5
        np.testing.assert_array_equal(moments.covariance, sigma)
        for refused in (
            lambda: moments.update(features),
            lambda: moments + Moments.of(features),
            lambda: Moments.of(features) + moments,
            moments.over_processes,
        ):
            with pytest.raises(ValueError, match="nothing can be added to moments whose file has no count"):
                refused()
        moments.save(tmp_path / "again.npz")
        np.testing.assert_array_equal(Moments.load(tmp_path / "again.npz").covariance, sigma)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"mu": np.zeros(3)}, "holds mu, but a file of moments holds mu and sigma"),
            ({"mu": np.zeros(3), "sigma": np.zeros((3, 2))}, r"sigma \(d, d\), not \(3,\) and \(3, 2\)"),
            ({"mu": np.zeros(0), "sigma": np.zeros((0, 0))}, r"mu must be \(d,\)"),
            ({"mu": np.zeros(2), "sigma": np.full((2, 2), np.nan)}, "sigma must be finite"),
            ({"mu": np.zeros(2, int), "sigma": np.eye(2)}, "mu must be finite floating-point"),
            ({"mu": np.array([{}]), "sigma": np.eye(1)}, "not a readable npz file .*object"),
            ({"mu": np.zeros(2), "sigma": np.eye(2), "facts": np.array("{")}, "not complete JSON"),
            (
                {"mu": np.zeros(2), "sigma": np.eye(2), "facts": np.array('{"count": 1, "protocol": {}}')},
                "count must be above 1",
            ),
        ],
    )
    def test_what_is_wrong_with_a_file_is_said(self, arrays, message, tmp_path):
        np.savez(tmp_path / "wrong.npz", **arrays)
        with pytest.raises(ValueError, match=rf"wrong\.npz: .*{message}"):
            Moments.load(tmp_path / "wrong.npz")

    def test_a_file_that_is_no_archive(self, tmp_path):
        (tmp_path / "m.npz").write_bytes(b"nothing")
        with pytest.raises(ValueError, match=r"m\.npz: not a readable npz file"):
            Moments.load(tmp_path / "m.npz")

    def test_a_damaged_file(self, features, tmp_path):
        path = tmp_path / "m.npz"
        Moments.of(features).save(path)
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("sigma.npy").header_offset + 200
        content = bytearray(path.read_bytes())
        content[start : start + 8] = bytes(8)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"m\.npz: not a readable npz file"):
            Moments.load(path)


class TestErrors:
    def test_too_few_vectors(self, features):
        with pytest.raises(ValueError, match="a mean needs at least 1 feature vectors, not 0"):
            _ = Moments().mean
        with pytest.raises(ValueError, match="a covariance needs at least 2 feature vectors, not 1"):
            _ = Moments.of(features[:1]).covariance

    def test_other_dimensions(self, features):
        moments = Moments.of(features)
        with pytest.raises(ValueError, match="must have 5 dimensions, as the first ones, not 4"):
            moments.update(features[:, :4])
        with pytest.raises(ValueError, match="must have 5 dimensions"):
            moments + Moments.of(features[:, :4])

    def test_other_protocols(self, features):
        with pytest.raises(ValueError, match="only features of the same protocol can be added"):
            Moments.of(features, {"network": "a"}) + Moments.of(features, {"network": "b"})

    @pytest.mark.parametrize(
        "x", [torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(3), torch.zeros(3, 0)]
    )
    def test_what_are_no_features(self, x):
        with pytest.raises(ValueError, match=r"features must be floating-point feature vectors of shape"):
            Moments.of(x)
        with pytest.raises(ValueError, match=r"features must be a tensor of shape \(n, d\), not a list"):
            Moments.of(x.tolist())


@pytest.mark.parametrize(
    ("sigma", "words"),
    [
        (np.diag([1.0, -1, 1]), "asymmetry is 0 and the least eigenvalue -1"),
        (-np.eye(3), "least eigenvalue -1"),
        (1e-200 * np.diag([1.0, -1, 1]), "least eigenvalue -1"),
        (np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 0]]), "least eigenvalue -1"),
        (np.eye(3) + np.triu(np.ones((3, 3)), 1), "asymmetry is 1 "),
    ],
)
def test_a_file_whose_sigma_is_no_covariance_is_refused(tmp_path, sigma, words):
    np.savez(tmp_path / "wrong.npz", mu=np.zeros(3), sigma=sigma)
    with pytest.raises(ValueError, match=rf"wrong\.npz: sigma must be a covariance, .* {words}"):
        Moments.load(tmp_path / "wrong.npz")


@pytest.mark.parametrize("scale", [0, 1e-320, 1.0, 1e308])
@pytest.mark.parametrize("dtype", ["<f8", ">f8"])
def test_covariances_of_any_size_and_rank_are_read(tmp_path, scale, dtype):
    x = np.random.default_rng(0).normal(size=(2, 5))
    sigma = (x.T @ x).astype(np.float32) / np.float32(np.abs(x.T @ x).max())  # rank 2, rounded
    np.savez(
        tmp_path / "right.npz", mu=np.zeros(5, dtype), sigma=(scale * sigma.astype(np.float64)).astype(dtype)
    )
    np.testing.assert_array_equal(
        Moments.load(tmp_path / "right.npz").covariance, scale * sigma.astype(np.float64)
    )
