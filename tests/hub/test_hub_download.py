"""Reading from the Hub: what is asked, what is run (nothing), and what is said when it fails."""

from __future__ import annotations

import json
import pickle
import time

import pytest
import torch

import fewstep as fs
from fewstep.networks import MLP, UNet

REPO = "someone/solver"


@pytest.fixture
def midpoint():
    return fs.classical.midpoint(2)


def test_a_solver_comes_from_the_hub(published, hub, midpoint):
    assert fs.Solver.from_pretrained(published(midpoint, REPO)) == midpoint
    files = {path.rpartition("/")[2] for _, path in hub.asked}
    assert files == {"", "solver.json"}


def test_a_fit_and_a_network_come_from_the_hub(published, fit):
    network = MLP((2,), width=16, blocks=1)
    assert fs.Fit.from_pretrained(published(fit, "someone/fit")).solver.table.D.equal(fit.solver.table.D)
    read = MLP.from_pretrained(published(network, "someone/net"))
    x, t = torch.randn(3, 2), torch.tensor(0.4)
    assert torch.equal(read(x, t), network.eval()(x, t))
    assert not read.training


def test_options_arrive(published, hub, midpoint, tmp_path):
    published(midpoint, REPO)
    cache = tmp_path / "elsewhere"
    commit = "0" * 39 + "1"
    fs.Solver.from_pretrained(REPO, revision=commit, token="mine", cache_dir=cache)
    assert "Bearer mine" in hub.tokens
    assert list(cache.rglob("solver.json"))
    count = len(hub.asked)
    fs.Solver.from_pretrained(REPO, revision=commit, cache_dir=cache, local_files_only=True)
    assert len(hub.asked) == count
    fs.Solver.from_pretrained(REPO, cache_dir=cache, force_download=True)
    assert ("GET", f"/{REPO}/resolve/main/solver.json") in hub.asked[count:]


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("a pickle was loaded",)


def test_nothing_in_a_repository_is_run(published, hub, midpoint):
    config = {"_class_name": "os", "auto_map": {"AutoModel": "evil.Evil"}, "config": {"a": 1}}
    evil = {
        "config.json": json.dumps(config).encode(),
        "evil.py": b"raise SystemExit",
        "solver.py": b"raise SystemExit",
        "pytorch_model.bin": pickle.dumps(Bomb()),
        "solver.pkl": pickle.dumps(Bomb()),
    }
    for thing, repo in ((midpoint, REPO), (MLP((2,), width=16, blocks=1), "someone/net")):
        type(thing).from_pretrained(published(thing, repo, evil))
    asked = {path.rpartition("/")[2] for _, path in hub.asked}
    assert asked == {"", "solver.json", "network.safetensors"}


@pytest.mark.parametrize(
    "content", [pickle.dumps(Bomb()), b"\x80\x04{", b"[1]", b'{"format": "fewstep.solver"']
)
def test_a_file_that_is_none_of_ours_is_refused(published, midpoint, content):
    published(midpoint, REPO, {"solver.json": content})
    with pytest.raises(ValueError, match=r"not a readable solver file|not a solver file"):
        fs.Solver.from_pretrained(REPO)


def test_a_class_of_another_package_is_not_built(published, tmp_path):
    class Foreign(UNet):
        pass

    network = MLP((2,), width=16, blocks=1)
    published(network, REPO)
    with pytest.raises(
        ValueError, match=r"UNet\.from_pretrained: .* class MLP; load it with .*MLP\.from_pre"
    ):
        UNet.from_pretrained(REPO)
    foreign = Foreign(width=8, multipliers=(1,), blocks=1)
    with pytest.raises(ValueError, match="'Foreign' is not a network of this version"):
        foreign.save_pretrained(tmp_path / "x")


@pytest.mark.parametrize(
    ("reader", "holds", "message"),
    [
        (
            fs.Solver,
            "fit",
            r"holds a fit, fit\.json, and no solver\.json; load it with fewstep\.Fit\.from_pre",
        ),
        (fs.Fit, "midpoint", r"holds a solver, .* load it with fewstep\.Solver\.from_pretrained"),
        (MLP, "midpoint", r"MLP\.from_pretrained: 'someone/x' holds a solver"),
    ],
)
def test_a_repository_of_another_kind_names_its_reader(published, request, reader, holds, message):
    published(request.getfixturevalue(holds), "someone/x")
    with pytest.raises(FileNotFoundError, match=message):
        reader.from_pretrained("someone/x")


def test_a_repository_without_our_files(hub):
    hub.repos[REPO] = {"model.safetensors": b""}
    with pytest.raises(
        FileNotFoundError, match=r"'someone/solver' holds no solver\.json, which save_pretrai"
    ):
        fs.Solver.from_pretrained(REPO)


@pytest.mark.parametrize(
    ("refused", "kind", "message"),
    [
        (
            (404, "RepoNotFound"),
            FileNotFoundError,
            "the Hub shows no repository 'someone/solver'; check the na",
        ),
        ((403, "GatedRepo"), PermissionError, r"is gated; ask for access .* 'hf auth login' or pass a token"),
        ((401, ""), PermissionError, r"refuses access .*so it is"),
        (
            (403, ""),
            PermissionError,
            r"refuses access .*so it is.*; log in with 'hf auth login' or pass a token",
        ),
    ],
)
def test_refusals_are_one_sentence(hub, refused, kind, message):
    hub.refused[REPO] = refused
    with pytest.raises(kind, match=message) as caught:
        fs.Solver.from_pretrained(REPO, token="wrong")
    assert caught.value.__cause__ is not None
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("Solver.from_pretrained: 'someone/solver' is no folder here, and")


def test_a_missing_revision(published, midpoint):
    published(midpoint, REPO)
    with pytest.raises(FileNotFoundError, match="has no revision 'v9'; name one of its branches"):
        fs.Solver.from_pretrained(REPO, revision="v9")


class TestOffline:
    @pytest.fixture
    def offline(self, hub, published, midpoint):
        """The Hub is gone after a solver was loaded once."""
        fs.Solver.from_pretrained(published(midpoint, REPO))
        hub.move("http://127.0.0.1:9")
        return pytest.importorskip("huggingface_hub.constants")

    def test_the_cache_serves(self, offline, midpoint):
        start = time.monotonic()
        assert fs.Solver.from_pretrained(REPO) == midpoint
        assert time.monotonic() - start < 3

    def test_without_it_one_sentence_comes_soon(self, offline):
        start = time.monotonic()
        with pytest.raises(ConnectionError) as caught:
            fs.Solver.from_pretrained("someone/other")
        assert time.monotonic() - start < 3
        for part in ("'someone/other'", "127.0.0.1:9 cannot be reached", "solver.json", "folder", "cache"):
            assert part in str(caught.value)

    def test_force_download_does_not_fall_back_to_the_cache(self, offline):
        with pytest.raises(
            ConnectionError, match=r"force_download=True needs the Hub, but .* cannot be reach"
        ):
            fs.Solver.from_pretrained(REPO, force_download=True)

    def test_by_setting(self, offline, monkeypatch):
        monkeypatch.setattr(offline, "HF_HUB_OFFLINE", True)
        with pytest.raises(ConnectionError, match="and HF_HUB_OFFLINE is set"):
            fs.Solver.from_pretrained("someone/other")

    def test_by_argument(self, hub):
        with pytest.raises(ConnectionError, match="local_files_only=True forbids"):
            fs.Solver.from_pretrained(REPO, local_files_only=True)
        assert hub.asked == []
