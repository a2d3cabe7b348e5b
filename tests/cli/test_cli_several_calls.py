"""One fit for every number of calls on the command line: one file."""

import pytest

import fewstep as fs

pytestmark = pytest.mark.usefixtures("few_rivals")

FIT = ("fit", "mixture", "--nfe", "2,4", "--family", "smooth_corrections", "--init", "ab2")
FIT = (*FIT, "--pairs", 6, "--iterations", 1)


def fitted(program, *words):
    (entry,) = program(*FIT, *words, "--json")["solvers"]
    return entry


def test_one_fit_is_sampled_and_compared_at_any_number_of_calls(program):
    entry = fitted(program, "--out", "here")
    assert entry["file"] == "here/fewstep-mixture-smooth_corrections.json"
    assert [(row["nfe"], row["trained"]) for row in entry["report"]["rows"]] == [
        (2, True), (3, False), (4, True),
    ]  # fmt: skip
    path = entry["file"]
    rows = program("compare", "mixture", path, "--nfe", "2,3", "--count", 4, "--json")["rows"]
    assert {row["nfe"] for row in rows} == {2, 3}
    made = program("sample", "mixture", f"{path}:3", "--count", 2, "--format", "npz", "--json")
    assert str(made["nfe"]) == str(fs.load(path).at(nfe=3).nfe)


def test_in_words_it_says_what_to_run_next(program):
    text = program(*FIT)
    assert "smooth_corrections from ab2" in text
    assert "3 calls*: RMSE" in text
    assert "next: fewstep compare mixture solvers/fewstep-mixture-smooth_corrections.json midpoint" in text


def test_fewer_calls_than_fitted_are_refused(program, failure):
    path = fitted(program)["file"]
    assert "nfe=1 is below the least number of calls fitted, 2" in failure("sample", "mixture", f"{path}:1")
