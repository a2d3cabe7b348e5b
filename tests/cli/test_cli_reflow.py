import shutil

import pytest

import fewstep as fs

FEW = ("--steps", 4, "--batch", 16, "--lr", 1e-3, "--warmup", 1, "--pairs", 40)


def test_a_straighter_flow_is_written_and_measured(program, tmp_path):
    words = ("reflow", "digits", "--solver", "midpoint:4", "--rounds", 2, "--out", "run", *FEW)
    result = program(*words, "--json")
    assert result["flow"] == "run/round-2/flow.safetensors"
    assert len(result["straightness"]) == 3
    before, after = result["straightness"][0], result["straightness"][-1]
    assert after["curvature"] < before["curvature"]
    made = fs.Pairs.load(tmp_path / "run/round-2/pairs/pairs-00000040-00000079.safetensors")
    flow = fs.models.load_field(tmp_path / "run/round-1/flow.safetensors")
    error = abs(fs.classical.midpoint(2).sample(flow, made.x0) - made.x1).max()
    assert error < 1e-4

    text = program(*words)
    assert f"    0  {before['curvature']:9.4f}  {before['truncation_rmse_4']:.4f}\n" in text
    assert text.endswith("wrote run/round-2/flow.safetensors, run/round-2/index.html\nnext: fewstep sample "
                         "run/round-2/flow.safetensors euler:4\n")  # fmt: skip


def test_pairs_may_be_made_adaptively(program, tmp_path):
    words = ("--solver", "adaptive", "--rtol", 1e-2, "--atol", 1e-2, "--out", "run")
    program("reflow", "digits", *words, *FEW[:-1], 20)
    assert (tmp_path / "run/round-1/pairs/pairs-00000000-00000019.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--solver", "magic"), "SOLVER: 'magic' is neither a solver file nor a classical one"),
        (("--rtol", 0.1), "--rtol: only the solver 'adaptive' has it"),
        (("--batch", 0), "batch: must be a whole number of at least 1, not 0"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(failure, tmp_path, words, message):
    said = failure("reflow", "digits", "--out", "run", *FEW, *words)
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_exact_field_has_nothing_to_train(failure):
    assert "MODEL: mixture is a GaussianMixture, which no file of fewstep holds" in failure(
        "reflow", "mixture", "--out", "run"
    )


def test_a_full_disk_is_told_before_pairs_are_made(failure, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    said = failure("reflow", "digits", "--out", "run", *FEW)
    assert "bytes, but the disk has 1,000 bytes left" in said
    assert not list(tmp_path.glob("run/round-1/*"))
