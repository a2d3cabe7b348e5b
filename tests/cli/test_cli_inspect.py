import subprocess
import sys
from dataclasses import replace

import pytest
from matplotlib import image

import fewstep as fs


def test_inspect_tells_what_is_in_the_file(program, solver_file):
    assert "midpoint: 4 network calls a sample, 2 steps" in program("inspect", solver_file)


def test_inspect_as_json(program, solver_file):
    facts = program("inspect", solver_file, "--json")
    assert facts["nfe"] == 4
    assert facts["times"] == [0.0, 0.25, 0.5, 0.75]


def test_inspect_as_json_holds_every_fact(program, solver_file):
    facts = program("inspect", solver_file, "--json")
    expected = fs.inspect(fs.classical.midpoint(2))
    assert facts["convergence"]["order"] == expected.convergence.order
    assert facts["stability"]["real_limit"] == expected.stability.real_limit
    assert facts["errors"]["noise_gain"] == [0, 0.5, 0, 0.5]
    assert facts["exactness"]["consistent"] is True
    assert facts["needs"]["readable"]["cond_ot"] == ["velocity", "data", "v"]
    assert (facts["warnings"], facts["plot"]) == ([], None)


def test_a_classical_solver_by_name_is_refined(program):
    facts = program("inspect", "dpmpp_2m/karras:8", "--schedule", "vp", "--json")
    assert (facts["name"], facts["nfe"], facts["prediction"]) == ("dpmpp_2m/karras", 8, "data")
    assert facts["needs"]["schedule"] == fs.schedules.VP().to_dict()
    assert facts["convergence"]["how"] == "refined"
    assert round(facts["convergence"]["order"], 1) == 2
    assert any("shortest step" in warning for warning in facts["warnings"])


def test_a_name_alone_has_eight_calls_and_the_schedule_is_straight(program):
    text = program("inspect", "ddim")
    assert "ddim: 8 network calls" in text
    assert "under CondOT()" in text
    assert "order: 1.00, measured with more steps, 8 to 128 calls" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["midpoint:7"], "'midpoint:7' cannot be made; "),
        (["nonsense"], "neither a solver file nor a classical one"),
        (["midpoint:x"], "after the colon comes a number of calls"),
        (["adaptive"], "adaptive has no table to inspect"),
        (["ddim:4", "--schedule", "straight"], "schedule: must be one of cond_ot"),
        (["bound.json", "--schedule", "ve"], "table of data predictions for VP"),
    ],
    ids=["calls", "name", "number", "adaptive", "schedule", "other schedule"],
)
def test_what_cannot_be_inspected_is_one_line_and_status_2(failure, tmp_path, words, message):
    fs.classical.ddim(2, schedule=fs.schedules.VP()).save(tmp_path / "bound.json")
    said = failure("inspect", *words)
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_inspect_draws(program, solver_file):
    assert "wrote plot.png" in program("inspect", solver_file, "--plot", "plot.png")
    assert image.imread("plot.png").size > 1000


def test_inspect_of_a_fitted_solver_tells_its_scores(program):
    program("fit", "mixture", "--nfe", 2, "--pairs", 8, "--iterations", 2)
    text = program("inspect", "solvers/fewstep-mixture-non_stationary-2.json")
    assert "fitted for: model fewstep/mixture" in text
    assert "validation RMSE: fitted " in text


def test_inspect_warns_of_a_call_at_the_end(program, tmp_path):
    fs.classical.heun(2).save(tmp_path / "heun.json")
    assert "warning: it calls the network at t = 1" in program("inspect", "heun.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such solver file"),
        ("", "not complete JSON"),
        ('{"format": "fewstep.solver", "schema": 1, ', "not a readable solver file"),
        ("{}", "not a solver file"),
        ('{"format": "fewstep.solver", "schema": 99}', "this version of fewstep reads schema 1"),
    ],
)
def test_a_file_that_is_no_solver_is_one_line_and_status_2(failure, tmp_path, content, message):
    if content is not None:
        (tmp_path / "solver.json").write_text(content)
    said = failure("inspect", "solver.json")
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


def test_the_version(program):
    assert program("--version") == f"{fs.__version__}\n"


def test_the_program_as_a_process_ends_with_status_2_and_no_traceback(tmp_path):
    command = [sys.executable, "-c", "from fewstep.cli import main; main()", "inspect", "none.json"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert (
        ended.stderr == "error: SOLVER: none.json: there is no such solver file; solver.save() writes one.\n"
    )


def test_inspect_never_compares_with_a_model_that_nobody_named(ended, tmp_path):
    facts = {
        **fs.models.bundled("digits").describe(),
        "guidance": 3.0,
        "schedule": fs.schedules.VP().to_dict(),
    }
    replace(fs.classical.euler(2), fitted_for=facts).save(tmp_path / "fitted.json")
    status, _, said = ended("inspect", "fitted.json")
    assert (status, said) == (0, "")
