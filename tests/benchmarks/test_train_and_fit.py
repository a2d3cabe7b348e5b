"""The stages that train two flows and fit solvers to them, rehearsed on a CPU."""

from __future__ import annotations

import json
import shutil
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep.networks import MLP, GaussianEncoder

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import on_gpu
from gpu import _cifar, _weights, train
from gpu._record import Deadline, Options

MODELS = ("independent", "learned")


def stage(name, out, *options):
    """Return the exit status, the record of a stage on the CPU, and its rows by part."""
    arguments = ["--tiny", "--device", "cpu", "--minutes", "2", "--out", out, *options]
    status = on_gpu.main([name, *map(str, arguments)])
    content = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    return status, content, lambda part: [row for row in content["rows"] if row["part"] == part]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training, and that of one that went on from it."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    assert stage("train", one)[0] == 0
    assert stage("train", two, "--weights", one)[0] == 0
    return one, two


def test_training_leaves_weights_curves_and_pictures(trained):
    content = json.loads((trained[0] / "train.json").read_text())
    assert content["finished"]
    rows = {row["model"]: row for row in content["rows"] if row["part"] == "training"}
    for name in MODELS:
        row, curve = rows[name], content["curves"][name]
        assert row["pictures"] == row["pictures_seen"] == content["facts"]["pictures_seen"][name]
        assert row["pictures"] == 16 * row["steps"] == 16 * 40
        assert curve["step"] == list(range(1, 41))
        assert np.mean(curve["loss"][-5:]) < np.mean(curve["loss"][:5]) - 0.1
        assert row["tflop_per_second"] == pytest.approx(
            row["gflop_per_picture"] * row["pictures_per_second"] / 1000
        )
    # The tiny encoder is as large as the flow, but for its last layer.
    ratio = rows["learned"]["gflop_per_picture"] / rows["independent"]["gflop_per_picture"]
    assert ratio == pytest.approx(2, abs=0.1)
    assert rows["independent"]["kl"] == 0 < rows["learned"]["kl"]
    quality = [row for row in content["rows"] if row["part"] == "quality"]
    assert [(row["model"], row["solver"]) for row in quality] == [
        (name, solver) for name in MODELS for solver in ("midpoint", "midpoint", "reference")
    ]
    assert all(row["frechet_pooled"] > 0 for row in quality)
    assert quality[0]["rmse"] > quality[1]["rmse"]
    files = [path.name for path in sorted(trained[0].iterdir())]
    assert files == ["moments.npz", "preview.png", "train.json", "weights-0.safetensors"]
    # Eight pictures of 8 x 8 a row; three rows a model; a line between two.
    with Image.open(trained[0] / "preview.png") as preview:
        assert preview.size == (8 * 9 - 1, 6 * 9 - 1)


def test_training_goes_on_from_weights(trained):
    first, second = (json.loads((folder / "train.json").read_text()) for folder in trained)
    assert second["facts"]["sessions"] == 2
    for name in MODELS:
        row = next(row for row in second["rows"] if row["part"] == "training" and row["model"] == name)
        before = first["facts"]["pictures_seen"][name]
        assert second["facts"]["pictures_seen"][name] == row["pictures_seen"] == before + row["pictures"]
        assert np.mean(second["curves"][name]["loss"][:5]) < np.mean(first["curves"][name]["loss"][:5]) - 0.1
        # The seed is another one, and so are the pictures of each step.
        assert second["curves"][name]["loss"][0] not in first["curves"][name]["loss"]


