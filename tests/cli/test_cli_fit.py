import pytest

import fewstep as fs

SMALL = ("--pairs", 8, "--iterations", 2)


def test_fit_writes_a_solver_for_every_number_of_calls(program):
    result = program("fit", "mixture", "--nfe", "2-3", *SMALL, "--out", "here", "--json")
    files = [entry["file"] for entry in result["solvers"]]
    assert files == [f"here/fewstep-mixture-non_stationary-{n}.json" for n in (2, 3)]
    for entry, nfe in zip(result["solvers"], (2, 3), strict=True):
        solver = fs.Solver.load(entry["file"])
        assert solver.nfe == entry["report"]["nfe"] == nfe
        assert solver.fitted_for["model"] == "fewstep/mixture"
        assert entry["report"]["pairs"] == {"train": 6, "validation": 2}


def test_fit_in_words_says_what_it_wrote_and_what_to_run_next(program):
    text = program("fit", "mixture", "--nfe", 2, *SMALL, "--family", "scale_time")
    assert "scale_time, 2 calls, 7 parameters" in text
    assert "wrote solvers/fewstep-mixture-scale_time-2.json" in text
    assert "next: fewstep compare mixture solvers/fewstep-mixture-scale_time-2.json" in text


def test_the_command_fits_what_the_function_fits(program):
    options = (
        "--optimizer",
        "adam",
        "--loss",
        "bound",
        "--family",
        "scale_time",
        "--seed",
        3,
        "--rtol",
        1e-4,
    )
    (entry,) = program("fit", "mixture", "--nfe", 2, *SMALL, *options, "--json")["solvers"]
    field = fs.models.bundled("mixture")
    by_function = fs.fit(
        field,
        2,
        family="scale_time",
        optimizer="adam",
        loss="bound",
        pairs=8,
        iterations=2,
        seed=3,
        rtol=1e-4,
    )
    assert fs.Solver.load(entry["file"]).D == by_function.solver.D
    assert entry["report"]["errors"] == by_function.report.to_dict()["errors"]


def test_config_gives_defaults_and_flags_override_it(program, tmp_path):
    (tmp_path / "fit.yaml").write_text("nfe: 3\npairs: 8\niterations: 2\nmax-calls: 100000\nseed: 5\n")
    result = program("fit", "mixture", "--config", "fit.yaml", "--seed", 6, "--json")
    protocol = fs.Solver.load(result["solvers"][0]["file"]).protocol
    assert (protocol["nfe"], protocol["pairs"]["train"], protocol["seed"]) == (3, 6, 6)


def test_config_may_name_the_model(program, tmp_path):
    (tmp_path / "fit.yaml").write_text("model: mixture\nnfe: 2\npairs: 8\niterations: 1\n")
    assert program("fit", "--config", "fit.yaml", "--json")["model"] == "fewstep/mixture"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("nfee: 3\n", "--config: fit.yaml has unknown keys nfee (did you mean nfe?); known are atol, batch"),
        ("just words\n", "--config: fit.yaml must hold options as 'name: value', not 'just words'"),
        ("3\n", "--config: fit.yaml must hold options as 'name: value', not 3"),
        ("a: [\n", "--config: fit.yaml cannot be read"),
    ],
)
def test_a_config_that_makes_no_sense_is_named(failure, tmp_path, content, words):
    (tmp_path / "fit.yaml").write_text(content)
    assert words in failure("fit", "mixture", "--config", "fit.yaml")


def test_a_config_that_is_not_there_is_named(failure):
    assert "--config: none.yaml cannot be read" in failure("fit", "mixture", "--config", "none.yaml")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nfe", "eight"), "error: --nfe: must be numbers like 8, 4,6,8 or 4-8, not 'eight'."),
        (("--nfe", "0"), "error: --nfe: must be numbers of at least 1, not '0'."),
        (("--nfe", "8-4"), "error: --nfe: must be numbers of at least 1, not '8-4'."),
        (("--nfe", ""), "error: --nfe: must be numbers"),
        (("--pairs", "2"), "error: fit: needs at least 4 pairs"),
        (("--family", "magic"), "error: fit: family must be"),
        (("--max-calls", "10"), "error: fit: max_calls=10 is not enough"),
        (("--device", "nonsense"), "error: device: 'nonsense' cannot be used"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(failure, options, words):
    message = failure("fit", "mixture", "--nfe", 2, "--pairs", 8, *options)
    assert message.startswith(words)
    assert message.count("\n") == 1
