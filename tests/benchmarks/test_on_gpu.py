"""The script of measurements on a GPU, rehearsed on a CPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

import fewstep as fs

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import on_gpu
from gpu import _loops, _record, _timing, speed, tables
from gpu._networks import CASES

CPU = torch.device("cpu")
# Upstream's own: diffusers' attention, and its mixing of arrays and tensors.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
]


@pytest.fixture
def uncompiled(monkeypatch):
    """Stand-ins: compiling takes minutes on a CPU, and has tests of its own."""

    def compiled(self, field, *, like, mode, **conditions):
        assert mode in ("default", "reduce-overhead"), mode
        assert like.shape[1:] == field.shape or field.shape is None
        return lambda x0, **conditions: self.sample(field, x0, **conditions)

    monkeypatch.setattr(torch, "compile", lambda network, **options: network)
    monkeypatch.setattr(fs.Solver, "compiled", compiled, raising=False)


@pytest.fixture
def stage(tmp_path):
    """``stage(name, *options)``: the exit status and the record of a stage on the CPU."""

    def run(name, *options):
        arguments = [name, "--out", str(tmp_path), "--device", "cpu", "--minutes", "1", "--tiny", *options]
        status = on_gpu.main(arguments)
        return status, json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))

    return run


def setting(network=None):
    network = network or torch.nn.Linear(3, 3)

    class Timed(torch.nn.Module):
        calls = 0

        def forward(self, x, t):
            Timed.calls += len(x)
            return network(x) * t.reshape(-1, 1)

    model = Timed().eval()
    return _loops.Setting(model, fs.Field(model, name="timed"), fs.noise(2, (3,), seed=1), {}), Timed


def test_speed_measures_every_part(uncompiled, stage, capsys):
    status, content = stage("speed")
    assert status == 0
    assert content["finished"]
    assert content["machine"]["torch"] == torch.__version__
    assert content["machine"]["card"] == "cpu"
    assert [each["part"] for each in content["left_out"]] == ["CUDA graph"]
    assert set(content["parts"]) == set(speed.PARTS) == {row["part"] for row in content["rows"]}
    for row in content["rows"]:
        if "way" in row:
            assert row["low"] <= row["ratio"] <= row["high"]
            assert row["low"] > 0
            assert row["images_per_s"] * row["us_per_call"] == pytest.approx(1e6 * row["batch"] / 8)
            assert row["peak_mib"] is None
        else:
            parts = [row[f"{part}_s"] for part in ("reference", "search", "fit", "errors")]
            assert 0 < row["network_s"] < row["seconds"]
            # Between the parts this process may have to wait for others.
            assert 0.5 * row["seconds"] < sum(parts) <= row["seconds"]
            assert 0 < row["forwards"] < row["network_calls"]
    places = {(row["network"], row["batch"]) for row in content["rows"] if row["part"] == "bf16"}
    assert places == {(case.name, 2) for case in CASES}
    printed = capsys.readouterr().out
    assert printed.count("bf16: ") == sum(row["part"] == "bf16" for row in content["rows"])


def test_what_is_not_installed_is_left_out(uncompiled, stage, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    status, content = stage("speed", "--parts", "overhead", "bf16")
    assert status == 0
    assert {row["network"] for row in content["rows"] if row["part"] == "bf16"} == {"CIFAR-10 U-Net"}
    ways = {row["way"] for row in content["rows"] if row["part"] == "overhead"}
    assert ways == {"bare calls", "sample", "midpoint", "torchdiffeq midpoint"}
    reasons = {each["part"]: each["reason"] for each in content["left_out"]}
    assert "pip install 'fewstep[diffusers]'" in reasons["bf16: DiT-XL/2"]
    assert not any(each["failed"] for each in content["left_out"])


def test_the_deadline_leaves_out_the_rest(stage, monkeypatch):
    monkeypatch.setattr(_record.Deadline, "left", -1.0)
    status, content = stage("speed", "--parts", "overhead", "fit")
    assert status == 0
    assert content["rows"] == []
    assert [each["part"] for each in content["left_out"]][1:3] == [
        "overhead: cpu",
        "fit: CIFAR-10 U-Net, bf16",
    ]
    assert "0 s were left" in content["left_out"][1]["reason"]


def test_a_failure_is_recorded_and_the_stage_goes_on(stage, monkeypatch):
    monkeypatch.setattr(fs.Solver, "sample", lambda *args, **options: 1 / 0)
    status, content = stage("speed", "--parts", "overhead")
    assert status == 1
    failed = [each for each in content["left_out"] if each["failed"]]
    assert failed[0] == {
        "part": "overhead: cpu, 1: sample", "reason": "ZeroDivisionError: division by zero", "failed": True,
    }  # fmt: skip
    assert "torchdiffeq midpoint" in {row["way"] for row in content["rows"]}


def test_an_unknown_part_is_refused(stage):
    with pytest.raises(ValueError, match="there is no bf8; the parts are overhead, bf16"):
        stage("speed", "--parts", "bf8")


def test_every_way_makes_eight_calls(uncompiled):
    given, network = setting()
    for make in (_loops.ours, _loops.peers, _loops.compiled_network, _loops.compiled_sampling):
        for name, way in make(given).items():
            block = way()
            network.calls = 0
            block()
            assert network.calls == 8 * len(given.x0), name
    for way in _loops.guidance(given).values():
        network.calls = 0
        way()()
        assert network.calls == 2 * 8 * len(given.x0)


def test_the_midpoint_of_torchdiffeq_is_ours():
    given, _ = setting()
    ways = _loops.peers(given)
    torch.testing.assert_close(ways["torchdiffeq midpoint"]()(), ways["midpoint"]()())


def test_the_doubled_batch_is_two_forwards():
    given, _ = setting()
    two, one = _loops.guidance(given).values()
    torch.testing.assert_close(two()(), one()())


def test_the_table_is_dense():
    solver = _loops.fitted_like()
    assert solver.nfe == 8
    assert bool((solver.table.D.tril() != 0).sum() == 8 * 9 / 2)


@pytest.mark.parametrize(("case", "millions"), list(zip(CASES, (55.73, 859.52, 749.83), strict=True)))
def test_networks_have_the_published_sizes(case, millions):
    """Of EDM's and Stable Diffusion's cards; 28 blocks of DiT have embeddings of 2.78 M each."""
    with torch.device("meta"):
        network = case.make(False)
    assert sum(weights.numel() for weights in network.parameters()) / 1e6 == pytest.approx(
        millions, abs=0.005
    )


def test_blocks_alternate(monkeypatch):
    order, clock = [], iter(range(1000))
    monkeypatch.setattr(_timing.time, "perf_counter", lambda: float(next(clock)))
    blocks = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = _timing.alternate(blocks, CPU, _timing.Plan(budget=9, shortest=2, rounds=(1, 7)))
    # Every reading of the clock is a second after the last: a block seems to take one, and is repeated twice,
    # so that a round should take four, of which nine seconds hold two.
    assert order == ["a", "b", *"aabb", *"bbaa"]
    assert found == {"a": [0.5, 0.5], "b": [0.5, 0.5]}


def test_a_gpu_is_timed_by_its_events(monkeypatch):
    log, clock = [], iter((0.0, 600.0))

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("event")
            self.at = next(clock)

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, end):
            return end.at - self.at  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("idle"))
    found = _timing.seconds(lambda: log.append("run"), torch.device("cuda"), repeats=3)
    assert found == pytest.approx(0.2)
    assert log == ["idle", "event", "run", "run", "run", "event", "wait"]


def test_a_ratio_is_that_of_each_round():
    found = _timing.ratio([1.0, 20.0, 300.0], [2.0, 10.0, 100.0])
    assert found == (2.0, 1.25, 2.5)


def test_a_record_describes_its_rows(tmp_path):
    options = _record.Options(tmp_path, 1, True, CPU, _record.Deadline(1))
    record = _record.Record("fit", "how", options)
    with pytest.raises(ValueError, match="describe it"):
        record.row("unknown", value=1.0)
    record.part("known", "what")
    record.attempt("known", 0, lambda: record.row("known", value=float("nan")))
    content = json.loads((tmp_path / "fit.json").read_text(encoding="utf-8"))
    assert content["rows"] == [{"part": "known", "value": None}]
    assert not content["finished"]


SUITE = """
import pytest
pytestmark = pytest.mark.device
def test_right(): pass
def test_wrong(): assert 1 == 2
def test_absent(): pytest.skip("no such card")
@pytest.fixture
def broken(): raise RuntimeError("no")
def test_broken(broken): pass
def test_endless():
    import time
    time.sleep(SECONDS)
