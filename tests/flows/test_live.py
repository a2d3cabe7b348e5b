"""What others see of a run while it goes on: run.json, and a page that never stops the training."""

from __future__ import annotations

import json
import re
import signal
import time
from types import SimpleNamespace

import pytest
import torch

import fewstep as fs
from fewstep.data import ArrayDataset
from fewstep.flows import FlowMatching, Learned, Settings, Trainer, _live
from fewstep.networks import MLP, GaussianEncoder


class Observed(ArrayDataset):
    """Points, and a function that is called whenever a batch of them is read."""

    def __init__(self, observe=lambda: None):
        super().__init__(torch.randn(64, 2, generator=torch.Generator().manual_seed(1)), name="points")
        self.observe = observe

    def __getitem__(self, indices):
        self.observe()
        return super().__getitem__(indices)


def trainer(out, data=None, validation=None, **settings):
    torch.manual_seed(0)
    encoder = GaussianEncoder(MLP((2,), width=8, blocks=1, out_channels=4))
    options = {"steps": 20, "batch": 16, "log_every": 5, "ema": (100,), "warmup": 2, "page_every": 1e-9}
    return Trainer(
        FlowMatching(MLP((2,), width=8, blocks=1), Learned(encoder, 1.0)),
        data or Observed(),
        Settings(**{**options, **settings}),
        out=out,
        validation=validation,
        device="cpu",
        progress=False,
    )


def summary(folder):
    return re.search(r'<p class="summary">(.*?)</p>', (folder / "index.html").read_text())[1]


def record(folder):
    return json.loads((folder / "run.json").read_text())


def test_the_page_is_written_again_and_again_and_once_more_at_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(_live, "_SHARE", float("inf"))
    seen = []

    def observe():
        if (page := tmp_path / "index.html").exists():
            seen.append((summary(tmp_path), 'id="live"' in page.read_text(), record(tmp_path)["ended"]))

    trainer(tmp_path, Observed(observe)).run()
    for step in (0, 5, 10, 15):
        assert any(words.startswith(f"Running, at step {step} of 20") for words, *_ in seen)
    assert all(live and ended is None for _, live, ended in seen)
    html = (tmp_path / "index.html").read_text()
    assert "Finished: 20 steps" in summary(tmp_path)
    assert 'id="live"' not in html
    assert record(tmp_path)["ended"]["how"] == "finished"
    assert "flow.safetensors" in html  # written before the page


def test_a_run_says_what_it_is(tmp_path):
    run = trainer(tmp_path, validation=Observed())
    before = time.time()
    run.run()
    found = record(tmp_path)
    assert (found["format"], found["schema"]) == ("fewstep.run", 1)
    assert found["run"] == run.folder.facts
    assert found["run"]["coupling"] == {"name": "Learned", "exact": False, "beta": 1.0}
    assert found["data"] == {"name": "points", "shape": [2]}
    assert found["validation"] == {"name": "points", "count": 64}
    flow = fs.models.load_network(tmp_path / "flow.safetensors")
    assert found["parameters"]["flow"] == sum(p.numel() for p in flow.parameters())
    assert found["parameters"].keys() == {"flow", "encoder"}
    assert (found["device"]["kind"], found["device"]["processes"]) == ("cpu", 1)
    assert found["versions"]["torch"] == torch.__version__
    assert before - 1 <= found["started"] <= found["ended"]["time"] <= time.time()


def test_an_interrupted_run_says_so_and_goes_on(tmp_path):
    reads = []

    def stop():
        reads.append(1)
        if len(reads) == 9:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer(tmp_path, Observed(stop)).run()
    assert record(tmp_path)["ended"]["how"] == "interrupted"
    at = int(re.match(r"Interrupted at step (\d+) of 20", summary(tmp_path))[1])
    assert f"continue from step {at}, the last checkpoint" in (tmp_path / "index.html").read_text()

    trainer(tmp_path, page_every=5.0).run()  # another interval is the same run
    assert "Finished: 20 steps" in summary(tmp_path)
    assert record(tmp_path)["run"]["settings"]["page_every"] == 5


def test_a_failed_run_says_why(tmp_path):
    def fail():
        if (tmp_path / "metrics.jsonl").exists():
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        trainer(tmp_path, Observed(fail)).run()
    assert record(tmp_path)["ended"]["how"] == "failed"
    assert summary(tmp_path).startswith("Failed at step 5 of 20 (25 %): the disk is gone. ")


def test_without_a_page_there_is_still_a_record(tmp_path):
    trainer(tmp_path, page_every=0).run()
    assert not (tmp_path / "index.html").exists()
    assert record(tmp_path)["ended"]["how"] == "finished"


def broken(*arguments):
    raise RuntimeError("no page today")


def test_a_page_that_fails_is_told_once_and_changes_nothing(tmp_path, monkeypatch):
    expected = trainer(tmp_path / "with").run()
    monkeypatch.setattr(_live, "training_page", broken)
    with pytest.warns(UserWarning, match=r"goes on without a new .*index\.html: no page today") as told:
        found = trainer(tmp_path / "without").run()
    assert len(told) == 1
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    assert not (tmp_path / "without" / "index.html").exists()


def test_a_record_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError("no space left on device")

    monkeypatch.setattr(_live, "write_json", full)
    with pytest.warns(UserWarning, match=r"goes on without a new .*run\.json: no space left") as told:
        trainer(tmp_path).run()
    assert len(told) == 1
    assert (tmp_path / "flow.safetensors").exists()


def test_pages_take_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch):
    now, written = [0.0], []

    class Slow:
        def write(self, path):
            written.append(now[0])
            now[0] += 3.0

    monkeypatch.setattr(_live, "training_page", lambda folder: Slow())
    monkeypatch.setattr(_live, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    live = _live.Live(tmp_path, {}, every=10)
    for _ in range(2000):
        live.show()
        now[0] += 0.5
    assert written == pytest.approx([0, 303, 606, 909], abs=0.6)


def test_pages_are_not_more_frequent_than_asked_for(tmp_path, monkeypatch):
    now, written = [0.0], []
    page = SimpleNamespace(write=lambda path: written.append(now[0]))
    monkeypatch.setattr(_live, "training_page", lambda folder: page)
    monkeypatch.setattr(_live, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    live = _live.Live(tmp_path, {}, every=10)
    for now[0] in range(35):
        live.show()
    assert written == [0, 10, 20, 30]


@pytest.mark.parametrize("wrong", [-1.0, float("inf")])
def test_an_interval_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="page_every: must be seconds, or 0 for no page, not"):
        Settings(page_every=wrong)
