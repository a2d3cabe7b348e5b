"""``fewstep train``: a run from a configuration, resumed, and its dry run."""

from __future__ import annotations

import json

import pytest

from fewstep.flows import Trainer
from fewstep.models import load_field

QUICK = [
    "--data", "digits", "--network", "{class: MLP, width: 32, blocks: 1}", "--steps", "6",
    "--batch", "8", "--log-every", "2", "--device", "cpu",
]  # fmt: skip


def test_a_run_ends_with_a_field_and_goes_on_when_asked_for_more(program, tmp_path):
    out = tmp_path / "run"
    arguments = [*QUICK, "--out", str(out), "--coupling", "learned", "--beta", "3"]
    result = program("train", *arguments, "--json")
    assert result["parameters"].keys() == {"flow", "encoder"}
    assert result["config"]["beta"] == 3
    assert result["samples"] == 1797
    field = load_field(out / "flow.safetensors")
    assert field.shape == (1, 8, 8)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [2, 4, 6]
    assert "averaged_aggregate_variance" in lines[-1]
    assert "curvature" in lines[-1]
    assert result["files"] == {"flow": str(out / "flow.safetensors"), "page": str(out / "index.html")}
    shown = program("train", *arguments, "--steps", "8")
    assert shown.startswith(f"watch: {out / 'index.html'}\n")
    assert "trained to step 8, from step 6 on" in shown
    assert "Finished: 8 steps" in (out / "index.html").read_text()
    assert "next: fewstep sample" in shown


def test_the_configuration_in_the_folder_goes_on_with_the_run(program, tmp_path):
    words = ["--coupling", "learned", "--beta", "{start: 1, end: 3, steps: 4}", "--page-every", "0"]
    first = program("train", *QUICK, *words, "--out", "run", "--json")
    assert first["files"].keys() == {"flow"}
    words = ["--config", "run/config.yaml", "--out", "run", "--device", "cpu", "--steps", "8"]
    shown = program("train", *words)
    assert "trained to step 8, from step 6 on" in shown
    assert "watch" not in shown


def test_flags_override_the_file(program, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("data: digits\nnetwork: mlp\nsteps: 50\nlr: 0.5\n")
    arguments = ["--config", str(path), "--steps", "3", "--dry-run", "--device", "cpu", "--json"]
    result = program("train", *arguments)
    assert (result["config"]["steps"], result["config"]["lr"]) == (3, 0.5)
    assert result["seconds_per_step"] > 0


def test_a_dry_run_writes_nothing(program, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("must not train"))
    shown = program("train", *QUICK, "--out", str(tmp_path / "run"), "--dry-run")
    assert "width: 32" in shown
    assert "flow 4" in shown or "parameters" in shown
    assert "nothing was trained or written" in shown
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "digits", "--stepz", "1"], "--stepz is no option (did you mean '--steps'?)"),
        (["--data", "digits", "--steps", "many"], "--steps: must be a whole number, not 'many';"),
        (["--data", "digits", "--ema", "[1"], "--ema: '[1' is not YAML ("),
        (["--config", "absent.yaml"], "--config: absent.yaml: there is no such YAML file"),
        (["--data", "digits", "--device", "nonsense"], "device: 'nonsense' cannot be used"),
        (["--data", "digits", "--network", "cifar10"], "this network was built for (B, 3, 32, 32)"),
        (["--data", "absent.npz"], "absent.npz"),
    ],
)
def test_mistakes_end_in_one_sentence(failure, tmp_path, arguments, message):
    said = failure("train", *arguments, "--out", str(tmp_path))
    assert message in said
    assert said.startswith("error: ")
    assert len(said.strip().splitlines()) == 1
