"""``fewstep view``: the page of a run that is over or goes on, watched and served."""

from __future__ import annotations

import json
import socket
import threading
import time
import urllib.request

import pytest

RUN = [
    "train", "--data", "digits", "--network", "{class: MLP, width: 16, blocks: 1}", "--steps", "6",
    "--batch", "8", "--log-every", "2", "--device", "cpu", "--out", "run",
]  # fmt: skip


def test_a_run_is_made_into_a_page_again_also_an_old_one(program, tmp_path):
    program(*RUN)
    run = tmp_path / "run"
    for name in ("index.html", "run.json", "config.yaml"):
        (run / name).unlink()
    result = program("view", "run", "--json")
    assert result["page"] == "run/index.html"
    assert result["summary"].startswith("Finished: 6 steps")
    html = (run / "index.html").read_text()
    assert result["title"] in html
    assert 'id="live"' not in html  # nothing goes on
    shown = program("view", "run")
    assert shown.endswith("wrote run/index.html\n")


def test_no_run_is_one_line(failure, tmp_path):
    (tmp_path / "empty").mkdir()
    said = failure("view", "empty")
    assert "empty holds no training, as it has neither run.json nor metrics.jsonl nor checkpoints/" in said
    assert "there is no folder absent" in failure("view", "absent")
    assert not (tmp_path / "empty" / "index.html").exists()


@pytest.fixture
def going_on(tmp_path):
    """A run that goes on, as far as its folder tells."""
    (tmp_path / "run").mkdir()
    facts = {"format": "fewstep.run", "schema": 1, "run": {"settings": {"steps": 9, "batch": 1}}}
    facts |= {"started": time.time(), "ended": None}
    (tmp_path / "run" / "run.json").write_text(json.dumps(facts))
    return tmp_path / "run"


def test_news_are_shown_until_ctrl_c(program, going_on, monkeypatch):
    page = going_on / "index.html"
    naps = []

    def sleep(seconds):
        naps.append(seconds)
        if len(naps) == 1:
            assert "at step 0 of 9" in (html := page.read_text())
            assert 'data-seconds="2"' in html
            (going_on / "metrics.jsonl").write_text(json.dumps({"step": 3, "loss": 1.0}) + "\n")
        elif len(naps) == 2:
            assert "at step 3 of 9" in page.read_text()
            page.unlink()
        else:
            assert not page.exists()  # nothing new, nothing written
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    program("view", "run", "--watch", 2)
    assert naps == [2, 2, 2]


def test_a_folder_is_served_to_this_machine_alone(program, going_on, monkeypatch):
    seen = []

    def sleep(seconds):
        threads = [thread for thread in threading.enumerate() if "serve_forever" in str(thread)]
        assert len(threads) == 1
        (address,) = [thread._target.__self__.server_address for thread in threads]
        with urllib.request.urlopen(f"http://127.0.0.1:{address[1]}/") as answer:
            seen.append((address, answer.headers["Cache-Control"], answer.read().decode()))
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    shown = program("view", "run", "--serve", 0)
    ((host, port), cached, html), = seen  # fmt: skip
    assert (host, cached) == ("127.0.0.1", "no-store")
    assert "at step 0 of 9" in html
    assert f"ssh -N -L {port}:127.0.0.1:{port} USER@" in shown


def test_a_port_that_is_taken_is_told(ended, going_on):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, _, said = ended("view", "run", "--serve", port)
    assert status == 2
    assert said.startswith(f"error: --serve: port {port} cannot be had")
