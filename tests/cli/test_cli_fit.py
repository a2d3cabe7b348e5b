import numpy as np
import pytest
import torch

import fewstep as fs

pytestmark = pytest.mark.usefixtures("few_rivals")

SMALL = ("--pairs", 8, "--iterations", 2)


def test_fit_writes_a_solver_for_every_number_of_calls(program):
    result = program("fit", "mixture", "--nfe", "2-3", *SMALL, "--out", "here", "--json")
    files = [entry["file"] for entry in result["solvers"]]
    assert files == [f"here/fewstep-mixture-non_stationary-{n}.json" for n in (2, 3)]
    for entry, nfe in zip(result["solvers"], (2, 3), strict=True):
        solver = fs.Solver.load(entry["file"])
        assert solver.nfe == entry["report"]["rows"][0]["nfe"] == nfe
        assert solver.fitted_for["model"] == "fewstep/mixture"
        assert entry["report"]["pairs"] == {"train": 6, "validation": 2}


def test_fit_in_words_says_what_it_wrote_and_what_to_run_next(program):
    text = program("fit", "mixture", "--nfe", 2, *SMALL, "--family", "scale_time")
    assert "scale_time from midpoint, 7 parameters" in text
    assert "2 calls: RMSE" in text
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
        optimizer=fs.fitting.Adam(iterations=2),
        loss="bound",
        pairs=8,
        seed=3,
        reference=fs.fitting.Reference(rtol=1e-4),
    )
    assert fs.Solver.load(entry["file"]).D == by_function.solver.D
    assert entry["report"]["rows"] == list(by_function.report.to_dict()["rows"])


def test_config_gives_defaults_and_flags_override_it(program, tmp_path):
    (tmp_path / "fit.yaml").write_text("nfe: 3\npairs: 8\niterations: 2\nmax-calls: 100000\nseed: 5\n")
    result = program("fit", "mixture", "--config", "fit.yaml", "--seed", 6, "--json")
    solver = fs.load(result["solvers"][0]["file"])
    assert (solver.nfe, solver.protocol["pairs"]["train"], solver.protocol["seed"]) == (3, 6, 6)


def test_config_may_name_the_model(program, tmp_path):
    (tmp_path / "fit.yaml").write_text("model: mixture\nnfe: 2\npairs: 8\niterations: 1\n")
    assert program("fit", "--config", "fit.yaml", "--json")["model"] == "fewstep/mixture"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            "nfee: 3\n",
            "--config: fit.yaml has unknown keys nfee (did you mean 'nfe'?); fewstep fit --help lists",
        ),
        ("just words\n", "--config: fit.yaml must hold options as 'name: value', not 'just words'"),
        ("3\n", "--config: fit.yaml must hold options as 'name: value', not 3"),
        ("a: [\n", "--config: fit.yaml: not a readable YAML file"),
    ],
)
def test_a_config_that_makes_no_sense_is_named(failure, tmp_path, content, words):
    (tmp_path / "fit.yaml").write_text(content)
    assert words in failure("fit", "mixture", "--config", "fit.yaml")


def test_a_config_that_is_not_there_is_named(failure):
    assert "--config: none.yaml: there is no such YAML file" in failure(
        "fit", "mixture", "--config", "none.yaml"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nfe", "eight"), "error: --nfe: must be numbers like 8, 4,6,8 or 4-8, not 'eight'."),
        (("--nfe", "0"), "error: --nfe: must be numbers of at least 1, not '0'."),
        (("--nfe", "8-4"), "error: --nfe: must be numbers of at least 1, not '8-4'."),
        (("--nfe", ""), "error: --nfe: must be numbers"),
        (("--batch", "0"), "error: --batch: must be at least 1, not 0"),
        (("--pairs", "2"), "error: --pairs: must be at least 4, not 2; see fewstep fit --help."),
        (("--family", "magic"), "error: fit: family must be"),
        (("--max-calls", "10"), "error: fit: max_calls=10 is not enough"),
        (("--family", "auto", "--loss", "nonsense"), "error: fit: loss must be one of"),
        (("--family", "auto", "--init", "ab2"), "error: --family auto: starts from its own solvers"),
        (("--optimizer", "nope"), "error: --optimizer: must be one of gauss_newton, adam, not 'nope'"),
        (("--guidance", "2"), "error: Field: guidance=2.0 needs unconditional"),
        (("--device", "nonsense"), "error: device: 'nonsense' cannot be used"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(failure, options, words):
    message = failure("fit", "mixture", "--nfe", 2, "--pairs", 8, *options)
    assert message.startswith(words)
    assert message.count("\n") == 1


@pytest.fixture
def guided_file(tmp_path):
    """A guided field whose label pulls the samples to one side."""
    path = tmp_path / "guided.py"
    path.write_text(
        "import torch, fewstep as fs\n"
        "def network(x, t, label):\n"
        "    return torch.sin(x + label.float()[:, None]) * (1 + t[:, None])\n"
        "field = fs.Field(network, shape=(2,), unconditional={'label': torch.zeros(1)}, name='pulled')\n"
    )
    return path


def test_a_guided_model_is_fitted_for_a_range_with_labels_from_a_file(program, guided_file, tmp_path):
    np.savez(tmp_path / "labels.npz", label=np.arange(8.0))
    words = ("--nfe", 2, "--guidance", "1,3", "--iterations", 2, "--per-sample", "labels.npz")
    (entry,) = program("fit", f"{guided_file}:field", *words, "--json")["solvers"]
    places = [(row["guidance"], row["trained"]) for row in entry["report"]["rows"]]
    assert places == [(1, True), (2, False), (3, True)]
    assert entry["report"]["pairs"] == {"train": 6, "validation": 2}  # as many as labels
    scope = {}
    exec(guided_file.read_text(), scope)
    labels = torch.arange(8.0, dtype=torch.float64)
    by_function = fs.fit(
        scope["field"],
        2,
        guidance=(1, 3),
        family="non_stationary",
        optimizer=fs.fitting.GaussNewton(iterations=2),
        per_sample={"label": labels},
    )
    made = fs.load(entry["file"])
    assert torch.equal(made.theta, by_function.theta)
    assert made.at(guidance=2.5).D == by_function.at(guidance=2.5).D
    sampled = program("sample", f"{guided_file}:field", entry["file"], "--count", 8, *words[-2:], "--json")
    assert sampled["nfe"] == "2"


def test_labels_that_do_not_fit_are_named_before_any_call(failure, guided_file, tmp_path):
    np.savez(tmp_path / "labels.npz", label=np.arange(5.0))
    words = ("--pairs", 8, "--guidance", 2, "--per-sample", "labels.npz")
    assert "label has 5 rows for 8 pairs" in failure("fit", f"{guided_file}:field", "--nfe", 2, *words)
