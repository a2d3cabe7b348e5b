"""Curves on the command line: one file for every number of calls."""

import fewstep as fs

FIT = ("fit", "mixture", "--nfe", "2,4", "--family", "curve", "--init", "ab2")
FIT = (*FIT, "--pairs", 6, "--iterations", 1)


def test_a_curve_is_fitted_sampled_and_compared(program):
    result = program(*FIT, "--out", "here", "--json")
    assert result["file"] == "here/fewstep-mixture-curve.json"
    assert result["nfes"] == [2, 4]
    solver = fs.CurveFit.load(result["file"]).solver(3)
    rows = program("compare", "mixture", result["file"], "--nfe", "2,3", "--count", 4, "--json")["rows"]
    assert {row["nfe"] for row in rows} == {2, 3}
    made = program("sample", "mixture", f"{result['file']}:3", "--count", 2, "--format", "npz", "--json")
    assert str(made["nfe"]) == str(solver.nfe)


def test_in_words_it_says_what_to_run_next(program):
    text = program(*FIT)
    assert "curve through 2, 4 calls" in text
    assert "next: fewstep compare mixture solvers/fewstep-mixture-curve.json midpoint" in text


def test_fewer_calls_than_fitted_are_refused(program, failure):
    path = program(*FIT, "--json")["file"]
    assert "nfe=1 is below the least number of calls fitted, 2" in failure("sample", "mixture", f"{path}:1")
