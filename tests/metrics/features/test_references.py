"""Statistics of data from an address: fetched once, bounded, and refused in one sentence."""

import hashlib
import io
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch

from fewstep.metrics.features import load_reference

ADDRESS = "https://example.org/refs/stats.npz"


class Answer(io.BytesIO):
    """What urlopen returns."""

    def __init__(self, content, length=None, address=ADDRESS):
        super().__init__(content)
        self.headers = {"Content-Length": str(len(content) if length is None else length)}
        self.geturl = lambda: address


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Make every address send something, and count the requests."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    asked = []

    def set_answer(make):
        def urlopen(address, timeout):
            asked.append(address)
            return make()

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    return set_answer


def statistics():
    file = io.BytesIO()
    np.savez(file, mu=np.zeros(2048), sigma=np.eye(2048))
    return file.getvalue()


def kept(tmp_path):
    return [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]


def test_statistics_are_fetched_once_and_hashed(serve, tmp_path):
    content = statistics()
    asked = serve(lambda: Answer(content))
    for _ in range(2):
        reference = load_reference(ADDRESS)
    assert asked == [ADDRESS]
    assert reference.source == ADDRESS
    assert reference.sha256 == hashlib.sha256(content).hexdigest()
    assert reference.features["name"] == "inception"


def refused():
    raise urllib.error.URLError("no route to host")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (refused, "cannot be downloaded .no route to host.; give the path of a copy"),
        (
            lambda: Answer(b"x", length=10**9),
            "it sends 1,000,000,000 bytes or more, and may send 100,000,000",
        ),
        (lambda: Answer(b"few", length=9), "only 3 of 9 bytes came"),
        (lambda: Answer(b"x", address="http://example.org/"), "it leads to http://example.org/, by another"),
    ],
    ids=["offline", "large", "cut", "elsewhere"],
)
def test_what_cannot_be_fetched_is_one_sentence(serve, tmp_path, make, words):
    serve(make)
    with pytest.raises(OSError, match=f"^ref: {ADDRESS} {words}" if make is refused else words) as caught:
        load_reference(ADDRESS)
    assert "\n" not in str(caught.value)
    assert kept(tmp_path) == []


def test_more_than_was_announced_is_cut_off(serve, tmp_path, monkeypatch):
    monkeypatch.setattr("fewstep.metrics.features._references._MOST", 1000)
    serve(lambda: Answer(bytes(2000), length=0))
    with pytest.raises(OSError, match="it sends 2,000 bytes or more, and may send 1,000"):
        load_reference(ADDRESS)
    assert kept(tmp_path) == []


def test_a_page_that_is_no_statistics_is_not_kept(serve, tmp_path):
    serve(lambda: Answer(b"<html>not found</html>"))
    with pytest.raises(ValueError, match=rf"^ref: what {ADDRESS} sent was not kept: .*not a readable"):
        load_reference(ADDRESS)
    assert kept(tmp_path) == []


def test_other_protocols_are_refused(serve):
    asked = serve(refused)
    with pytest.raises(ValueError, match=r"^ref: http://a\.org/b\.npz must begin with https://"):
        load_reference("http://a.org/b.npz")
    assert asked == []
