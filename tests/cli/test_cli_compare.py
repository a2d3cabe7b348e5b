import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

import fewstep as fs


def test_compare_writes_tables_a_plot_and_a_page(program, solver_file):
    words = ("mixture", solver_file, "euler", "midpoint:6", "--nfe", "2,4", "--count", 6, "--out", "here")
    result = program("compare", *words, "--json")
    assert [(row["solver"], row["nfe"]) for row in result["rows"]] == [
        ("midpoint", 4),
        ("midpoint", 6),
        ("euler", 2),
        ("euler", 4),
    ]
    results, table, markdown, page, plot = map(Path, result["files"])
    written = json.loads(results.read_text())
    assert written["rows"] == result["rows"]
    assert written["command"].startswith(f"fewstep compare mixture {solver_file} euler midpoint:6 --nfe 2,4 ")
    assert len(table.read_text().splitlines()) == 5
    assert markdown.read_text().startswith("| solver | nfe | rmse | psnr |")
    assert "midpoint" in page.read_text()
    assert image.imread(plot).size > 1000


def test_several_models_have_one_page(program, model_file):
    words = (f"mixture,own={model_file}:decay", "euler", "own=midpoint:4", "--nfe", "2,4", "--count", 4)
    result = program("compare", *words, "--json")
    assert [(row["model"], row["solver"], row["nfe"]) for row in result["rows"]] == [
        ("mixture", "euler", 2),
        ("mixture", "euler", 4),
        ("own", "euler", 2),
        ("own", "euler", 4),
        ("own", "midpoint", 4),
    ]
    assert set(result["protocols"]) == {"mixture", "own"}
    assert [file for file in result["files"] if file.endswith(".html")] == [
        "comparison/mixture-own/index.html"
    ]


def test_an_interrupted_comparison_goes_on(program, monkeypatch):
    words = ("compare", "mixture", "euler", "--count", 4, "--json")
    first = program(*words, "--nfe", "2")

    def never(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr("fewstep._reference.dopri5", never)
    again = program(*words, "--nfe", "2,3")
    assert again["rows"][0] == first["rows"][0]
    assert again["rows"][1]["nfe"] == 3


def test_a_model_that_has_no_identity_is_measured_without_a_cache(program, model_file):
    words = ("compare", f"{model_file}:nameless", "euler", "--nfe", 2, "--count", 4)
    assert "wrote" in program(*words)
    assert not Path("comparison/own_model-nameless/cache").exists()


def test_two_fitted_solvers_of_a_kind_have_names_of_their_own(program, solver_file):
    other = solver_file.with_name("other.json")
    solver = fs.Solver.load(solver_file)
    fitted = replace(solver, family={"name": "timesteps"})
    fitted.save(solver_file)
    replace(fs.classical.ralston(2), family={"name": "timesteps"}).save(other)
    rows = program("compare", "mixture", solver_file, other, "--count", 4, "--json")["rows"]
    assert [row["solver"] for row in rows] == ["fitted timesteps", "fitted timesteps (other)"]


def test_the_scores_are_those_of_the_function(program):
    (row,) = program("compare", "mixture", "ab2:3", "--count", 6, "--seed", 4, "--json")["rows"]
    field = fs.models.bundled("mixture")
    solver = fs.classical.baselines(3)["ab2"]
    (expected,) = fs.compare(field, [solver], noise=6, seed=4).rows
    assert row["rmse"] == pytest.approx(expected["rmse"], rel=1e-4)


def test_solvers_that_cannot_have_an_nfe_are_left_out_there(program):
    rows = program("compare", "mixture", "midpoint", "euler", "--nfe", "3,4", "--count", 4, "--json")["rows"]
    assert [(row["solver"], row["nfe"]) for row in rows] == [("midpoint", 4), ("euler", 3), ("euler", 4)]


def test_the_reference_may_be_on_a_fixed_grid(program):
    result = program("compare", "mixture", "euler:2", "--count", 4, "--steps", 5, "--json")
    assert result["protocols"]["mixture"]["reference"]["steps"] == 5
    assert "--steps 5" in json.loads(Path("comparison/mixture/results.json").read_text())["command"]


def test_a_grid_can_be_named(program):
    (row,) = program("compare", "mixture", "euler/cosine:4", "--count", 4, "--json")["rows"]
    assert row["solver"] == "euler/cosine"


def test_in_words_there_is_a_table_a_metric(program):
    text = program("compare", "mixture", "euler", "--nfe", 2, "--count", 4, "--metrics", "rmse,pooled_rmse")
    assert "rmse" in text.splitlines()[0]
    assert "pooled_rmse" in text
    assert "wrote comparison/mixture/results.json" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("midpoint", "--nfe", "3"),
            "SOLVER: none of midpoint can have 3 calls; midpoint makes 2, 4, 6, ..., so",
        ),
        (("euler", "--nfe", "x"), "--nfe: must be numbers like 8, 4,6,8 or 4-8, not 'x'"),
        (("euler", "--metrics", "fid"), "metrics must be one of rmse, psnr, pooled_rmse"),
        (
            ("elsewhere=euler",),
            "SOLVER: 'elsewhere=euler' is for a model 'elsewhere', but the models are mixture",
        ),
        (("magic",), "SOLVER: 'magic' is neither a solver file nor a classical one; "),
        (("euler", "--metrics", " ,"), "there is no metric; pass at least one of rmse, psnr, pooled_rmse"),
        (("euler", "--out", "file"), "--out: file cannot be a folder (File exists); name another."),
        (("euler", "--out", "file/in"), "--out: file/in cannot be a folder (Not a directory); name another."),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_and_status_2(failure, words, message):
    Path("file").touch()
    said = failure("compare", "mixture", *words, "--count", 4)
    assert message in said.splitlines()[-1]
    assert said.count("\n") == 1


