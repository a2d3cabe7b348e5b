"""Folders of ``save_pretrained``: round trips, cards that stay, and sentences."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest
import torch

import fewstep as fs
from fewstep.networks import MLP, GaussianEncoder, ReverseTime, SongUNet, UNet, load_network


def test_a_solver_comes_back(fit, tmp_path):
    fit.solver.save_pretrained(tmp_path / "solver")
    assert sorted(path.name for path in (tmp_path / "solver").iterdir()) == ["README.md", "solver.json"]
    fit.solver.save(tmp_path / "plain.json")
    assert (tmp_path / "solver/solver.json").read_bytes() == (tmp_path / "plain.json").read_bytes()
    plain = fs.Solver.load(tmp_path / "plain.json")
    assert fs.Solver.from_pretrained(tmp_path / "solver") == plain
    assert fs.load(str(tmp_path / "solver")) == plain


@pytest.mark.parametrize("kind", ["fit", "several"])
def test_a_fit_comes_back(request, kind, tmp_path):
    fit = request.getfixturevalue(kind)
    fit.save_pretrained(tmp_path)
    place = {} if kind == "fit" else {"guidance": 1.7}
    expected = fit.at(**place).table
    for read in (fs.Fit.from_pretrained(tmp_path), fs.load(tmp_path)):
        assert isinstance(read, fs.Fit)
        assert all(map(torch.equal, read.at(**place).table, expected))
        assert json.dumps(read.report.to_dict()) == json.dumps(fit.report.to_dict())


SMALL = {"model_channels": 16, "channel_mult": [1], "num_blocks": 1}


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (MLP((3,), width=16, blocks=1), (3,)),
        (UNet(width=8, multipliers=(1,), blocks=1), (1, 8, 8)),
        (SongUNet(8, 1, 1, **SMALL), (1, 8, 8)),
        (ReverseTime(SongUNet(8, 1, 1, **SMALL)), (1, 8, 8)),
    ],
    ids=["MLP", "UNet", "SongUNet", "ReverseTime"],
)
def test_a_network_comes_back(tmp_path, network, shape):
    network.save_pretrained(tmp_path)
    x, t = fs.noise(2, shape), torch.tensor(0.3)
    for loaded in (type(network).from_pretrained(tmp_path), load_network(tmp_path)):
        assert type(loaded) is type(network)
        assert not loaded.training
        assert torch.equal(loaded(x, t), network.eval()(x, t))


def test_an_encoder_comes_back(tmp_path):
    encoder = GaussianEncoder(MLP((2,), width=16, blocks=1, out_channels=4))
    encoder.save_pretrained(tmp_path)
    assert torch.equal(GaussianEncoder.from_pretrained(tmp_path)(torch.ones(1, 2))[0], torch.zeros(1, 2))


def test_a_diffusers_network_comes_back(tmp_path):
    unet = pytest.importorskip("diffusers").UNet2DModel(
        8, 1, 1, block_out_channels=(8,), down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        layers_per_block=1, norm_num_groups=4,
    )  # fmt: skip
    network = fs.networks.DiffusersUNet(unet).eval()
    network.save_pretrained(tmp_path)
    x, t = fs.noise(2, (1, 8, 8)), torch.tensor(0.3)
    found = fs.networks.DiffusersUNet.from_pretrained(tmp_path)
    # Bits of convolutions may depend on where in memory the weights lie.
    torch.testing.assert_close(found(x, t), network(x, t), rtol=1e-5, atol=1e-6)
    for name, weight in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], weight)


def test_the_facts_of_a_network_make_its_field(tmp_path):
    network = MLP((2,), width=16, blocks=1).eval()
    schedule = fs.schedules.VP()
    network.save_pretrained(tmp_path / "noisy", schedule=schedule, prediction="noise", clock=(1000, 0))
    field = fs.models.load_field(tmp_path / "noisy")
    expected = fs.Field(network, schedule, "noise", shape=(2,), clock=(1000, 0), name="noisy")
    assert field.describe() == expected.describe()
    x = fs.noise(3, (2,))
    assert torch.equal(field(x, 0.4), expected(x, 0.4))


@pytest.mark.parametrize(
    ("facts", "kind", "message"),
    [
        (
            {"prediction": "speed"},
            ValueError,
            "prediction: must be one of velocity, noise, data, v, not 'speed'",
        ),
        ({"shape": "3x3"}, ValueError, "shape"),
        (
            {"licence": "mit"},
            TypeError,
            r"MLP\.save_pretrained: there is no argument 'licence'; see help\(MLP",
        ),
        ({"guidance": 2.0}, TypeError, "there is no argument 'guidance'"),
    ],
)
def test_wrong_facts_write_nothing(tmp_path, facts, kind, message):
    with pytest.raises(kind, match=message):
        MLP((2,), width=16, blocks=1).save_pretrained(tmp_path / "x", **facts)
    assert not (tmp_path / "x").exists()


def test_other_files_in_the_folder_stay(fit, tmp_path):
    for name in ("config.json", "model.py"):
        (tmp_path / name).write_text("theirs")
    fit.solver.save_pretrained(tmp_path)
    assert (tmp_path / "config.json").read_text() == (tmp_path / "model.py").read_text() == "theirs"


class TestCards:
    def test_a_card_of_ours_is_replaced(self, fit, tmp_path):
        fs.classical.midpoint(2).save_pretrained(tmp_path)
        old = (tmp_path / "README.md").read_text()
        fit.solver.save_pretrained(tmp_path)
        new = (tmp_path / "README.md").read_text()
        assert "bend" in new
        assert "bend" not in old

    def test_an_edited_card_stays_and_its_metadata_are_completed(self, fit, tmp_path):
        cards = pytest.importorskip("huggingface_hub")
        fit.solver.save_pretrained(tmp_path)
        path = tmp_path / "README.md"
        path.write_text(path.read_text().replace("## Use", "## How I use it"))
        fs.classical.midpoint(2).save_pretrained(tmp_path, license="mit")
        card = cards.ModelCard.load(path)
        assert "## How I use it" in card.text
        assert card.data.license == "mit"
        assert card.data.tags == ["fewstep", "ode-solver"]

    def test_a_card_by_hand(self, tmp_path):
        cards = pytest.importorskip("huggingface_hub")
        text = "---\nlanguage: en\ntags:\n- mine\n---\n# Mine\n\nWords.\n"
        fs.classical.midpoint(2).save_pretrained(tmp_path, card=text, base_model=["a/b", "c/d"])
        card = cards.ModelCard.load(tmp_path / "README.md")
        assert card.text == "# Mine\n\nWords.\n"
        assert card.data.to_dict() == {
            "language": "en", "tags": ["mine", "fewstep", "ode-solver"], "library_name": "fewstep",
            "base_model": ["a/b", "c/d"],
        }  # fmt: skip

    def test_a_readme_of_something_else_stays_as_it_is(self, tmp_path):
        (tmp_path / "README.md").write_bytes(b"# A project\r\n")
        fs.classical.midpoint(2).save_pretrained(tmp_path)
        assert (tmp_path / "README.md").read_bytes() == b"# A project\r\n"

    def test_a_card_without_metadata(self, tmp_path, caplog):
        cards = pytest.importorskip("huggingface_hub")
        fs.classical.midpoint(2).save_pretrained(tmp_path, card="# Mine\n", base_model="a/b")
        card = cards.ModelCard.load(tmp_path / "README.md")
        assert card.text == "# Mine\n"
        assert (card.data.library_name, card.data.base_model) == ("fewstep", "a/b")
        assert caplog.text == ""

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"card": 3}, "card: must be text, not int"),
            ({"license": ["mit"]}, "license: must be text, not list"),
            ({"base_model": [3]}, r"base_model: must be ids of networks on the Hub, not \[3\]"),
            ({"base_model": 3}, r"base_model: must be ids of networks on the Hub, not 3"),
            ({"card": "---\n- a\n---\n"}, "card: the metadata of this model card cannot be read: "),
            ({"card": "---\na: [\n---\n"}, "card: the metadata of this model card cannot be read: "),
        ],
    )
    def test_wrong_ones_write_nothing(self, tmp_path, options, message):
        with pytest.raises(ValueError, match=message):
            fs.classical.midpoint(2).save_pretrained(tmp_path / "x", **options)
        assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        (
            "nowhere/at/all",
            FileNotFoundError,
            r"there is no folder 'nowhere/at/all', nor can it be a repository",
        ),
        ("./nowhere", FileNotFoundError, r"there is no folder '\./nowhere'"),
        ("", FileNotFoundError, "there is no folder ''"),
        ("~/nowhere", FileNotFoundError, "there is no folder '~/nowhere'"),
        (None, ValueError, "Solver.from_pretrained: needs a folder, or the name of a repository .* not None"),
        ("empty", FileNotFoundError, r"'empty' holds no solver\.json, which save_pretrained writes"),
        (
            "file.json",
            ValueError,
            r"'file\.json' is a file; pass its folder, or read it with fewstep\.Solver\.l",
        ),
        ("old", ValueError, r"schema 0, but this version of fewstep reads schema 1"),
        (
            "fit",
            FileNotFoundError,
            r"'fit' holds a fit, fit\.json, and no solver\.json; load it with fewstep\.F",
        ),
    ],
)
def test_wrong_places(fit, tmp_path, monkeypatch, place, kind, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.json").write_text("{}")
    fs.classical.midpoint(2).save_pretrained("old")
    content = json.loads((tmp_path / "old/solver.json").read_text())
    (tmp_path / "old/solver.json").write_text(json.dumps({**content, "schema": 0}))
    fit.save_pretrained("fit")
    with pytest.raises(kind, match=message):
        fs.Solver.from_pretrained(place)


def test_a_folder_for_load_holds_one_of_two(fit, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a folder without solver\.json or fit\.json"):
        fs.load(tmp_path)
    fit.save_pretrained(tmp_path)
    fit.solver.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a folder with both solver\.json and fit\.json; name one"):
        fs.load(tmp_path)
    assert isinstance(fs.load(tmp_path / "fit.json"), fs.Fit)


@pytest.mark.parametrize("place", ["", None, 3])
def test_no_folder_is_named(place):
    with pytest.raises(ValueError, match=r"Solver\.save_pretrained: name a folder, not "):
        fs.classical.midpoint(2).save_pretrained(place)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"Solver\.save_pretrained: '.*file' is a file; name a folder"):
        fs.classical.midpoint(2).save_pretrained(tmp_path / "file")


def test_huggingface_hub_is_imported_only_for_a_card(tmp_path):
    code = (
        "import sys, fewstep as fs\n"
        "[getattr(fs, name) for name in fs.__all__ if name != 'adapters']\n"
        "import fewstep.networks, fewstep.models\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        "fs.classical.midpoint(2).save_pretrained(sys.argv[1])\n"
        "assert 'huggingface_hub' in sys.modules\n"
        "assert 'jinja2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "x"], check=True)
    code = (
        "import sys, fewstep as fs\n"
        "fs.Solver.from_pretrained(sys.argv[1]), fs.load(sys.argv[1])\n"
        "assert 'huggingface_hub' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "x"], check=True)


@pytest.mark.parametrize("use", ["save_pretrained", "push_to_hub", "from_pretrained"])
def test_without_huggingface_hub_the_extra_is_named(monkeypatch, tmp_path, use):
    real = importlib.import_module

    def missing(name, *args):
        if name.startswith("huggingface_hub"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    solver = fs.classical.midpoint(2)
    with pytest.raises(ImportError, match=r"'huggingface_hub.*run: pip install 'fewstep\[hub\]'"):
        getattr(solver, use)(str(tmp_path / "new") if use == "save_pretrained" else "a/b")


class TestProgram:
    @pytest.fixture
    def program(self, monkeypatch, capsys):
        from fewstep.cli import main

        def run(*words):
            monkeypatch.setattr("sys.argv", ["fewstep", *map(str, words)])
            main()
            return capsys.readouterr().out

        return run

    def test_verbs_take_folders(self, program, fit, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        fit.save_pretrained("bend")
        MLP((3,), width=16, blocks=1).save_pretrained("net")
        assert "3 network calls a sample" in program("inspect", "bend")
        program("sample", "net", "bend", "--count", "2", "--out", "made")
        assert len(list((tmp_path / "made").glob("*.safetensors"))) == 1
