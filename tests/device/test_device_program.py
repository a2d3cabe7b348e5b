"""The program, and folders of samples, on the device."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

import fewstep as fs

pytestmark = [pytest.mark.device, pytest.mark.usefixtures("few_rivals")]

MODEL = """
import copy, torch, fewstep as fs
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.labels, self.last = nn.Linear(3, 8), nn.Embedding(4, 8), nn.Linear(8, 2)
    def forward(self, x, t, label):
        h = self.first(torch.cat([x, t.expand(len(x))[:, None]], 1)) + self.labels(label["of"])
        return self.last(h.tanh())

net = Net().eval().requires_grad_(False)
options = {"unconditional": {"label": {"of": torch.tensor([3])}}, "shape": (2,), "guidance": 2.0}
guided = fs.Field(net, guide=copy.deepcopy(net), name="guided", **options)
backwards = guided.reversed()
"""


@pytest.fixture
def program(device, tmp_path, monkeypatch, capsys):
    """``program(...)``: the result of a verb with ``--json``, in a folder with a model and its labels."""
    for extra in ("jinja2", "matplotlib", "yaml", "torchdiffeq", "tqdm"):
        pytest.importorskip(extra)
    from fewstep.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "labels.yaml").write_text("label:\n  of: [1]\n")

    def run(*words):
        monkeypatch.setattr("sys.argv", ["fewstep", *map(str, words), "--device", "cuda", "--json"])
        try:
            main()
            status = 0
        except SystemExit as left:
            status = left.code
        out, err = capsys.readouterr()
        assert status == 0, out + err
        return json.loads(out)

    return run


@pytest.mark.parametrize("model", ["guided", "backwards"])
def test_a_guided_model_is_moved_as_a_whole(program, tmp_path, model):
    program(
        "sample",
        f"model.py:{model}",
        "midpoint:2",
        "--count",
        6,
        "--conditions",
        "labels.yaml",
        "--out",
        "made",
    )
    found = load_file(tmp_path / "made" / "samples.safetensors")["samples"]
    assert found.shape == (6, 2)
    assert found.isfinite().all()


def test_verbs(program):
    fitted = program("fit", "mixture-2d", "--nfe", 2, "--pairs", 8, "--iterations", 2)
    file = fitted["solvers"][0]["file"]
    compared = program("compare", "mixture-2d", file, "euler:2", "--count", 8)
    assert {row["nfe"] for row in compared["rows"]} == {2}
    assert program("sample", "mixture-2d", file, "--count", 4)["count"] == 4


@pytest.mark.parametrize("solver", [fs.classical.midpoint(2), fs.Adaptive()], ids=lambda solver: solver.name)
def test_folders_of_samples(both, each, tmp_path, solver):
    fields = both(network=fs.models.random_mixture(2, 4), shape=(2,), name="mixture")
    options = {"batch": 3, "shard": 4, "formats": ["pairs", "safetensors", "npz"], "save_trajectory": 3}
    expected, found = each(
        fields,
        lambda f: fs.generate(f, solver, range(8), tmp_path / f.device.type, save_noise=True, **options),
    )
    assert found["nfe"]["mean"] == pytest.approx(expected["nfe"]["mean"], rel=0.1)
    assert found["curvature"]["mean"] == pytest.approx(expected["curvature"]["mean"], rel=1e-3)
    for path in (tmp_path / "cpu").glob("*.safetensors"):
        here, there = load_file(path), load_file(tmp_path / "cuda" / path.name)
        for key, value in here.items():
            torch.testing.assert_close(there[key], value, rtol=1e-4, atol=1e-5)


def test_pictures_of_labels(both, each, tmp_path):
    pytest.importorskip("matplotlib")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = torch.nn.Parameter(torch.linspace(-1, 1, 4))

        def forward(self, x, t, label):
            return self.shift[label].reshape(-1, 1, 1, 1) - x

    def picture(field):
        own, folder = {"label": (torch.arange(8) % 4).to(field.device)}, tmp_path / field.device.type
        options = {"formats": ["png", "sheet"], "batch": 3, "save_trajectory": 2, "per_sample": own}
        fs.generate(field, fs.classical.euler(2), range(8), folder, **options)
        return (folder / "png" / "00000005.png").read_bytes()

    here, there = each(both(network=Net(), shape=(1, 8, 8), name="net"), picture)
    assert here == there


def test_a_folder_is_made_without_waiting_at_every_call(both, device, waits, tmp_path):
    """For each batch, its noises go there, and its samples and their curvature come back."""
    _, there = both()
    counts = []
    for calls in (2, 12):
        waits.clear()
        fs.generate(there, fs.classical.euler(calls), range(8), tmp_path / str(calls), batch=4)
        counts.append(len(waits))
    assert counts[0] == counts[1]