def test_a_mistake_costs_no_reference(failure, monkeypatch):
    """The metric is looked at before the long work."""

    def never(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr("fewstep.reference.solve", never)
    failure("compare", "mixture", "euler", "--metrics", "fid")


def test_features_that_do_not_know_the_pictures_cost_no_reference(failure, monkeypatch):
    monkeypatch.setattr("fewstep.reference.solve", None)
    said = failure("compare", "digits", "euler", "--nfe", 2, "--ref", "mnist")
    assert "mnist: knows pictures of shape (1, 28, 28), not (1, 8, 8)" in said


def test_too_few_noises_for_density(failure):
    said = failure("compare", "mnist", "euler", "--count", 5, "--data", "small.npz", "--features", "mnist")
    assert "--count: must be 6 at least with --data, not 5" in said


def test_two_models_of_one_name_are_refused(failure):
    assert "has two models called 'mixture'; name them" in failure("compare", "mixture,mixture", "euler")


@pytest.mark.parametrize("models", ["mixture,", "=mixture", "first="])
def test_an_empty_place_among_the_models_is_refused(failure, models):
    assert f"MODELS: '{models}' leaves a place empty" in failure("compare", models, "euler")


def test_a_solver_given_twice_has_one_row(program, solver_file):
    curve = [fs.classical.midpoint(2), replace(fs.classical.ralston(2), name="midpoint")]
    names = []
    for folder, solver in zip("abc", (curve[0], curve[1], curve[1]), strict=True):
        (solver_file.parent / folder).mkdir()
        names.append(f"{folder}/midpoint.json")
        solver.save(solver_file.parent / names[-1])
    words = ("compare", "mixture", "euler", "euler:4", *names, "--nfe", "4,4", "--count", 3)
    rows = program(*words, "--json")["rows"]
    assert [row["solver"] for row in rows] == ["euler", "midpoint", "midpoint (midpoint)"]


def test_a_solver_fitted_for_another_model_is_noted(ended, solver_file):
    facts = {"model": "other", "shape": [2], "guidance": 3.0}
    replace(fs.classical.midpoint(2), fitted_for=facts).save(solver_file)
    status, _, said = ended("compare", "mixture", solver_file, "--count", 3)
    assert status == 0
    assert said == (
        "note: solver 'midpoint' was fitted for model other, guidance 3, "
        "but this field has model fewstep/mixture, guidance None\n"
    )
    assert ended("compare", "mixture", "euler:4", "--count", 3)[2] == ""


def test_lists_of_a_configuration_are_lists(program):
    Path("compare.yaml").write_text("nfe: [2, 4]\nmetrics: [rmse]\nsolvers: [euler]\ncount: 3\n")
    rows = program("compare", "mixture", "--config", "compare.yaml", "--json")["rows"]
    assert [row["nfe"] for row in rows] == [2, 4]
    assert "psnr" not in rows[0]


def test_quality_of_mnist_needs_no_data(program):
    words = ("mnist", "euler", "--nfe", "1", "--count", 3, "--ref", "mnist", "--keep", 1)
    printed = program("compare", *words)
    result = json.loads(Path("comparison/mnist/results.json").read_text())
    assert result["rows"][0]["frechet_mnist"] > result["protocols"]["mnist"]["reference"]["frechet_mnist"] > 0
    assert "--ref mnist" in result["command"]
    few = "Fréchet distance: 3 pictures are too few for a covariance of 64 features"
    assert f"{few}; the value is far too high." in printed.splitlines()
    assert few in Path("comparison/mnist/index.html").read_text()


def test_quality_against_data_has_all_figures(program):
    Path("own.py").write_text(
        "import fewstep as fs\ndecay = fs.Field(lambda x, t: -x / 2, shape=(1, 28, 28), name='decay')\n"
    )
    words = "own.py:decay euler --nfe 1 --count 6 --data small.npz --features mnist".split()
    np.savez("small.npz", images=np.random.default_rng(0).integers(0, 256, (9, 28, 28), dtype=np.uint8))
    result = program("compare", *words, "--json")
    (row,) = result["rows"]
    real = result["protocols"]["own.py:decay"]["quality"]["real"]
    assert (real["count"], real["one_by_one"]) == (9, 6)
    assert {"frechet_mnist", "kernel_mnist", "precision", "recall", "density", "coverage"} <= row.keys()
