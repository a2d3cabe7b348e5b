"""Numbered samples: exact counts, files, resuming, sharing the work, and the result."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib import image
from safetensors.torch import load_file

import fewstep as fs

SHAPE = (1, 4, 4)
EULER = fs.classical.euler(4)


def curved(x, t):
    return (2 * t - 1).reshape(-1, 1, 1, 1) * x


def curved_exactly(x0):
    """What four Euler steps make of it."""
    return x0 * math.prod(1 + (2 * t - 1) / 4 for t in (0, 0.25, 0.5, 0.75))


@pytest.fixture
def make(counted, tmp_path):
    """``make(seeds, ...)``: the result, and the sizes of the batches that the network saw."""

    def run(seeds=range(10), solver=EULER, *, model=curved, shape=SHAPE, out="out", **options):
        sizes = []

        def network(x, t, **conditions):
            sizes.append(len(x))
            return model(x, t, **conditions)

        field = fs.Field(network, shape=shape, name=options.pop("name", "curved"))
        options = {"shard": 4, "batch": 3, **options}
        result = fs.generate(field, solver, seeds, tmp_path / out, **options)
        return SimpleNamespace(**result, json=result, sizes=sizes, folder=tmp_path / out)

    return run


def numbers(folder):
    return [int(path.stem) for path in sorted((folder / "png").glob("*.png"))]


def all_samples(folder, pattern="samples*.safetensors"):
    parts = [load_file(path) for path in sorted(folder.glob(pattern))]
    return {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def test_exactly_the_samples_asked_for_are_made_and_each_from_its_noise(make):
    run = make(range(8), formats=["png", "npz", "pairs", "safetensors", "sheet"], save_noise=True)
    x0 = fs.noise(8, SHAPE)
    assert numbers(run.folder) == list(range(8))
    found = all_samples(run.folder)
    assert found["seeds"].tolist() == list(range(8))
    torch.testing.assert_close(found["samples"], curved_exactly(x0))
    assert (run.count, run.network_calls, sum(run.sizes)) == (8, 32, 32)

    pixels = ((curved_exactly(x0) / 2 + 0.5).clamp(0, 1) * 255).round()[:, 0].numpy()
    for k in range(8):
        picture = image.imread(run.folder / "png" / f"{k:08d}.png")
        np.testing.assert_array_equal(np.round(255 * picture), pixels[k])
    with np.load(run.folder / "samples-00000004-00000007.npz", allow_pickle=False) as shard:
        assert shard["samples"].dtype == np.uint8
        np.testing.assert_array_equal(shard["samples"][..., 0], pixels[4:])
        assert shard["seeds"].tolist() == [4, 5, 6, 7]
    with np.load(run.folder / "noise-00000004-00000007.npz", allow_pickle=False) as shard:
        np.testing.assert_array_equal(shard["x0"], x0[4:].numpy())
    assert image.imread(run.folder / "samples.png").shape[:2] == (9, 9)  # the first block, side by side
    assert not list(run.folder.rglob(".*"))  # nothing temporary is left


def test_pairs_read_a_block(make):
    run = make([3, 4, 9], formats=["pairs"], seed=5)
    assert [path.name for path in sorted(run.folder.glob("*.safetensors"))] == [
        "pairs-00000003-00000003.safetensors",
        "pairs-00000004-00000004.safetensors",
        "pairs-00000009-00000009.safetensors",
    ]
    pairs = fs.Pairs.load(run.folder / "pairs-00000009-00000009.safetensors")
    assert torch.equal(pairs.x0, fs.noise(1, SHAPE, seed=5, start=9))
    torch.testing.assert_close(pairs.x1, curved_exactly(pairs.x0))
    assert (pairs.seeds.tolist(), pairs.nfe, pairs.calls, pairs.conditions) == ([9], 4, 4, {})
    assert pairs.provenance["solver"]["name"] == "euler"
    assert pairs[:1].seeds.tolist() == [9]


def test_samples_of_whole_blocks_and_of_batches_of_one_are_the_same_to_the_bit(make):
    """The network mixes its batch, so that samples are the same only where batches are."""

    def sampled(numbers, out, **options):
        run = make(numbers, out=out, model=lambda x, t: x.mean(0) - x, **options)
        found = all_samples(run.folder)
        return found["samples"][(found["seeds"] >= 4) & (found["seeds"] < 8)]

    whole = sampled(range(12), "whole")
    assert torch.equal(whole, sampled(range(4, 8), "block"))
    assert torch.equal(whole, sampled(range(12), "process", world=3, rank=1))
    assert not torch.equal(whole[1:], sampled(range(5, 8), "part"))
    alone = sampled(range(12), "alone", batch=1)
    assert torch.equal(alone[1:], sampled(range(5, 9), "other", batch=1, shard=100))


def test_samples_depend_on_neither_batch_nor_shard_nor_order(make):
    one = make(range(10), out="one")
    other = make(reversed(range(10)), out="other", batch=10, shard=100)
    assert (other.folder / "samples.safetensors").exists()
    assert torch.equal(all_samples(one.folder)["samples"], all_samples(other.folder)["samples"])


def test_added_noises_belong_to_the_sample_as_well(make):
    """Whatever the batch: noise k of sample n is noise n of stream k + 1."""
    solver = replace(EULER, S=(0.5, 0.0, 0.3, 0.0))
    one = all_samples(make(range(3, 10), solver, out="one", seed=4).folder)["samples"]
    other = all_samples(make(range(3, 10), solver, out="other", seed=4, batch=10, shard=100).folder)[
        "samples"
    ]
    x0 = fs.noise(7, SHAPE, seed=4, start=3)
    assert torch.equal(one, other)
    torch.testing.assert_close(one, solver.sample(fs.Field(curved), x0, noises=fs.noises(4, start=3)))


def test_states_that_are_no_pictures_stay_floats(make):
    run = make(range(3), formats=["npz"], model=lambda x, t: -x, shape=(2,), shard=10)
    with np.load(run.folder / "samples-00000000-00000002.npz", allow_pickle=False) as shard:
        np.testing.assert_allclose(shard["samples"], fs.noise(3, (2,)).numpy() * 0.75**4, rtol=1e-5)


def test_a_second_call_makes_nothing_and_says_the_same(make):
    first = make(formats=["png", "pairs"])
    again = make(formats=["png", "pairs"], batch=7)
    assert again.sizes == []
    assert again.json == first.json
    assert json.loads((first.folder / "result.json").read_text()) == first.json


def test_an_interrupted_run_makes_only_what_is_missing(make):
    """The network fails in the third block: the first two are kept, and nothing else is to be seen."""
    seen = []

    def failing(x, t):
        seen.append(len(x))
        if sum(seen) > 4 * 8:
            raise KeyboardInterrupt
        return curved(x, t)

    with pytest.raises(KeyboardInterrupt):
        make(model=failing, formats=["png", "safetensors"])
    resumed = make(formats=["png", "safetensors"])
    assert sum(resumed.sizes) == 4 * 2
    assert numbers(resumed.folder) == list(range(10))
    torch.testing.assert_close(all_samples(resumed.folder)["samples"], curved_exactly(fs.noise(10, SHAPE)))
    assert (resumed.count, resumed.network_calls) == (10, 40)


@pytest.mark.parametrize("lost", ["samples-00000004-00000007.safetensors", "png/00000005.png"])
def test_a_lost_file_is_made_again_with_its_block(make, lost):
    run = make(formats=["png", "safetensors"])
    (run.folder / lost).unlink()
    again = make(formats=["png", "safetensors"])
    assert sum(again.sizes) == 4 * 4
    assert (run.folder / lost).exists()


def test_a_folder_is_extended_by_asking_for_more(make):
    """The partial last block is made anew and replaces its smaller self; whole blocks are kept."""
    make(range(6))
    more = make(range(11))
    assert sum(more.sizes) == 4 * (4 + 3)
    assert [path.name for path in sorted(more.folder.glob("samples-*"))] == [
        "samples-00000000-00000003.safetensors",
        "samples-00000004-00000007.safetensors",
        "samples-00000008-00000010.safetensors",
    ]
    assert (more.count, more.protocol["seeds"]) == (11, "0-10")


def test_one_file_becomes_several_when_it_is_extended(make):
    make(range(2), formats=["safetensors", "sheet"])
    more = make(range(6), formats=["safetensors", "sheet"])
    assert not (more.folder / "samples.safetensors").exists()
    assert all_samples(more.folder)["seeds"].tolist() == list(range(6))
    assert (more.folder / "samples.png").exists()


@pytest.mark.parametrize("batch", [2, 10])
def test_processes_share_the_work_and_the_last_one_writes_the_result(make, batch):
    parts = [make(batch=batch, rank=rank, world=2) for rank in (0, 1)]
    assert parts[0].json == {"complete": False, "count": 6}
    assert (sum(parts[0].sizes), sum(parts[1].sizes)) == (4 * 6, 4 * 4)
    assert (parts[1].count, parts[1].network_calls) == (10, 40)
    assert parts[1].protocol["processes"] == [2]
    alone = make(out="alone")
    assert torch.equal(all_samples(parts[0].folder)["samples"], all_samples(alone.folder)["samples"])
    for key in ("curvature", "nfe", "network_calls"):
        assert parts[1].json[key] == pytest.approx(alone.json[key])


def test_more_processes_than_blocks(make):
    assert make(range(3), rank=1, world=2).json == {"complete": False, "count": 0}
    assert make(range(3), rank=0, world=2).count == 3


def test_the_result_says_what_happened(make):
    run = make(range(9), provenance={"solver_file": "x.json"})
    path = EULER.sample(fs.Field(curved), fs.noise(9, SHAPE), trajectory=True)
    curvature = float(fs.metrics.curvature(path).mean())
    square = float((path.x1 - path.states[0]).double().square().mean())
    assert run.nfe == {"mean": 4.0, "min": 4, "max": 4}
    assert run.curvature == pytest.approx({"mean": curvature, "relative": curvature / square, "points": 5})
    assert run.samples_per_second == pytest.approx(9 / run.seconds)
    assert (run.model, run.solver) == ("curved", "euler")
    protocol = run.protocol
    assert (protocol["seeds"], protocol["seed"], protocol["dtype"]) == ("0-8", 0, "float32")
    assert (protocol["device"], protocol["batch"], protocol["solver_file"]) == (["cpu"], [3], "x.json")
    assert (protocol["torch"], protocol["fewstep"]) == ([torch.__version__], [fs.__version__])
    assert "NaN" not in (run.folder / "result.json").read_text()


def test_one_step_says_nothing_about_curvature(make):
    run = make(solver=fs.classical.euler(1))
    assert run.curvature == {"mean": None, "relative": None, "points": 2}


def test_guided_calls_are_two_forwards(tmp_path):
    field = fs.Field(
        lambda x, t, label: label * x, shape=(2,), name="guided", guidance=2.0, unconditional={"label": 0}
    )
    result = fs.generate(field, EULER, range(3), tmp_path, conditions={"label": 1})
    assert (result["network_calls"], result["network_forwards"]) == (12, 24)


def test_conditions_go_with_their_samples(make):
    speed = torch.linspace(-1, 1, 10)
    run = make(model=lambda x, t, speed: speed.reshape(-1, 1, 1, 1) * x, per_sample={"speed": speed})
    expected = fs.noise(10, SHAPE) * (1 + speed / 4).reshape(-1, 1, 1, 1) ** 4
    torch.testing.assert_close(all_samples(run.folder)["samples"], expected)


def test_the_adaptive_solver_reports_the_calls_of_each_sample(make):
    model = lambda x, t, rate: torch.cos(rate * t).reshape(-1, 1, 1, 1) * x  # noqa: E731
    rate = torch.arange(10.0) * 3
    run = make(solver=fs.Adaptive(), model=model, per_sample={"rate": rate})
    alone = fs.Adaptive().sample(fs.Field(model), fs.noise(10, SHAPE), per_sample={"rate": rate})
    nfe = alone.nfe
    assert run.nfe == {"mean": float(nfe.double().mean()), "min": int(nfe.min()), "max": int(nfe.max())}
    assert run.network_calls == sum(run.sizes) == int(nfe.sum())
    assert run.curvature["mean"] > 0
    assert run.curvature["points"] == "accepted steps"
    torch.testing.assert_close(all_samples(run.folder)["samples"], alone.x1)


def trajectory(folder):
    with np.load(folder / "trajectory.npz", allow_pickle=False) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def test_trajectories_hold_states_and_data_estimates(make):
    """Under straight paths the data estimate is x + (1 - t) u."""
    run = make(solver=fs.classical.midpoint(3), save_trajectory=4)
    path = fs.classical.midpoint(3).sample(fs.Field(curved), fs.noise(4, SHAPE), trajectory=True)
    found = trajectory(run.folder)
    torch.testing.assert_close(found["states"], path.states)
    assert torch.equal(found["times"], path.times[:, None].expand(4, 4))
    assert found["seeds"].tolist() == [0, 1, 2, 3]
    for i, t in enumerate(path.times):
        expected = path.states[i] + (1 - t) * curved(path.states[i], t.expand(4))
        torch.testing.assert_close(found["data"][i], expected.float())
    for name in ("states", "data"):
        strip = image.imread(run.folder / f"trajectory-{name}.png")
        assert strip.shape[:2] == (4 * 5 - 1, 4 * 5 - 1)
        last = (path.x1[3, 0] / 2 + 0.5).clamp(0, 1).numpy()
        np.testing.assert_allclose(strip[-4:, -4:, 0], last, atol=0.51 / 255)
    assert run.network_calls == sum(run.sizes) == 60  # watching costs nothing


@pytest.mark.parametrize("prediction", ["noise", "data", "v"])
@pytest.mark.parametrize("solver", [fs.classical.midpoint(4), fs.Adaptive()], ids=["midpoint", "adaptive"])
def test_data_estimates_of_every_prediction_are_those_of_the_data(tmp_path, prediction, solver):
    mixture = fs.models.random_mixture(2, 3, std=0.3, schedule=fs.schedules.VP(), prediction=prediction)
    exact = fs.models.random_mixture(2, 3, std=0.3, schedule=fs.schedules.VP(), prediction="data")
    fs.generate(mixture.field(), solver, range(3), tmp_path, save_trajectory=3)
    found = trajectory(tmp_path)
    for t, x, data in zip(found["times"][1:-1], found["states"][1:-1], found["data"][1:-1], strict=True):
        inside = t < 0.999
        torch.testing.assert_close(data[inside], exact(x, t)[inside], rtol=1e-2, atol=1e-2)


def test_adaptive_trajectories_that_end_early_stay_at_their_end(make):
    model = lambda x, t, rate: torch.cos(rate * t).reshape(-1, 1, 1, 1) * x  # noqa: E731
    rates = {"per_sample": {"rate": torch.arange(3.0) * 9}}
    run = make(range(3), solver=fs.Adaptive(), model=model, save_trajectory=3, **rates)
    found, samples = trajectory(run.folder), all_samples(run.folder)["samples"]
    accepted = fs.Adaptive().sample(fs.Field(model), fs.noise(3, SHAPE), **rates).accepted
    for k in range(3):
        assert (found["times"][:, k] < 1).sum() == accepted[k]
        assert torch.equal(found["states"][-1, k], samples[k])
    assert (found["times"].diff(dim=0) >= 0).all()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"solver": fs.classical.euler(5)}, "solver"),
        ({"solver": fs.Adaptive()}, "solver"),
        ({"seed": 1}, "seed"),
        ({"name": "other"}, "model"),
        ({"formats": ["npz"]}, "formats"),
        ({"shard": 5}, "shard"),
        ({"save_noise": True}, "save_noise"),
        ({"shape": (1, 2, 2)}, "model"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_folder_made_otherwise_is_refused(make, options, key):
    run = make()
    before = sorted(run.folder.rglob("*"))
    with pytest.raises(
        ValueError, match=rf"out: .* holds samples made with {key} = .* choose another folder"
    ):
        make(**options)
    assert sorted(run.folder.rglob("*")) == before
    assert make().sizes == []


def test_a_folder_that_holds_more_is_refused(make):
    make(range(10))
    with pytest.raises(ValueError, match=r"holds samples 0-9, more than were asked for"):
        make(range(5, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "seeds: must be numbers of at least 0, at least one of them"),
        ({"seeds": [-1, 2]}, "seeds: must be numbers of at least 0"),
        ({"seeds": [1, 2, 1]}, "seeds: 1 appears twice"),
        ({"formats": ["jpg"]}, "formats: must be one of png, npz, safetensors, pairs, sheet, not 'jpg'"),
        (
            {"formats": ["png"], "shape": (2,)},
            r"formats: png needs samples of shape \(1 or 3, H, W\), not \(2,\)",
        ),
        ({"batch": 0}, "batch must be a whole number of at least 1"),
        ({"shard": 0}, "shard must be a whole number of at least 1"),
        ({"rank": 2, "world": 2}, "rank: must be from 0 to world - 1 = 1, not 2"),
        (
            {"save_trajectory": 5},
            "save_trajectory: must be from 0 to 4, the samples of the first shard, not 5",
        ),
        ({"shape": None}, "field: does not say what shape it samples"),
        ({"device": "nonsense"}, "device: 'nonsense' cannot be used"),
    ],
    ids=str,
)
def test_a_mistake_is_named_before_anything_is_written(make, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_before_sampling(make, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match=r"out: .*out cannot be written \(.*\); choose another folder"):
        make(model=None)  # which could not be called


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_folder_is_told_before_sampling(make, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(OSError, match=r"cannot be written \(Permission denied\)"):
        make(model=None)


def test_a_disk_without_room_is_told_before_sampling(make, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"100000 samples need [\d,]+ bytes, but the disk has 1,?\d* bytes"):
        make(range(100_000), model=None, shard=1000)
