import json
from pathlib import Path

import pytest
from matplotlib import image

import fewstep as fs


def test_compare_writes_the_table_and_the_plot(program, solver_file):
    words = ("mixture", solver_file, "euler", "midpoint:6", "--nfe", "2,4", "--count", 6, "--out", "here")
    result = program("compare", *words, "--json")
    assert [(row["solver"], row["nfe"]) for row in result["rows"]] == [
        ("midpoint", 4),
        ("midpoint", 6),
        ("euler", 2),
        ("euler", 4),
    ]
    table, markdown, plot = map(Path, result["files"])
    assert json.loads(table.read_text())["rows"] == result["rows"]
    assert markdown.read_text().startswith("| solver | nfe | rmse | psnr |")
    assert image.imread(plot).size > 1000


def test_the_scores_are_those_of_the_function(program):
    (row,) = program("compare", "mixture", "ab2:3", "--count", 6, "--seed", 4, "--json")["rows"]
    field = fs.models.bundled("mixture")
    solver = fs.classical.baselines(3)["ab2"]
    (expected,) = fs.compare(field, [solver], noise=6, seed=4).rows
    assert row["rmse"] == pytest.approx(expected["rmse"], rel=1e-4)


def test_solvers_that_cannot_have_an_nfe_are_left_out_there(program):
    rows = program("compare", "mixture", "midpoint", "euler", "--nfe", "3,4", "--count", 4, "--json")["rows"]
    assert [(row["solver"], row["nfe"]) for row in rows] == [("midpoint", 4), ("euler", 3), ("euler", 4)]


def test_a_grid_can_be_named(program):
    (row,) = program("compare", "mixture", "euler/cosine:4", "--count", 4, "--json")["rows"]
    assert row["solver"] == "euler/cosine"


def test_in_words_there_is_a_table_a_metric(program):
    text = program("compare", "mixture", "euler", "--nfe", 2, "--count", 4, "--metrics", "rmse,pooled_rmse")
    assert "rmse" in text.splitlines()[0]
    assert "pooled_rmse" in text
    assert "wrote comparison/comparison.json" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("midpoint", "--nfe", "3"), "SOLVER: none of midpoint can have 3 calls"),
        (("euler", "--nfe", "x"), "--nfe: must be numbers like 8, 4,6,8 or 4-8, not 'x'"),
        (("euler", "--metrics", "fid"), "unknown metrics fid; known are rmse, psnr, pooled_rmse"),
        (("magic",), "SOLVER: 'magic' is neither a solver file nor a classical one; "),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_and_status_2(failure, words, message):
    said = failure("compare", "mixture", *words, "--count", 4)
    assert message in said.splitlines()[-1]
    assert said.count("\n") == 1


def test_a_mistake_costs_no_reference(failure, monkeypatch):
    """The metric is looked at before the long work."""

    def never(*arguments, **options):
        raise AssertionError

    monkeypatch.setattr("fewstep.reference.solve", never)
    failure("compare", "mixture", "euler", "--metrics", "fid")
