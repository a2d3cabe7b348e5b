import json
import subprocess
import sys

import numpy as np
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
    whole, _ = samples(program, model, "midpoint:4", "--count", 7, "--batch", 7, "--out", "whole")
    parts, _ = samples(program, model, "midpoint:4", "--count", 7, "--batch", 3, "--out", "parts")
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


def test_numbered_samples_in_every_format(program, tmp_path):
    words = (
        "--seeds",
        "0-4,7",
        "--format",
        "png,npz,pairs",
        "--save-noise",
        "--save-trajectory",
        2,
        "--out",
        "samples",
        "--json",
    )
    result = program("sample", "digits", "midpoint:4", *words)["result"]
    out = tmp_path / "samples"
    assert sorted(int(path.stem) for path in out.glob("png/*.png")) == [0, 1, 2, 3, 4, 7]
    assert len(fs.Pairs.load(out / "pairs-00000000-00000007.safetensors")) == 6
    assert {path.suffix for path in out.glob("trajectory*")} == {".npz", ".png"}
    assert (out / "noise-00000000-00000007.npz").exists()
    assert (result["count"], result["network_calls"]) == (6, 24)
    assert result["protocol"]["seeds"] == "0-4,7"
    assert json.loads((out / "result.json").read_text()) == result


def test_a_solver_file_is_named_by_its_hash(program, solver_file):
    result = program("sample", "mixture", solver_file, "--count", 2, "--json")["result"]
    assert len(result["protocol"]["solver_file"]["sha256"]) == 64


def test_the_adaptive_solver_goes_to_the_end(program):
    result = program("sample", "mixture", "adaptive", "--count", 5, "--rtol", 1e-6, "--atol", 1e-7, "--json")
    expected = fs.Adaptive(1e-6, 1e-7).sample(fs.models.bundled("mixture"), fs.noise(5, (24,)))
    torch.testing.assert_close(
        load_file(result["files"]["samples"])["samples"], expected.x1, rtol=1e-4, atol=1e-5
    )
    assert result["network_calls"] == int(expected.nfe.sum())
    assert result["result"]["nfe"]["max"] == int(expected.nfe.max())


def test_a_saved_network_is_a_model(program, tmp_path):
    network = fs.networks.MLP((3,), width=16, blocks=1).eval()
    torch.nn.init.normal_(network.head.weight)
    fs.models.save_network(tmp_path / "net.safetensors", network)
    x1, result = samples(program, "net.safetensors", "euler:2", "--count", 3)
    torch.testing.assert_close(x1, fs.classical.euler(2).sample(fs.Field(network), fs.noise(3, (3,))))
    assert result["model"] == "net"


def test_a_run_goes_on_and_grows_but_never_mixes(program, failure):
    words = ("sample", "mixture", "euler:2", "--shard", 4, "--out", "samples")
    program(*words, "--count", 5)
    assert program(*words, "--seeds", "0-8", "--json")["count"] == 9
    said = failure("sample", "mixture", "euler:3", *words[3:], "--seeds", "0-8")
    assert "error: out: samples holds samples made with solver = " in said


def test_processes_of_torchrun_share_the_work(program, monkeypatch):
    words = ("sample", "mixture", "euler:2", "--shard", 2, "--count", 5)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert "process 1 of 2 made 2 samples; the others are at work" in program(*words)
    monkeypatch.setenv("RANK", "0")
    assert program(*words, "--json")["count"] == 5


@pytest.mark.slow
def test_torchrun_itself(tmp_path):
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    words = [
        "fewstep",
        "sample",
        "mixture",
        "midpoint:4",
        "--seeds",
        "0-99",
        "--shard",
        "10",
        "--format",
        "npz",
    ]
    subprocess.run([*run, *words], cwd=tmp_path, check=True, capture_output=True)
    result = json.loads((tmp_path / "samples" / "result.json").read_text())
    assert (result["count"], result["protocol"]["processes"]) == (100, [2])
    parts = [np.load(path)["samples"] for path in sorted((tmp_path / "samples").glob("*.npz"))]
    expected = fs.classical.midpoint(2).sample(fs.models.bundled("mixture"), fs.noise(100, (24,)))
    np.testing.assert_allclose(np.concatenate(parts), expected.numpy(), rtol=1e-3, atol=1e-4)


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
        (("nothing", "euler:2"), "MODEL: 'nothing' is not bundled (digits, mnist, "),
        (("none.py:field", "euler:2"), "MODEL: there is no file none.py"),
        (
            ("own_model.py:number", "euler:2"),
            "MODEL: own_model.py:number is int, but must be a fewstep.Field",
        ),
        (("own_model.py:none", "euler:2"), "MODEL: own_model.py has no 'none'"),
        (("own_model.py:shapeless", "euler:2"), "MODEL: the field does not say what shape it samples"),
        (("mixture", "none.json"), "none.json: there is no such solver file"),
        (("mixture", "truncated.json"), "truncated.json: not a readable solver file (not complete JSON"),
        (
            ("mixture", "magic"),
            "SOLVER: 'magic' is neither a solver file nor a classical one; ",
        ),
        (("mixture", "midpoint:7"), "SOLVER: 'midpoint:7' cannot be made; classical: 'midpoint' makes 2, 4"),
        (("mixture", "midpoint:x"), "SOLVER: 'midpoint:x': after the colon comes a number of calls"),
        (("mixture", "midpoint/magic:8"), "grid must be one of uniform, cosine, quadratic, karras"),
        (("mixture", "euler:0"), "SOLVER: 'euler:0': after the colon comes a number of calls"),
        (("mixture", "euler:2", "--count", 3, "--seeds", "0-2"), "--seeds: cannot go with --count"),
        (
            ("mixture", "euler:2", "--seeds", "few"),
            "--seeds: must be numbers like 8, 4,6,8 or 4-8, not 'few'",
        ),
        (("mixture", "euler:2", "--seeds", "3-1"), "--seeds: must be numbers of at least 0, not '3-1'"),
        (("mixture", "euler:2", "--rtol", 0.1), "--rtol: only the solver 'adaptive' has it"),
        (("mixture", "euler:2", "--method", "bosh3"), "--method: only the solver 'adaptive' has it"),
        (("mixture", "adaptive", "--method", "dopri6"), "not 'dopri6' (did you mean 'dopri"),
        (("mixture", "adaptive", "--rtol", 0), "Adaptive: rtol must be a positive number, not 0"),
        (("mixture", "euler:2", "--format", "png"), "formats: png needs samples of shape (1 or 3, H, W)"),
        (
            ("mixture", "euler:2", "--out", "own_model.py"),
            "out: own_model.py cannot be written (File exists)",
        ),
        (("none.safetensors", "euler:2"), "none.safetensors: there is no such"),
        (("mixture", "euler:2", "--device", "nonsense"), "device: 'nonsense' cannot be used"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
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
    assert f"{option}: must be at least 1, not 0;" in failure("sample", "mixture", "euler:2", option, 0)
