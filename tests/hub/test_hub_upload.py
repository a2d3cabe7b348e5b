"""Writing to the Hub: what would be sent, to where, and what is said when it fails."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

import fewstep as fs
from fewstep.networks import MLP


@pytest.fixture
def sent(monkeypatch):
    """What the methods of ``HfApi`` that write are given, and the files that a commit would hold."""
    api = pytest.importorskip("huggingface_hub").HfApi
    found = {}

    def create_repo(self, repo_id, **options):
        found.update(token=self.token, library=self.library_name, create=(repo_id, options))
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def create_branch(self, repo_id, **options):
        found["branch"] = (repo_id, options)

    def upload_folder(self, *, folder_path, **options):
        files = {path.name: path.read_bytes() for path in Path(folder_path).iterdir()}
        found.update(files=files, upload=options, folder=folder_path)
        return f"https://huggingface.co/{options['repo_id']}/commit/1"

    for method in (create_repo, create_branch, upload_folder):
        monkeypatch.setattr(api, method.__name__, method)
    return found


def test_a_solver_is_sent_with_its_card(sent, fit, tmp_path):
    address = fit.solver.push_to_hub("me/bend-3", license="mit", private=True, token="mine")
    assert address == "https://huggingface.co/me/bend-3/commit/1"
    assert sent["create"] == ("me/bend-3", {"private": True, "exist_ok": True})
    assert (sent["token"], sent["library"]) == ("mine", "fewstep")
    assert sent["upload"] == {
        "repo_id": "me/bend-3", "commit_message": "Upload a Solver with fewstep", "revision": None,
        "create_pr": False,
    }  # fmt: skip
    assert "branch" not in sent
    assert sorted(sent["files"]) == ["README.md", "solver.json"]
    fit.solver.save(tmp_path / "solver.json")
    assert sent["files"]["solver.json"] == (tmp_path / "solver.json").read_bytes()
    assert b'fs.Solver.from_pretrained("me/bend-3")' in sent["files"]["README.md"]
    assert b"license: mit" in sent["files"]["README.md"]
    assert not Path(sent["folder"]).exists()


def test_a_short_name_becomes_the_whole_one_in_the_card(sent, fit):
    fit.push_to_hub("bend", card=None, commit_message="Fit", revision="trial", create_pr=True)
    assert b'fs.Fit.from_pretrained("me/bend")' in sent["files"]["README.md"]
    assert sent["branch"] == ("me/bend", {"branch": "trial", "exist_ok": True})
    expected = {"repo_id": "me/bend", "commit_message": "Fit", "revision": "trial", "create_pr": True}
    assert sent["upload"] == expected


def test_a_network_is_sent_with_its_facts(sent):
    network = MLP((2,), width=16, blocks=1)
    network.push_to_hub("me/net", shape=(2,), schedule=fs.schedules.VP(), prediction="noise")
    assert sorted(sent["files"]) == ["README.md", "network.safetensors"]
    assert b"prediction: noise" in sent["files"]["README.md"]


def test_a_mistyped_argument_does_not_publish(sent):
    for thing in (fs.classical.midpoint(2), MLP((2,), width=16, blocks=1)):
        with pytest.raises(TypeError, match=r"push_to_hub: there is no argument 'privat'"):
            thing.push_to_hub("me/x", privat=True)
    assert sent == {}


def test_what_cannot_be_written_leaves_no_repository(sent):
    with pytest.raises(ValueError, match="prediction: must be one of"):
        MLP((2,), width=16, blocks=1).push_to_hub("me/x", prediction="nonsense")
    with pytest.raises(ValueError, match="card: the metadata of this model card cannot be read"):
        fs.classical.midpoint(2).push_to_hub("me/x", card="---\na: [\n---\n")
    assert sent == {}


@pytest.mark.parametrize(
    ("refused", "kind", "message"),
    [
        (
            (401, ""),
            PermissionError,
            r"refuses access to 'me/x' .*log in with 'hf auth login' or pass a token",
        ),
        ((403, ""), PermissionError, r"refuses access to 'me/x' \(so it is\)"),
        ((400, ""), ValueError, "the Hub answered with the error 400 for 'me/x': so it is"),
        ((500, ""), ConnectionError, "the Hub answered with the error 500 for 'me/x'"),
    ],
)
def test_refusals_are_one_sentence(hub, refused, kind, message):
    hub.refused["repos/create"] = refused
    with pytest.raises(kind, match=message) as caught:
        fs.classical.midpoint(2).push_to_hub("me/x", token="wrong")
    assert str(caught.value).startswith("Solver.push_to_hub: the Hub")
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None


def test_without_a_connection(hub, monkeypatch):
    monkeypatch.setattr(pytest.importorskip("huggingface_hub.constants"), "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"Solver\.push_to_hub: the Hub cannot be reached for 'me/x'"):
        fs.classical.midpoint(2).push_to_hub("me/x")


@pytest.mark.parametrize("name", ["a/b/c", "a b", "", "x--y", None])
def test_an_impossible_name(name):
    with pytest.raises(
        ValueError, match=r"no repository can have the name|must be a name like 'owner/name', not"
    ):
        fs.classical.midpoint(2).push_to_hub(name)
