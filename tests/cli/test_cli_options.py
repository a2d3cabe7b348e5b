"""Options made from signatures, docstrings and settings; files of options and of conditions."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import fewstep as fs
from fewstep.cli._app import VERBS
from fewstep.cli._condition_files import conditioned
from fewstep.cli._options import AtLeast, call, helped


@dataclass(frozen=True)
class Wheels:
    """How it rolls.

    Args:
        count: how many ``wheels``.
        sizes: radii of :class:`Wheels`,
            front to back.
        make: whose.
        spare: take one more.
        load: anything.
    """

    count: int
    sizes: tuple[float, ...] = (1.0,)
    make: str = field(default="own", metadata={"choices": ("own", "other")})
    spare: bool = False
    load: str | dict[str, int] = "none"


START = Wheels(4, make="other")


@helped(place="From a list.")
def drive(
    place: str,
    stops: list[str],
    *,
    wheels: Wheels = START,
    speed: Annotated[float | None, AtLeast(0.5)] = None,
    gear: Literal["low", "high"] = "low",
    log: Path = Path("log"),
    seed: int = 3,
    as_json: bool = False,
) -> None:
    """Go somewhere.

    And back.

    Args:
        stops: where to stop; 10 % of them are kept.
        speed: in metres
            a second.
    """
    came.append((place, stops, wheels, speed, gear, log, seed, as_json))


came: list[object] = []


def driven(*words):
    came.clear()
    call(drive, "fewstep drive", words)
    return came[0]


def test_defaults_are_those_of_the_function_and_its_settings():
    assert driven("here", "a") == ("here", ["a"], START, None, "low", Path("log"), 3, False)


def test_words_have_the_types_of_the_signature_wherever_they_stand():
    words = ["--count", "2", "here", "--sizes", "1,2.5", "a", "b", "--json", "--speed", "1e1", "--spare"]
    wheels = Wheels(2, (1.0, 2.5), "other", True, {"a": 1})
    found = driven(*words, "--load", "{a: 1}", "--log", "x", "--seed", "0")
    assert found == ("here", ["a", "b"], wheels, 10.0, "low", Path("x"), 0, True)


def test_a_file_has_the_same_names_and_words_override_it(tmp_path):
    path = tmp_path / "drive.yaml"
    path.write_text(
        "place: there\nstops: [a, b]\ncount: 3\nsizes: [2, 3]\nload: {b: 2}\nspeed: 2\njson: true\n"
        "spare: true\ngear: null\n"
    )
    wheels = Wheels(3, (2.0, 3.0), "other", True, {"b": 2})
    assert driven("--config", path.as_posix()) == (
        "there", ["a", "b"], wheels, 2.0, "low", Path("log"), 3, True,
    )  # fmt: skip
    assert driven("--config", path.as_posix(), "--speed", "7", "here", "c")[:4] == (
        "here",
        ["c"],
        wheels,
        7.0,
    )


def test_help_comes_from_the_docstrings(capsys):
    with pytest.raises(SystemExit):
        driven("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "usage: fewstep drive PLACE STOPS [OPTIONS] Go somewhere. And back.",
        "PLACE From a list.",
        "STOPS Where to stop; 10 % of them are kept.",
        "--speed FLOAT In metres a second.",
        "--seed INT Seed of the noises. [3]",
        "How it rolls: --count INT How many wheels. [4]",
        "--sizes YAML Radii of Wheels, front to back. [1.0]",
        "--make TEXT Whose. One of own, other. [other]",
    ):
        assert text in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["here"], "the following arguments are required: STOPS; see fewstep drive --help."),
        (["here", "a", "--count", "x"], "--count: must be a whole number, not 'x';"),
        (["here", "a", "--sizes", "1,x"], "--sizes: must be a number, not 'x';"),
        (["here", "a", "--speed", "0"], "--speed: must be at least 0.5, not 0;"),
        (["here", "a", "--load", "[1"], "--load: '[1' is not YAML ("),
        (["here", "a", "--sped", "1"], r"--sped is no option (did you mean '--speed'?)"),
        (["here", "a", "--config"], "--config: expected one argument;"),
        (["--config", "list.yaml"], "--config: list.yaml must hold options as 'name: value', not [1]."),
        (["--config", "no.yaml"], "--config: no.yaml: there is no such YAML file"),
        (
            ["--config", "key.yaml"],
            "--config: key.yaml has unknown keys sped (did you mean 'speed'?);",
        ),
        (["--config", "flag.yaml"], "--config: flag.yaml: spare must be true or false, not 'maybe'."),
        (
            ["here", "a", "--config", "word.yaml"],
            "--config: word.yaml: count must be a whole number, not 'many'.",
        ),
    ],
)
def test_mistakes_are_said_in_a_sentence(tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    Path("list.yaml").write_text("[1]")
    Path("key.yaml").write_text("sped: 1\n")
    Path("flag.yaml").write_text("spare: maybe")
    Path("word.yaml").write_text("count: many")
    with pytest.raises((ValueError, OSError), match=f"^{re.escape(said)}"):
        driven(*words)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_every_verb_has_help(ended, verb):
    kinds = {"fid": ("ref", "calc", "compare"), "export": ("diffusers", "comfyui", "k-diffusion")}
    verbs = [(verb, kind) for kind in kinds[verb]] if verb in kinds else [(verb,)]
    for each in verbs:
        status, out, err = ended(*each, "--help")
        assert (status, err) == (0, "")
        lines = out[out.index("\n\n") :].splitlines()
        for line, following in zip(lines, [*lines[1:], ""], strict=True):
            if (
                line.startswith("  ")
                and line[2] in "-ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                and not line.startswith("    ")
            ):
                assert len(line.split("  ")) > 2 or following.startswith("      "), line


def test_a_verb_that_does_not_exist_is_named(failure):
    assert failure("smaple").startswith("error: fewstep: the verb must be one of demo, train")
    assert failure("fid", "clac").startswith("error: fewstep fid: the verb must be one of ref, calc")


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        ("sample digits no/such.json", "SOLVER: no/such.json: there is no such solver file"),
        ("sample such.safetensors euler:2", "MODEL: such.safetensors: there is no such network file"),
        ("distill digits --pairs nothing", "--pairs: nothing: there is no such folder"),
        ("train --data digits --validation no/such", "--validation: no/such: there is no such file"),
        ("fid calc no/such --ref mnist", "SAMPLES: no/such: there is no such file or folder."),
    ],
)
def test_a_path_that_does_not_exist_comes_with_its_option(failure, words, begins):
    assert failure(*words.split()).startswith(f"error: {begins}")


def test_a_model_that_is_misspelt_is_guessed(failure):
    assert "(did you mean 'digits'?)" in failure("sample", "digts", "euler:2")


class TestConditions:
    def test_arrays_are_tensors_and_dots_are_mappings(self, tmp_path):
        label, text = np.arange(3), np.ones((3, 2), dtype=">f4")
        np.savez(tmp_path / "rows.npz", label=label, prompt=np.array(["a", "b", "c"]), **{"added.text": text})
        save_file({"scale": torch.tensor(2.0), "added.id": torch.eye(2)}, tmp_path / "all.safetensors")
        found = conditioned(tmp_path / "all.safetensors", tmp_path / "rows.npz", "cpu")
        assert found.keys() == {"conditions", "per_sample"}
        assert found["per_sample"]["label"].tolist() == [0, 1, 2]
        assert found["per_sample"]["prompt"] == ["a", "b", "c"]
        assert torch.equal(found["per_sample"]["added"]["text"], torch.ones(3, 2))
        assert found["conditions"]["scale"] == 2
        assert torch.equal(found["conditions"]["added"]["id"], torch.eye(2))

    def test_yaml_has_numbers_lists_and_text(self, tmp_path):
        path = tmp_path / "shared.yaml"
        path.write_text("strength: 0.5\nprompt: a cat\nsize: [[1, 2]]\nadded: {words: [a, b], x: [0.5]}\n")
        found = conditioned(path, None, "cpu")["conditions"]
        assert (found["strength"], found["prompt"], found["added"]["words"]) == (0.5, "a cat", ["a", "b"])
        assert found["size"].tolist() == [[1, 2]]
        assert found["added"]["x"].dtype == torch.float32

    def test_none_are_none(self):
        assert conditioned(None, None, "cpu") == {}

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("absent.npz", None, "--per-sample: absent.npz: there is no such file of conditions"),
            ("text.npz", "no zip", "--per-sample: text.npz: not a readable file of conditions"),
            ("text.safetensors", "none", "--per-sample: text.safetensors: not a readable file of conditions"),
            ("rows.pt", "x", "--per-sample: must be a file .npz, .safetensors or .yaml, not rows.pt."),
            ("rows.yaml", "[1", "--per-sample: rows.yaml: not a readable YAML file"),
            ("rows.yaml", "[1, 2]", "--per-sample: rows.yaml must hold conditions by name, not [1, 2]."),
            ("rows.yaml", "label: [[1], [2, 3]]", "--per-sample: label of rows.yaml is no array of numbers"),
        ],
    )
    def test_a_file_that_cannot_be_is_named_with_its_option(self, tmp_path, monkeypatch, name, content, said):
        monkeypatch.chdir(tmp_path)
        if content is not None:
            Path(name).write_text(content)
        with pytest.raises((ValueError, OSError), match=f"^{re.escape(said)}") as error:
            conditioned(None, Path(name), "cpu")
        assert "\n" not in str(error.value)


class TestConditionsOfVerbs:
    """A network whose velocity is its label, so that samples are noises plus labels, times what all share."""

    @pytest.fixture
    def labelled(self, tmp_path):
        (tmp_path / "labelled.py").write_text(
            "import fewstep as fs\n"
            "def move(x, t, label, scale):\n"
            "    return scale['by'] * label[:, None] + 0 * x\n"
            "field = fs.Field(move, shape=(2,), name='labelled')\n"
        )
        np.savez(tmp_path / "labels.npz", label=np.arange(5.0, dtype="f4"))
        (tmp_path / "shared.yaml").write_text("scale: {by: 2.0}\n")
        return ("--per-sample", "labels.npz", "--conditions", "shared.yaml", "--seed", 3)

    def test_sample(self, program, labelled):
        words = ("sample", "labelled.py:field", "euler:1", "--count", 5, "--batch", 2, "--format", "pairs")
        program(*words, *labelled)
        (file,) = Path("samples/labelled-field-euler-1").glob("pairs-*")
        pairs = fs.Pairs.load(file)
        assert torch.equal(pairs.x0, fs.noise(5, (2,), seed=3))
        torch.testing.assert_close(pairs.x1 - pairs.x0, 2 * torch.arange(5.0)[:, None].expand(5, 2))

    def test_compare(self, program, labelled):
        words = ("compare", "labelled.py:field", "euler:2", "--count", 5, "--batch", 2)
        table = program(*words, *labelled, "--json")
        assert table["rows"][0]["rmse"] < 1e-5  # the tolerance of the reference; another label is 2 off
        command = json.loads(Path("comparison/labelled-field/results.json").read_text())["command"]
        assert "--conditions shared.yaml --per-sample labels.npz" in command

    def test_check(self, ended, labelled):
        np.savez("labels.npz", label=np.ones(1, dtype="f4"))
        status, out, err = ended("check", "labelled.py:field", *labelled, "--json")
        assert (status in (0, 1), err) == (True, "")
        assert "findings" in out or "ok" in out

    def test_a_wrong_number_of_rows_is_the_librarys_sentence(self, failure, labelled):
        said = failure("sample", "labelled.py:field", "euler:1", "--count", 4, *labelled)
        assert said.startswith("error: ")
        assert "label has 5 rows" in said
