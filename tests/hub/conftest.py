"""Fits to share, and a server on this machine that answers as the Hub does."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
import torch

import fewstep as fs
from fewstep.fitting import GaussNewton

COMMIT = "0" * 39 + "1"


@pytest.fixture(scope="session")
def network():
    """A smooth velocity on three dimensions."""
    return lambda x, t: 0.9 * torch.sin(x.roll(1, dims=1) + 2 * t.reshape(-1, *[1] * (x.ndim - 1)))


@pytest.fixture(scope="session")
def fit(network):
    field = fs.Field(network, shape=(3,), name="bend")
    return fs.fit(field, nfe=3, pairs=8, optimizer=GaussNewton(2))


@pytest.fixture(scope="session")
def several(network):
    """Solvers for two numbers of calls and scales of guidance."""
    weak = fs.Field(lambda x, t: 0.5 * network(x, t)).model
    field = fs.Field(network, shape=(3,), guide=weak, guidance=2.0, name="bend")
    return fs.fit(field, nfe=2, guidance=(1, 4), pairs=8, optimizer=GaussNewton(2))


class Hub:
    """Repositories by name, each a dict of files; and statuses that requests of some names end in."""

    def __init__(self, address):
        self.address = address
        self.repos = {}
        self.refused = {}  # name: (status, X-Error-Code)
        self.asked = []
        self.tokens = set()

    def answer(self, method, path, token):
        """Return status, headers and content."""
        self.asked.append((method, path))
        self.tokens.add(token)
        for name, (status, code) in self.refused.items():
            if name in path:
                return status, {"X-Error-Code": code, "X-Error-Message": "so it is"}, b""
        parts = path.partition("?")[0].strip("/").split("/")
        if parts == [""]:
            return 200, {}, b""
        repo = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repo not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        files = self.repos[repo]
        if parts[0] == "api":
            listed = [{"type": "file", "path": name, "oid": "0", "size": len(c)} for name, c in files.items()]
            siblings = [{"rfilename": name} for name in files]
            tree = "tree" in parts
            content = listed if tree else {"id": repo, "sha": COMMIT, "siblings": siblings}
            return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()
        if parts[3] not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if parts[4] not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        content = files[parts[4]]
        digest = hashlib.sha256(content).hexdigest()
        return 200, {"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'}, content


def move_hub(monkeypatch, address):
    """Let the Hub be at an address."""
    constants = pytest.importorskip("huggingface_hub.constants")
    file_download = pytest.importorskip("huggingface_hub.file_download")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    for module in (constants, file_download):  # which has a copy in old versions
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", address)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The Hub, at an address of this machine, with an empty cache."""
    constants = pytest.importorskip("huggingface_hub.constants")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_POST(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self):
            status, headers, content = served.answer(self.command, self.path, self.headers["Authorization"])
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Hub(f"http://127.0.0.1:{server.server_address[1]}")
    served.move = partial(move_hub, monkeypatch)
    served.move(served.address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def published(hub, tmp_path):
    """``published(thing, "owner/name", **more)``: what it saves, and more files, as a repository."""

    def publish(thing, repo, more=(), **options):
        folder = tmp_path / repo.replace("/", "-")
        thing.save_pretrained(folder, **options)
        hub.repos[repo] = {path.name: path.read_bytes() for path in folder.iterdir()} | dict(more)
        return repo

    return publish
