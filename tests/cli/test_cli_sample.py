import pytest
import torch
from matplotlib import image
from safetensors.torch import load_file

import fewstep as fs


def samples(program, *words):
    result = program("sample", *words, "--json")
    return load_file(result["files"]["samples"])["samples"], result


def test_samples_are_those_of_the_solver_from_the_noises_of_the_seed(program, solver_file):
    x1, result = samples(program, "mixture", solver_file, "--count", 5, "--seed", 2)
    field = fs.models.bundled("mixture")
    expected = fs.classical.midpoint(2).sample(field, fs.noise(5, (24,), seed=2))
    torch.testing.assert_close(x1, expected, rtol=1e-4, atol=1e-5)
    assert (result["nfe"], result["network_calls"], result["count"]) == ("4", 20, 5)


@pytest.mark.parametrize("model", ["digits", "mixture"])
def test_samples_do_not_depend_on_the_batch(program, model):
    whole, _ = samples(program, model, "midpoint:4", "--count", 7, "--batch", 7)
    parts, _ = samples(program, model, "midpoint:4", "--count", 7, "--batch", 3)
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


def test_sample_k_does_not_depend_on_the_count(program):
    few, _ = samples(program, "digits", "euler:2", "--count", 2)
    many, _ = samples(program, "digits", "euler:2", "--count", 5)
    torch.testing.assert_close(many[:2], few, rtol=1e-4, atol=1e-5)


def test_pictures_are_written_too(program):
    x1, result = samples(program, "digits", "midpoint", "--count", 4)
    sheet = image.imread(result["files"]["picture"])
    assert sheet.shape[:2] == (17, 17)
    expected = (x1[3, 0] / 2 + 0.5).clamp(0, 1)
    assert abs(torch.from_numpy(sheet[9:, 9:, 0]) - expected).max() <= 0.51 / 255


def test_in_words_it_says_what_it_wrote(program):
    text = program("sample", "mixture", "euler:3", "--count", 2, "--out", "here")
    assert "2 samples with 3 network calls each" in text
    assert "wrote here/samples.safetensors" in text


@pytest.mark.parametrize("name", ["decay", "make"])
def test_a_model_of_ones_own(program, model_file, name):
    """Two Euler steps of u = -x halve the noise twice."""
    x1, result = samples(program, f"{model_file}:{name}", "euler:2", "--count", 3)
    torch.testing.assert_close(x1, fs.noise(3, (2,)) / 4)
    assert result["model"] == "decay"


def test_a_model_in_a_module(program, model_file):
    _, result = samples(program, "own_model:decay", "euler:2", "--count", 3)
    assert result["model"] == "decay"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing", "euler:2"), "MODEL: 'nothing' is not bundled (digits, mnist, digits-kde, mixture)"),
        (("none.py:field", "euler:2"), "MODEL: there is no file none.py"),
        (
            ("own_model.py:number", "euler:2"),
            "MODEL: own_model.py:number is int, but must be a fewstep.Field",
        ),
        (("own_model.py:none", "euler:2"), "MODEL: own_model.py has no 'none'"),
        (("own_model.py:shapeless", "euler:2"), "MODEL: the field does not say what shape it samples"),
        (("mixture", "none.json"), "none.json: there is no such solver file"),
        (("mixture", "truncated.json"), "truncated.json: not complete JSON"),
        (
            ("mixture", "magic"),
            "SOLVER: 'magic' is neither a solver file nor a classical solver with 8 calls",
        ),
        (("mixture", "midpoint:7"), "SOLVER: 'midpoint:7' is neither a solver file nor"),
        (("mixture", "midpoint:x"), "SOLVER: 'midpoint:x': after the colon comes a number of calls"),
        (("mixture", "midpoint/magic:8"), "grid_names must be among uniform, cosine, karras, log_snr"),
        (("mixture", "euler:0"), "SOLVER: 'euler:0': after the colon comes a number of calls"),
        (("mixture", "euler:2", "--device", "nonsense"), "device: 'nonsense' cannot be used"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_a_mistake_is_one_line_and_status_2(failure, model_file, solver_file, tmp_path, words, message):
    (tmp_path / "truncated.json").write_text(solver_file.read_text()[:100])
    said = failure("sample", *words)
    assert said.startswith("error: ")
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_an_absent_device_is_named(failure):
    assert "error: device: 'cuda' cannot be used" in failure(
        "sample", "mixture", "euler:2", "--device", "cuda"
    )


@pytest.mark.parametrize("option", ["--count", "--batch"])
def test_counts_start_at_one(failure, option):
    assert f"Invalid value for '{option}'" in failure("sample", "mixture", "euler:2", option, 0)
