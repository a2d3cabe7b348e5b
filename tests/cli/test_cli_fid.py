import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torchmetrics.image.kid import KernelInceptionDistance

import fewstep as fs
from fewstep.cli.fid import _notes
from fewstep.metrics import features


@pytest.fixture
def pictures(tmp_path):
    """``pictures(name, count, size=9, channels=3)``: an npz file of random pictures."""

    def make(name, count, size=9, channels=3, dark=1.0):
        x = np.random.default_rng(count).random((count, size, size, channels)) * 255 * dark
        np.savez(tmp_path / name, images=x.astype(np.uint8))
        return tmp_path / name

    return make


@pytest.fixture
def colour_field(tmp_path):
    """A field of 3 x 9 x 9 pictures, in a file that names it."""
    path = tmp_path / "colour_field.py"
    path.write_text(
        "import fewstep as fs\nfield = fs.Field(lambda x, t: -x / 2, shape=(3, 9, 9), name='fading')\n"
    )
    return f"{path}:field"


def distance(network, one, other):
    return fs.metrics.frechet_distance(
        *(fs.metrics.feature_moments(x, network) for x in (fs.data.load(one), fs.data.load(other)))
    )


def test_statistics_and_the_distance_to_them(program, inception, pictures):
    data, samples = pictures("data.npz", 60), pictures("samples.npz", 40, dark=0.8)
    made = program("fid", "ref", data, "--out", "stats.npz", "--json")
    assert (made["features"]["name"], made["pictures"]["count"]) == ("inception", 60)
    with np.load("stats.npz", allow_pickle=False) as archive:
        assert (archive["mu"].dtype, archive["sigma"].shape) == (np.float64, (12, 12))
    result = program("fid", "calc", samples, "--ref", "stats.npz", "--out", "result.json", "--json")
    expected = distance(features.load("inception"), data, samples)
    assert result["fid"] == pytest.approx(expected, rel=1e-6)
    assert "frechet_distance" not in result
    assert (result["distance"], result["count"], result["notes"]) == ("FID", 40, [])
    assert result["reference"]["features"] == result["features"] == made["features"]
    assert result["samples"]["rounding"] == "none: 8-bit pictures as they are stored"
    assert set(result["versions"]) == {"fewstep", "torch", "numpy", "python"}
    with open("result.json") as file:
        assert json.load(file) == result


def test_without_inception_it_is_no_fid(program, torchscript, pictures):
    data, samples = pictures("data.npz", 60), pictures("samples.npz", 40)
    own = ("--features", torchscript(seed=3), "--features-name", "tiny")
    program("fid", "ref", data, "--out", "stats.npz", *own)
    result = program("fid", "calc", samples, "--ref", "stats.npz", *own, "--json")
    assert "fid" not in result
    assert result["distance"] == "Fréchet distance, tiny"
    words = program("fid", "calc", samples, "--ref", "stats.npz", *own)
    assert f"Fréchet distance, tiny: {result['frechet_distance']:.4g}\n40 pictures of" in words
    assert "FID" not in words


@pytest.mark.parametrize("formats", ["safetensors", "npz", "pairs", "png"])
def test_samples_of_the_program_are_known_and_alike_in_every_format(
    program, inception, pictures, colour_field, formats
):
    program("fid", "ref", pictures("data.npz", 60), "--out", "stats.npz")
    words = ("--seeds", "2-20,30", "--shard", 8, "--format", formats, "--out", "made")
    program("sample", colour_field, "euler:3", "--seed", 5, *words)
    result = program("fid", "calc", "made", "--ref", "stats.npz", "--count", 18, "--json", "--batch", 7)

    x0 = torch.cat([fs.noise(20, (3, 9, 9), seed=5, start=2)[:18]])
    expected = fs.classical.euler(3).sample(fs.Field(lambda x, t: -x / 2), x0)
    network = features.load("inception")
    other = fs.metrics.feature_moments(fs.data.load("data.npz"), network)
    ours = fs.metrics.frechet_distance(fs.metrics.feature_moments(expected, network), other)
    assert result["fid"] == pytest.approx(ours, rel=1e-5)
    facts = result["samples"]
    assert (facts["model"], facts["solver"], facts["nfe"]["mean"]) == ("fading", "euler", 3)
    assert (facts["seed"], facts["seeds"], facts["of"]) == (5, "2-19", 20)
    when = "measured" if formats in ("safetensors", "pairs") else "written"
    assert facts["rounding"] == f"{features.ROUNDING}, when they were {when}"
    text = program("fid", "calc", "made", "--ref", "stats.npz")
    assert "fading with euler, 3 network calls" in text


