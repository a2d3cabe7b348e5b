"""Names, paths, and where names are looked for."""

from __future__ import annotations

import shutil
import socket
import time
from threading import Thread

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.data import _hub, _load


@pytest.fixture(autouse=True)
def _no_folder(monkeypatch):
    monkeypatch.delenv("FEWSTEP_DATA", raising=False)


@pytest.fixture
def datasets(hub_cache, monkeypatch):
    """The real package, with an empty cache and a hub that refuses connections."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    return datasets


@pytest.fixture
def repository(datasets, tmp_path, pictures, encoded):
    """A folder like a data set's on the hub, with the pictures of its training split."""
    x = pictures(4)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    for split, rows in (("train", x), ("test", x[:1])):
        table = {"img": [{"bytes": encoded(row), "path": None} for row in rows], "label": [0] * len(rows)}
        path = tmp_path / "mnist" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        datasets.Dataset.from_dict(table, features=features).to_parquet(path)
    return path.parent, x


def test_digits_are_the_embedded_ones():
    data = fs.data.load("digits")
    assert (len(data), data.shape, data.name) == (1797, (1, 8, 8), "digits")
    assert torch.equal(data[range(1797)], fs.data.digits()[0])
    with pytest.raises(ValueError, match="digits: has no split 'test', only 'train'"):
        fs.data.load("digits", split="test")


class TestPaths:
    def test_a_name_is_not_taken_for_a_path(self, tmp_path, monkeypatch, lay, pictures):
        lay("folder", {"a.png": pictures(1)[0]}).rename(tmp_path / "digits")
        monkeypatch.chdir(tmp_path)
        assert len(fs.data.load("digits")) == 1797
        (tmp_path / "digits").rename(tmp_path / "mine")
        for source in ("mine", "./mine", tmp_path / "mine", str(tmp_path / "mine")):
            assert len(fs.data.load(source)) == 1
            assert fs.data.load(source).name == "mine"

    def test_unknown_names_and_missing_paths(self, tmp_path):
        with pytest.raises(
            ValueError, match=r"^minst: there is no such path, and .* must be one of digits, .* mean 'mnist'"
        ):
            fs.data.load("minst")
        for source in ("no/such/folder", "none.npz", tmp_path / "mnist"):
            with pytest.raises(FileNotFoundError, match="there is no such file or folder"):
                fs.data.load(source)

    def test_files_of_no_known_kind(self, tmp_path):
        (tmp_path / "a.tar").write_bytes(b"")
        with pytest.raises(ValueError, match=r"a\.tar: is of no known kind; give a folder, or a file of npz"):
            fs.data.load(tmp_path / "a.tar")


class TestFolderOfData:
    @pytest.mark.parametrize("layout", ["mnist", "mnist.npz", "mnist.zip"])
    def test_a_name_is_found_there(self, tmp_path, monkeypatch, lay, pictures, layout):
        if layout.endswith("npz"):
            np.savez(tmp_path / layout, x_train=pictures(2))
        else:
            lay(layout[6:] or "folder", {f"{k}.png": x for k, x in enumerate(pictures(2))}).rename(
                tmp_path / layout
            )
        monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path))
        data = fs.data.load("mnist")
        assert (len(data), data.name) == (2, "mnist")
        with pytest.raises(ValueError, match="has no split 'test'"):
            fs.data.load("mnist", split="test")

    def test_a_setting_that_is_no_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path / "none"))
        with pytest.raises(FileNotFoundError, match=r"FEWSTEP_DATA is set to .*none, which is not a folder"):
            fs.data.load("mnist")

    def test_the_real_data(self, shared, monkeypatch):
        monkeypatch.setenv("FEWSTEP_DATA", str(shared))
        assert len(fs.data.load("mnist", split="test")) == 10000
        assert len(fs.data.load("cifar10", split="test")) == 10000


class TestHub:
    def test_a_data_set_through_the_real_reader(self, repository, monkeypatch):
        folder, x = repository
        monkeypatch.setitem(_load._HUB, "cifar10", (str(folder), ("train", "test")))
        data = fs.data.load("cifar10")
        assert data.name == "cifar10"
        assert np.array_equal(data[range(4)].numpy(), x.transpose(0, 3, 1, 2))
        assert len(fs.data.load("cifar10", split="test", channels=1, resolution=4)) == 1
        assert torch.equal(fs.data.load(folder)[range(4)], data[range(4)])  # the same files by their path

    def test_a_cached_data_set_needs_no_network(self, datasets, repository, hub_cache):
        folder, x = repository
        datasets.load_dataset(str(folder))
        prepared = next(hub_cache.glob("*/*/*/*/mnist-train.arrow")).parent
        shutil.copytree(prepared, hub_cache / "ylecun___mnist" / "default" / "0.0.0" / "0123456789abcdef")
        data = fs.data.load("mnist")
        assert np.array_equal(data[range(4)].numpy(), x.transpose(0, 3, 1, 2))
        assert datasets.config.HF_HUB_OFFLINE is False

    def test_what_is_not_cached_is_fetched(self, datasets, repository, monkeypatch):
        table, offline = datasets.load_dataset(str(repository[0]), split="train"), []

        def fetch(hub, split):
            assert (hub, split) == ("huggan/AFHQv2", "train")
            offline.append(datasets.config.HF_HUB_OFFLINE)
            if datasets.config.HF_HUB_OFFLINE:
                raise ConnectionError("offline")
            return table

        monkeypatch.setattr(datasets, "load_dataset", fetch)
        with socket.create_server(("127.0.0.1", 0)) as server:
            _answer_once(server)
            endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
            monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
            assert len(fs.data.load("afhq")) == 4
        assert offline == [True, False]

    def test_without_network_the_error_comes_soon(self, datasets):
        start = time.monotonic()
        with pytest.raises(FileNotFoundError) as caught:
            fs.data.load("mnist")
        assert time.monotonic() - start < 3
        message = str(caught.value)
        for part in ("FEWSTEP_DATA is not set", "ylecun/mnist", "127.0.0.1:9 cannot be reached", "mnist.npz"):
            assert part in message

    def test_a_hub_that_never_answers_is_not_waited_for(self, datasets, monkeypatch):
        monkeypatch.setattr(_hub, "_PATIENCE", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as server:
            endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
            monkeypatch.setattr(datasets.config, "HF_ENDPOINT", endpoint)
            with pytest.raises(FileNotFoundError, match=r"gave no answer in 0\.2 seconds|cannot be reached"):
                fs.data.load("mnist")

    def test_offline_by_setting(self, datasets, monkeypatch, tmp_path):
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        monkeypatch.setenv("FEWSTEP_DATA", str(tmp_path))
        with pytest.raises(
            FileNotFoundError, match=r"FEWSTEP_DATA \(.*\) holds no ffhq, .*HF_HUB_OFFLINE or"
        ):
            fs.data.load("ffhq")

    def test_a_missing_split_is_told_before_anything_is_fetched(self, monkeypatch):
        monkeypatch.setattr(_load, "table_from_hub", lambda *_: pytest.fail("asked the hub"))
        with pytest.raises(ValueError, match=r"has no split 'test', only 'train' and 'validation'"):
            fs.data.load("celebahq", split="test")


def _answer_once(server):
    """Answer the next request of a client, from a thread."""

    def answer():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    Thread(target=answer, daemon=True).start()