"""


def test_smoke_counts_tests(stage, tmp_path):
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE.replace("SECONDS", "0"))
    status, content = stage("smoke", "--tests", str(suite))
    counts, *others = content["rows"]
    assert status == 1
    found = {kind: counts[kind] for kind in ("passed", "failed", "errors", "skipped", "status")}
    assert found == {"passed": 2, "failed": 1, "errors": 1, "skipped": 1, "status": 1}
    assert {row["test"].split("::")[1]: (row["outcome"], row["reason"]) for row in others} == {
        "test_wrong": ("failed", "assert 1 == 2"),
        "test_absent": ("skipped", "no such card"),
        "test_broken": ("errors", 'failed on setup with "RuntimeError: no"'),
    }


def test_smoke_without_tests_fails(stage, tmp_path):
    status, content = stage("smoke", "--tests", str(tmp_path / "absent"))
    assert status == 1
    assert "status 4" in content["left_out"][0]["reason"]


def test_smoke_ends_by_the_deadline(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(_record.Deadline, "left", 23.0)
    suite = tmp_path / "test_suite.py"
    suite.write_text(SUITE.replace("SECONDS", "60"))
    status, content = stage("smoke", "--tests", str(suite))
    assert status == 1
    counts, *others = content["rows"]
    assert (counts["passed"], counts["interrupted"], counts["status"]) == (1, 1, 2)
    assert others[-1]["test"].startswith("the test after ")
    assert others[-1]["test"].endswith("test_broken")


def test_tables_show_the_figures_of_the_records(tmp_path, capsys):
    facts = {"part": "bf16", "network": "a|b", "batch": 4}
    measures = {"us_per_call": 1234.5, "images_per_s": 1.5, "extra_us_per_call": -2.0, "first_s": 3.0}
    ways = [
        {**facts, "way": way, **measures, "ratio": ratio, "low": 0.5, "high": 3.0, "peak_mib": None}
        for way, ratio in (("bare calls", 1.0), ("sample", 1.25))
    ]
    fits = [{"part": "fit", "pairs": 2048, "search_s": None, "fit_s": 0.12345}]
    options = _record.Options(tmp_path, 1, True, CPU, _record.Deadline(1))
    record = _record.Record("speed", "how it was measured", options)
    record.part("bf16", "in bf16")
    record.part("fit", "a fit")
    record.content["rows"] += [*ways, *fits]
    record.leave_out("graphs", "no GPU")
    record.write()
    assert on_gpu.main(["table", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "CUT SHORT" in text
    assert (
        "| network | batch | bare calls | sample |\n| --- | --- | --- | --- |\n| a\\|b | 4 | 1,234 | 1,234 |"
        in text
    )
    assert "| a\\|b | 4 | 1.000 (0.500 to 3.000) | 1.250 (0.500 to 3.000) |" in text
    assert "peak_mib" not in text
    assert "| pairs | fit_s |\n| --- | --- |\n| 2,048 | 0.123 |" in text
    assert "| graphs | no GPU | False |" in text
    record.finish()
    assert ", complete." in tables.tables(tmp_path)
    with pytest.raises(FileNotFoundError, match="no record"):
        tables.tables(tmp_path / "none")
