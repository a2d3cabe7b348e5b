"""Pipelines of diffusers on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "adapters"))

from tiny_pipelines import SCHEDULERS, build  # noqa: E402

from fewstep.cli._pipelines import Loaded, Pipeline  # noqa: E402

pytestmark = pytest.mark.usefixtures("few_rivals")

SMALL = (
    "--pairs", 4, "--iterations", 1, "--rtol", 0.1, "--atol", 0.1, "--family", "timesteps", "--init", "ddim",
)  # fmt: skip
LABELS = ("--call", "{class_labels: [1, 2, 3]}", "--guidance-scale", 3)


@pytest.fixture
def folder(tmp_path):
    """The folder of a pipeline that samples by labels."""
    pipe = build("dit", SCHEDULERS["dit"]())
    pipe.transformer.proj_out_2.weight.data.mul_(0.01)  # so that the reference takes a second
    pipe.save_pretrained(tmp_path / "tiny dit")
    return "tiny dit"


def test_a_pipeline_is_fitted_in_one_line(program, folder):
    text = program("fit", f"diffusers:{folder}", *LABELS, "--nfe", 3, *SMALL)
    file = "solvers/tiny-dit-timesteps-3.json"
    assert f"wrote {file}" in text
    assert f"next: fewstep export diffusers {file} --scheduler '{folder}' --out scheduler" in text
    program("export", "diffusers", file, "--scheduler", folder, "--out", "scheduler")
    made = fs.adapters.diffusers.FewStepScheduler.from_pretrained("scheduler")
    assert len(made.timesteps) == 3
    solver = fs.load(file)
    assert (solver.nfe, solver.fitted_for["guidance"]) == (3, 3)
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    task = fs.adapters.diffusers.from_pipeline(pipe, class_labels=[1, 2, 3], guidance_scale=3)
    assert solver.mismatch(task.field) is None


def test_compare_measures_it_on_other_noises(program, folder):
    result = program(
        "compare", f"diffusers:{folder}", "ddim", "dpmpp_2m", *LABELS, "--nfe", 4, "--count", 2, "--json"
    )
    assert [row["nfe"] for row in result["rows"]] == [4, 4]
    assert all(row["rmse"] > 0 for row in result["rows"])
    page = Path("comparison", Path(folder).name.replace(" ", "-"), "index.html").read_text()
    assert "--guidance-scale 3" in page
    assert "class_labels" in page


def test_prompts_are_lines_and_noises_take_them_in_turn(tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n\n  a dog \n")
    call = Pipeline(tmp_path / "prompts.txt", 4.0, {"height": 64})
    assert call.arguments() == {"height": 64, "guidance_scale": 4.0, "prompt": ["a cat", "a dog"]}
    field = fs.Field(lambda x, t, text: x)
    per_sample = {"text": torch.arange(2), "ids": {"x": torch.zeros(1, 3)}}
    loaded = Loaded(fs.adapters.diffusers.Task(field, {"a": 1}, per_sample, None, 1.0), "folder")
    given = loaded.of(5).given
    assert given["conditions"] == {"a": 1}
    assert given["per_sample"]["text"].tolist() == [0, 1, 0, 1, 0]
    assert given["per_sample"]["ids"]["x"].shape == (1, 3)
    assert loaded.of(range(3, 6)).given["per_sample"]["text"].tolist() == [1, 0, 1]


def test_it_is_sampled_with_its_labels_in_turn(program, folder):
    """The latents are those of the pipeline itself, sample by sample."""
    words = ("sample", f"diffusers:{folder}", "ddim:3", *LABELS)
    program(*words, "--seeds", "2-5", "--batch", 3, "--out", "some")
    made = load_file("some/samples.safetensors")["samples"]
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    field = fs.adapters.diffusers.from_pipeline(pipe, class_labels=[3], guidance_scale=3).field
    solver = fs.classical.ddim(3, schedule=field.schedule)
    x0 = fs.noise(4, field.shape, seed=0, start=2)
    expected = solver.sample(field, x0, class_labels=torch.tensor([3, 1, 2, 3]))
    torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_it_is_checked(ended, folder):
    status, out, err = ended("check", f"diffusers:{folder}", *LABELS, "--samples", 16)
    assert status in (0, 1), err
    assert "judged on its own samples: 16 at a time" in out


def test_prompts_that_are_missing_are_asked_for(failure, monkeypatch):
    pipe = build("sd", SCHEDULERS["sd"]())
    monkeypatch.setattr("fewstep.cli._pipelines._loaded", lambda *_: pipe)
    said = failure("fit", "diffusers:sd")
    words = "error: diffusers:sd: --prompts: it needs a text file with one prompt a line, as it says: P"
    assert said.startswith(words)


@pytest.mark.parametrize("verb", ["recommend", "inspect", "distill"])
def test_a_verb_that_takes_no_pipeline_says_so(failure, verb, tmp_path):
    fs.classical.euler(2).save(tmp_path / "euler.json")
    words = {"recommend": ["euler.json"], "inspect": [], "distill": ["--pairs", "none"]}
    said = failure(verb, "diffusers:folder", *words[verb])
    if verb == "inspect":
        assert "error: SOLVER: diffusers:folder is a pipeline, not a solver; give a solver file, " in said
    else:
        assert "error: MODEL: diffusers:folder is a pipeline, which fewstep fit, compare, sample and " in said


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("diffusers:nowhere",), "MODEL: nowhere is no folder here, and cannot be loaded from the Hub: "),
        (("diffusers:empty",), "MODEL: empty is no folder of a pipeline, as it has no model_index.json."),
        (("diffusers:broken",), "MODEL: broken cannot be loaded: "),
        (("diffusers:tiny dit", *LABELS, "--dtype", "int8"), "--dtype: must be one of float32, float16, "),
        (("diffusers:tiny dit", "--call", "3"), "--call: must be a mapping, as {height: 512}, not 3."),
        (("diffusers:tiny dit", "--call", "{size: 3}"), "MODEL: diffusers:tiny dit: "),
        (
            ("diffusers:tiny dit", "--prompts", "none.txt"),
            "--prompts: none.txt: there is no such text of a prompt a line; ",
        ),
        (("diffusers:tiny dit", "--prompts", "blank.txt"), "--prompts: blank.txt has no prompts; "),
        (("diffusers:tiny dit", "--conditions", "c.yaml"), "--conditions, --per-sample: a pipeline makes "),
        (("diffusers:",), "MODEL: diffusers: names no pipeline; add the folder of one, as in diff"),
        (("digits", "--prompts", "none.txt"), "--prompts: is for a pipeline, not for the model digits; "),
    ],
)
def test_a_mistake_is_one_sentence(ended, tmp_path, folder, words, error, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model_index.json").write_text("{")
    (tmp_path / "blank.txt").write_text("\n \n")
    status, out, err = ended("fit", *words)
    assert (status, out) == (2, "")
    assert f"error: {error}" in err
    assert "Traceback" not in err
