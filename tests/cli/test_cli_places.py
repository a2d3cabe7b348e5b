"""Default places: two commands one after another do not collide."""

from pathlib import Path

import pytest

from fewstep.cli._places import named_after


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("digits", "midpoint:8"), "digits-midpoint-8"),
        (("digits", "dpmpp_2m/karras:8"), "digits-dpmpp_2m-karras-8"),
        (("digits", "solvers/fewstep-digits-non_stationary-8.json"), "fewstep-digits-non_stationary-8"),
        (("mnist", "solvers/other.json"), "mnist-other"),
        (("runs/straight/flow.safetensors", "adaptive"), "straight-adaptive"),
        (("nets/unet.safetensors", "euler:2"), "unet-euler-2"),
        (("some/own.py:field", "euler:2"), "own-field-euler-2"),
        (("diffusers:hub/tiny dit", "ddim:4"), "tiny-dit-ddim-4"),
        (("../..", "euler:2"), "euler-2"),
    ],
)
def test_names_are_of_the_model_and_the_solver(words, name):
    assert named_after(*words) == name


def test_samples_of_two_solvers_and_two_models_lie_apart(program):
    for model in ("mixture", "mixture-2d"):
        for solver in ("euler:2", "midpoint:2"):
            program("sample", model, solver, "--count", 2)
    made = sorted(path.parent.name for path in Path("samples").glob("*/samples.safetensors"))
    assert made == ["mixture-2d-euler-2", "mixture-2d-midpoint-2", "mixture-euler-2", "mixture-midpoint-2"]


def test_other_samples_of_the_same_are_refused_with_what_to_pass(program, failure):
    program("sample", "mixture", "euler:2", "--count", 2)
    assert "out" in failure("sample", "mixture", "euler:2", "--count", 2, "--seed", 5)