def test_fitted_solvers_are_compared_on_the_trained_flows(trained, tmp_path):
    status, content, rows = stage("fit", tmp_path, "--weights", trained[1])
    assert status == 0
    assert content["finished"]
    with tarfile.open(tmp_path / "solvers.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    networks, facts = _weights.load(trained[1])
    assert facts["pictures_seen"] == content["facts"]["pictures_seen"]
    for row in rows("errors"):
        compared = {each["solver"]: each["rmse"] for each in content["comparisons"][row["model"]]["4"]}
        assert compared.keys() == {"fitted", *fs.classical.baselines(4)}
        best = min((name for name in compared if name != "fitted"), key=compared.get)
        assert (row["best"], row["best_rmse"], row["rmse"]) == (best, compared[best], compared["fitted"])
        # The solver in the archive has that error on the weights in the folder.
        network = networks[f"{row['model']}.flow"].eval().requires_grad_(False)
        field = fs.Field(network, shape=(3, 8, 8), name=row["model"])
        x0 = fs.noise(8, (3, 8, 8), seed=1_000_003)
        exact = fs.reference.solve(field, x0, rtol=1e-6, atol=1e-6).states[-1]
        solver = fs.load(tmp_path / "solvers" / f"{row['model']}-4.json").solver
        error = (solver.sample(field, x0) - exact).flatten(1).square().mean(1).sqrt().mean()
        assert row["rmse"] == pytest.approx(float(error), rel=1e-2)
    assert (
        [row["model"] for row in rows("errors")] == [row["model"] for row in rows("reference")] == [*MODELS]
    )
    for name in MODELS:
        solvers = [row["solver"] for row in rows("quality") if row["model"] == name]
        assert solvers[0] == "fitted"
        assert {"euler", "midpoint", "dpmpp_2m", "unipc2", "deis3/cosine"} < set(solvers)
        assert len(solvers) == len(set(solvers))
        float32, tf32, half = (row for row in rows("precision") if row["model"] == name)
        assert float32["rmse"] == tf32["rmse"] == 0  # a CPU has no TF32
        assert 0 < half["rmse"] < 0.02


def test_a_failed_compilation_costs_speed_alone(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", fail)
    monkeypatch.setattr(train, "_worth_compiling", lambda device, seconds: True)
    monkeypatch.setattr(train, "MODELS", ("independent",))
    status, content, rows = stage("train", tmp_path)
    assert status == 1
    assert content["left_out"][0] == {
        "part": "compiled networks independent", "reason": "RuntimeError: no compiler", "failed": True,
    }  # fmt: skip
    assert [row["compiled"] for row in rows("training")] == [False]


def test_training_ends_with_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "MODELS", ("independent",))
    monkeypatch.setattr(train, "TINY_STEPS", 100_000)
    monkeypatch.setattr(train, "RESERVE", 0.97)
    _, _, rows = stage("train", tmp_path)
    row = rows("training")[0]
    assert row["steps"] < row["planned_steps"] == 100_000
    assert row["pictures_seen"] == 16 * row["steps"]
    assert 0.03 * 120 < row["seconds"] < 30
    assert [each["model"] for each in rows("quality")] == 3 * ["independent"]
    assert (tmp_path / "weights-0.safetensors").exists()


def test_no_pictures_no_weights(tmp_path):
    options = {"out": tmp_path, "minutes": 1, "device": torch.device("cpu"), "deadline": Deadline(1)}
    with pytest.raises(ValueError, match="data: this stage needs CIFAR-10; give --data"):
        train.run(Options(tiny=False, **options))
    with pytest.raises(ValueError, match="weights: this stage needs the folder that the stage train wrote"):
        stage("fit", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds 0 files weights-\*.safetensors of some"):
        stage("fit", tmp_path, "--weights", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"holds no cifar10/train_\*.webp"):
        _cifar.pictures(tmp_path)


def networks():
    torch.manual_seed(0)
    return {"flow": MLP((3,), width=64, blocks=2), "encoder": GaussianEncoder(MLP((3,), out_channels=6))}


def test_weights_are_split_over_small_files(tmp_path):
    made, limit = networks(), 2**18
    _weights.save(tmp_path, made, {"steps": 5}, limit)
    files = sorted(tmp_path.iterdir())
    assert len(files) > 2
    assert all(path.stat().st_size <= limit for path in files)
    found, facts = _weights.load(tmp_path)
    assert facts == {"steps": 5}
    for name, network in made.items():
        assert type(found[name]) is type(network)
        for key, value in network.state_dict().items():
            assert found[name].state_dict()[key].dtype == torch.float32
            torch.testing.assert_close(found[name].state_dict()[key], value, rtol=1e-3, atol=1e-6)
    one = tmp_path / "one"
    _weights.save(one, made, {})
    shutil.copy(files[1], one)
    with pytest.raises(ValueError, match="are not of one training"):
        _weights.load(one)
    _weights.save(one, made, {})  # in place of what is there
    assert [path.name for path in one.iterdir()] == ["weights-0.safetensors"]
    files[1].unlink()
    with pytest.raises(FileNotFoundError, match=rf"holds {len(files) - 1} files .* of {len(files)};"):
        _weights.load(tmp_path)
    with pytest.raises(ValueError, match=r"weights: flow\..* bytes, too many for files of 132000"):
        _weights.save(tmp_path, made, {}, 132_000)


def test_some_of_the_sprites_are_enough(shared, tmp_path):
    folder = tmp_path / "cifar10"
    folder.mkdir()
    for name in ("train_04.webp", "train_39.webp", "labels.npz"):
        shutil.copy(shared / "cifar10" / name, folder)
    shutil.copytree(shared / "features", tmp_path / "features")
    data, exact = _cifar.pictures(tmp_path)
    assert (len(data), data.shape) == (2000, (3, 32, 32))
    sheet = np.asarray(Image.open(folder / "train_39.webp"))
    for k in (0, 41, 999):  # row k // 40, column k % 40
        top, left = 32 * (k // 40), 32 * (k % 40)
        tile = torch.from_numpy(sheet[top : top + 32, left : left + 32].copy()).permute(2, 0, 1)
        assert torch.equal(data[[1000 + k]][0], tile)
    mask = np.load(shared / "cifar10" / "labels.npz")["exact_train"]
    inexact = {k - 4000 for k in range(4000, 5000) if not mask[k]}
    inexact |= {k - 38000 for k in range(39000, 40000) if not mask[k]}
    assert len(inexact) == 11
    assert set(exact) == set(range(2000)) - inexact
    options = Options(tmp_path, 1, True, torch.device("cpu"), Deadline(1), tmp_path)
    quality = _cifar.quality(options)
    assert quality.names == ("frechet_resnet56-cifar10",)
    assert quality.real.count == 200