def test_some_pictures_of_a_data_set_are_drawn_by_seed(program, inception, pictures):
    data = pictures("data.npz", 60)
    program("fid", "ref", data, "--out", "stats.npz")
    words = ("fid", "calc", data, "--ref", "stats.npz", "--count", 40, "--json")
    first, again, other = (program(*words, "--seed", seed) for seed in (1, 1, 2))
    assert first["fid"] == again["fid"] != other["fid"]
    assert first["samples"]["drawn_by_seed"] == 1
    whole = program("fid", "calc", data, "--ref", "stats.npz", "--json")
    assert whole["fid"] == pytest.approx(0, abs=1e-9)
    assert whole["samples"]["drawn_by_seed"] is None


def test_statistics_of_edm_are_taken_for_those_of_inception(program, inception, pictures):
    data, samples = pictures("data.npz", 60), pictures("samples.npz", 40)
    features_of = features.load("inception")(fs.data.load(data)[range(60)]).double().numpy()
    np.savez("edm.npz", mu=features_of.mean(0), sigma=np.cov(features_of, rowvar=False))
    result = program("fid", "calc", samples, "--ref", "edm.npz", "--json")
    assert result["fid"] == pytest.approx(distance(features.load("inception"), data, samples), rel=1e-6)
    assert "are taken for those of the standard Inception" in result["notes"][0]
    assert result["reference"]["count"] is None


def test_the_bundled_statistics(program):
    program("sample", "mnist", "euler:1", "--count", 3, "--out", "made")
    result = program("fid", "calc", "made", "--ref", "mnist", "--json")
    assert result["distance"] == "Fréchet distance, MNIST classifier"
    assert result["reference"]["count"] == 60_000
    assert "3 pictures are too few for a covariance of 64 features" in result["notes"][0]


def test_as_many_pictures_as_features_are_too_few():
    network = features.FeatureNetwork.of(lambda x: x, "own", dims=64)
    known = features.load_reference("mnist")
    assert [len(_notes(network, count, known)) for count in (64, 65)] == [1, 0]


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_two_sets_of_features_are_compared(program, inception, pictures):
    """The kernel distance as torchmetrics has it, for subsets that are all of the pictures."""
    data, samples = pictures("data.npz", 60), pictures("samples.npz", 40, dark=0.8)
    result = program("fid", "compare", samples, data, "--count", 40, "--json", "--out", "result.json")
    taken = sorted(np.random.default_rng(0).permutation(60)[:40].tolist())
    metric = KernelInceptionDistance(features.load("inception"), subsets=1, subset_size=40)
    metric.update(fs.data.load(data)[taken], real=True)
    metric.update(fs.data.load(samples)[range(40)], real=False)
    assert result["kid"]["mean"] == pytest.approx(metric.compute()[0].item(), rel=1e-3)
    assert (result["kid"]["subset"], result["kid"]["subsets"]) == (40, 1)
    real, made = (
        features.load("inception")(fs.data.load(source)[rows])
        for source, rows in ((data, taken), (samples, range(40)))
    )
    shares = fs.metrics.precision_recall(real, made)
    assert shares.precision != shares.recall
    assert {name: result[name] for name in vars(shares)} == pytest.approx(vars(shares))
    assert (result["count"], result["data"]["of"]) == (40, 60)
    with open("result.json") as file:
        assert json.load(file) == result
    words = program("fid", "compare", samples, data)
    assert words.startswith(f"KID: {result['kid']['mean']:.4g} (one subset of 40)\n")
    assert "40 pictures of" in words
    itself = program("fid", "compare", data, data, "--json")
    assert (itself["precision"], itself["recall"], itself["coverage"]) == (1, 1, 1)


def test_a_kernel_distance_in_other_features_is_no_kid(program, torchscript, pictures):
    own = ("--features", torchscript(seed=3), "--features-name", "tiny")
    result = program("fid", "compare", pictures("a.npz", 20), pictures("b.npz", 30), *own, "--json")
    assert "kid" not in result
    assert result["kernel_distance"]["subset"] == 20


