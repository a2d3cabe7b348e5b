import pytest
import torch

import fewstep as fs

FEW = ("--pairs", 64, "--iterations", 20, "--batch", 32, "--validate-every", 10, "--width", 8, "--lr", 0.01)


def test_a_lifted_solver_is_written_and_used(program, tmp_path):
    made = program("lift", "digits", "euler:2", *FEW, "--rtol", 1e-2, "--atol", 1e-2, "--json")
    assert made["folder"] == "solvers/digits-euler-2-lifted"
    assert made["validation_rmse"]["lifted"] < made["validation_rmse"]["solver"]
    lifted = fs.load(tmp_path / made["folder"])
    assert (lifted.name, lifted.nfe) == ("lifted euler", 2)

    again = program("lift", "digits", "euler:2", *FEW, "--rtol", 1e-2, "--atol", 1e-2)  # which has been done
    assert "lifted euler, 2 calls: RMSE" in again
    assert "next: fewstep compare digits euler:2 solvers/digits-euler-2-lifted" in again

    table = program("compare", "digits", "euler:2", made["folder"], "--count", 32, "--json")
    errors = {row["solver"]: row["rmse"] for row in table["rows"]}
    assert errors["lifted euler"] < errors["euler"]
    program("sample", "digits", made["folder"], "--count", 4, "--format", "npz", "--out", "made")
    found = next((tmp_path / "made").glob("*.npz"))
    field = fs.models.bundled("digits")
    x1 = lifted.sample(field, fs.noise(4, field.shape, seed=0))
    assert found.exists()
    assert torch.isfinite(x1).all()


def test_a_teacher_and_the_last_state(program):
    made = program(
        "lift", "digits", "euler:2", *FEW, "--states", "last", "--teacher", "midpoint:16", "--out", "a",
        "--json",
    )  # fmt: skip
    assert (made["folder"], made["states"], made["targets"]["method"]) == ("a", "last", "midpoint")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--states", "all"), "--states: must be one of every, last, not 'all'"),
        (("--pairs", 8), "--pairs"),
        (("--teacher", "adaptive"), "lifted solvers and their teachers have fixed numbers of calls"),
    ],
)
def test_refused(failure, words, message):
    assert message in failure("lift", "digits", "euler:2", *words)


def test_it_is_exported_to_comfyui_as_a_folder(program, tmp_path):
    solver = fs.classical.euler(2)
    fs.Lifted.of(solver, fs.networks.Corrector((1, 8, 8), 2, [2])).save(tmp_path / "lifted")
    (tmp_path / "ComfyUI" / "models" / "fewstep").mkdir(parents=True)
    text = program("export", "comfyui", "lifted", "--out", "ComfyUI")
    assert "solver lifted/solver.json" in text
    assert isinstance(fs.load(tmp_path / "ComfyUI/models/fewstep/lifted/solver.json"), fs.Lifted)
