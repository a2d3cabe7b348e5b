import json
import shutil

import pytest
import torch

import fewstep as fs
from fewstep.data import PairShards

FEW = ("--steps", 6, "--batch", 16, "--lr", 1e-3, "--warmup", 1)


@pytest.fixture
def pairs(program, tmp_path):
    made = program(
        "sample", "digits", "midpoint:8", "--count", 60, "--shard", 25, "--format", "pairs", "--out", "pairs",
        "--json",
    )  # fmt: skip
    assert made["count"] == 60
    return tmp_path / "pairs"


def test_a_student_is_written_and_scored(program, tmp_path, pairs):
    words = ("distill", "digits", "--pairs", "pairs", "--out", "run", "--test-pairs", 20, *FEW)
    result = program(*words, "--json")
    assert (result["train_pairs"], result["test_pairs"], result["calls"]) == (40, 20, 1)
    assert result["rmse"] < result["teacher_rmse"]

    test = PairShards(pairs).split(20)[1]
    x0, x1 = test[range(20)]
    student = fs.models.load_field(tmp_path / "run" / "flow.safetensors")
    assert student.shape == (1, 8, 8)
    for field, rmse in ((student, result["rmse"]), (fs.models.bundled("digits"), result["teacher_rmse"])):
        x = x0 + field(x0, 0.0)  # one step of Euler's method
        assert float(fs.metrics.rmse(x, x1)) == pytest.approx(rmse, rel=1e-5)
    assert (tmp_path / "run" / "previews" / "step-00000006-samples.png").exists()

    text = program(*words)  # which has been done
    assert f"RMSE to 20 held-out samples with 1 call: {result['rmse']:.4f}" in text
    assert text.startswith("watch: run/index.html\n")
    assert "wrote run/flow.safetensors, run/index.html\n" in text
    assert text.endswith("next: fewstep sample run/flow.safetensors euler:1\n")
    sampled = program("sample", "run/flow.safetensors", "euler:1", "--count", 2, "--json")
    assert sampled["nfe"] == "1"


def test_a_student_of_more_calls_and_another_loss(program, tmp_path, pairs):
    (tmp_path / "few.yaml").write_text("steps: 3\nbatch: 8\nwarmup: 1\ntest-pairs: 10\nloss: pseudo-huber\n")
    result = program(
        "distill", "digits", "--config", "few.yaml", "--pairs", "pairs", "--solver", "midpoint:2", "--json"
    )
    assert (result["calls"], result["loss"], result["steps"]) == (2, "pseudo_huber", 3)
    assert result["student"] == "runs/digits-midpoint-2-distilled/flow.safetensors"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--loss", "l1"), "--loss: must be one of mse, pseudo_huber, not 'l1'"),
        (("--solver", "adaptive"), "--solver: a student has a fixed number of calls"),
        (("--pairs", "none"), "none: there is no such folder of pairs"),
        (("--test-pairs", 60), "of 60 pairs, between 1 and 59 can be held out, not 60"),
        (("--lr", -1), "lr: must be a positive number, not -1.0"),
        (("--precision", "fp8"), "precision: must be 'no', 'bf16' or 'fp16', not 'fp8'"),
        (("--device", "cuda:1"), "device: 'cuda:1' cannot be used"),
        (("--device", "cpu:0"), "--device: training is on cpu, cuda or mps, not 'cpu:0'"),
    ],
    ids=lambda value: str(value[0]) if isinstance(value, tuple) else None,
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for an absent device")
def test_a_mistake_is_one_line(failure, pairs, words, message):
    said = failure("distill", "digits", "--pairs", "pairs", "--test-pairs", 20, *FEW, *words)
    assert message in said
    assert said.count("\n") == 1


def test_pairs_of_another_model_are_refused(failure, pairs):
    said = failure("distill", "mnist", "--pairs", "pairs", "--test-pairs", 20)
    assert "--pairs: pairs holds samples of shape (1, 8, 8), but mnist samples shape (1, 28, 28)" in said


def test_a_model_that_no_file_holds_is_refused(failure, pairs, model_file):
    said = failure("distill", f"{model_file}:decay", "--pairs", "pairs")
    assert "own_model.py:decay is a function, which no file of fewstep holds" in said


def test_another_run_in_the_folder_is_refused(program, failure, pairs):
    words = ("distill", "digits", "--pairs", "pairs", "--test-pairs", 20, "--out", "run")
    program(*words, *FEW)
    assert "settings lr was 0.001 and is 0.01" in failure(*words, *FEW, "--lr", 0.01)


def test_a_full_disk_is_told_before_training(failure, pairs, monkeypatch, tmp_path):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    said = failure("distill", "digits", "--pairs", "pairs", "--test-pairs", 20, "--out", "run", *FEW)
    assert "run: the checkpoints of this run need" in said
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_metrics_hold_the_test_error(program, tmp_path, pairs):
    program("distill", "digits", "--pairs", "pairs", "--out", "run", "--test-pairs", 20, *FEW)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "validation_rmse" in line] == [6]