class TestRefusals:
    @pytest.fixture
    def stats(self, program, inception, pictures):
        program("fid", "ref", pictures("data.npz", 30), "--out", "stats.npz")
        return "stats.npz"

    def test_fewer_pictures_than_asked_for(self, failure, stats):
        said = failure("fid", "calc", "data.npz", "--ref", stats, "--count", 31)
        assert "--count: data.npz holds 30 pictures, fewer than 31" in said

    def test_fewer_data_than_samples(self, failure, stats, pictures):
        said = failure("fid", "compare", "data.npz", pictures("few.npz", 20))
        assert "few.npz holds 20 pictures, fewer than 30" in said

    def test_comparing_in_several_processes(self, failure, monkeypatch):
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert "compare: works in one process" in failure("fid", "compare", "a", "b")

    def test_other_features(self, failure, stats, torchscript):
        other = ("--features", torchscript(seed=1), "--features-name", "tiny")
        said = failure("fid", "calc", "data.npz", "--ref", stats, *other)
        assert "stats.npz was made with the features inception" in said
        assert "not tiny" in said

    def test_another_network_of_the_same_name(self, failure, torchscript, program, pictures):
        words = ("--features-name", "tiny", "--features")
        program("fid", "ref", pictures("data.npz", 30), "--out", "stats.npz", *words, torchscript(seed=1))
        said = failure("fid", "calc", "data.npz", "--ref", "stats.npz", *words, torchscript(seed=2))
        assert "was made with the features tiny (sha256" in said

    def test_statistics_that_do_not_say_whose_they_are(self, failure):
        np.savez("bare.npz", mu=np.zeros(5), sigma=np.eye(5))
        said = failure("fid", "calc", "data.npz", "--ref", "bare.npz")
        assert "bare.npz does not say with which features it was made, and its 5 dimensions" in said

    def test_pictures_of_another_size(self, failure, stats, pictures):
        said = failure("fid", "calc", pictures("small.npz", 30, size=5), "--ref", stats)
        assert "are pictures of 5 x 5 pixels, but stats.npz is of 9 x 9" in said

    def test_what_is_not_there(self, failure):
        assert "ref: there is no file none.npz; give mnist" in failure(
            "fid", "calc", ".", "--ref", "none.npz"
        )

    def test_samples_that_are_no_pictures(self, failure, program):
        program("sample", "mixture", "euler:1", "--count", 3, "--out", "points")
        said = failure("fid", "calc", "points", "--ref", "mnist")
        assert "points: holds samples of shape (24,), not pictures" in said

    def test_samples_that_are_not_complete(self, failure, program, tmp_path):
        program("sample", "mnist", "euler:1", "--count", 2, "--format", "png", "--out", "made")
        (tmp_path / "made" / "result.json").unlink()
        said = failure("fid", "calc", "made", "--ref", "mnist")
        assert "made: has no result.json; its samples are not complete" in said

    def test_a_folder_with_a_sheet_only(self, failure, program):
        program("sample", "mnist", "euler:1", "--count", 2, "--format", "sheet", "--out", "sheet")
        said = failure("fid", "calc", "sheet", "--ref", "mnist")
        assert "sheet: holds no samples one by one, only picture" in said

    @pytest.mark.parametrize("formats", ["npz", "png"])
    def test_samples_of_which_some_are_gone(self, failure, program, tmp_path, formats):
        words = ("--count", 4, "--shard", 2, "--format", formats, "--out", "made")
        program("sample", "mnist", "euler:1", *words)
        gone = {"npz": "blocks/000001.json", "png": "png/00000001.png"}
        (tmp_path / "made" / gone[formats]).unlink()
        said = failure("fid", "calc", "made", "--ref", "mnist")
        assert f"made: has {2 if formats == 'npz' else 3} samples where its result.json says 4" in said

    def test_a_damaged_file_of_samples(self, failure, program):
        program("sample", "mnist", "euler:1", "--count", 2, "--format", "npz", "--out", "made")
        (path,) = fs.generation.read_generated("made").samples._files
        path.write_bytes(path.read_bytes()[:1000])
        assert "not a readable" in failure("fid", "calc", "made", "--ref", "mnist")


@pytest.mark.slow
def test_processes_of_torchrun_share_the_pictures(program, torchscript, pictures):
    own = ("--features", str(torchscript(seed=3)), "--features-name", "tiny")
    program("fid", "ref", pictures("data.npz", 60), "--out", "stats.npz", *own)
    alone = program("fid", "calc", pictures("samples.npz", 41), "--ref", "stats.npz", *own, "--json")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    words = ["-m", "fewstep", "fid", "calc", "samples.npz", "--ref", "stats.npz", *own, "--json"]
    finished = subprocess.run(
        [*torchrun, *words, "--batch", "6"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    together = json.loads(finished.stdout)
    assert together["frechet_distance"] == pytest.approx(alone["frechet_distance"], rel=1e-6)
    assert (together["processes"], together["count"]) == (2, 41)
