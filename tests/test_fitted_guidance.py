"""The guidance of a solver, in words and as arguments of other frameworks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewstep as fs
from fewstep._fitted_for import differences
from fewstep._fitted_guidance import comfyui_settings, fitted_guidance, in_words, pipeline_arguments

OPTIONS = {"guidance": 3.0, "guidance_interval": (0.25, 0.5), "guidance_rescale": 0.7}


class Weak(nn.Module):
    def forward(self, x, t):
        return -x


def field(**options):
    return fs.Field(lambda x, t: x, shape=(2,), name="bend", guide=Weak().eval(), **options)


def test_no_option_of_a_field_is_left_out():
    found = fitted_guidance(field(**OPTIONS).describe())
    assert found == {**OPTIONS, "guide": "Weak"}
    assert next(iter(found)) == "guidance"
    names = {name for name in fs.Field.__init__.__kwdefaults__ if name.startswith("guid")}
    assert found.keys() == names, "a new option of guidance belongs into fitted_guidance"


@pytest.mark.parametrize("options", [{}, {"guidance": 1}, {"guidance_rescale": 0.7}])
def test_without_guidance_there_is_nothing_to_tell(options):
    facts = field(**options).describe()
    assert fitted_guidance(facts) == {}
    assert in_words(facts) == ""
    assert pipeline_arguments(facts) == "guidance_scale=1"
    assert comfyui_settings(facts) == "cfg 1"
    assert "guidance" not in repr(field(**options))
    for told in (in_words, pipeline_arguments, comfyui_settings):
        assert told(None) == ""


def test_words():
    facts = field(**OPTIONS).describe()
    assert in_words(facts) == ("guidance 3, guide Weak, guidance_interval (0.25, 0.5), guidance_rescale 0.7")
    assert in_words({"guidance": None, "scale": 3.5}) == "guidance inside the network 3.5"


@pytest.mark.parametrize(
    ("network", "rescale", "arguments"),
    [
        ("UNet2DConditionModel 4x8x8", 0.7, "guidance_scale=3, guidance_rescale=0.7"),
        ("QwenImageTransformer2DModel 16x16", "norm", "true_cfg_scale=3"),
        ("FluxTransformer2DModel 16x16", 0, "true_cfg_scale=3"),
        ("ZImageTransformer2DModel 4x8x8", 0, "guidance_scale=2"),
        ("Lumina2Transformer2DModel 4x8x8", "norm", "guidance_scale=3, cfg_normalization=True"),
        ("Lumina2Transformer2DModel 4x8x8", 0, "guidance_scale=3, cfg_normalization=False"),
    ],
)
def test_arguments_of_pipelines(network, rescale, arguments):
    facts = {"model": network, "guidance": 3.0, "guidance_rescale": rescale}
    assert pipeline_arguments(facts) == arguments


def test_numbers_are_exact():
    assert pipeline_arguments({"guidance": 7.123456789}) == "guidance_scale=7.123456789"


def test_settings_of_comfyui():
    assert comfyui_settings({"guidance": None, "scale": 3.5}) == "cfg 1, the guidance of the model 3.5"
    assert "there is no node" in comfyui_settings({"guidance": 3.0, "guidance_rescale": "norm"})


DERIVED = {
    "reversed": (lambda f: f.reversed(), lambda t: 1 - t),
    "rescheduled": (
        # Both have the ratio tan(pi t / 2) or t / (1 - t) of data to noise.
        lambda f: f.reschedule(fs.schedules.Cosine()),
        lambda t: float(torch.atan(torch.tensor(t / (1 - t))) * 2 / torch.pi),
    ),
}


@pytest.mark.parametrize("kind", DERIVED)
def test_a_derived_field_tells_the_guidance_of_its_own(kind):
    derive, moved = DERIVED[kind]
    made = derive(field(**OPTIONS))
    found = fitted_guidance(made.describe())
    assert found["guidance_interval"] == pytest.approx(sorted(map(moved, (0.25, 0.5))), abs=1e-6)
    assert {**found, "guidance_interval": None} == {**OPTIONS, "guidance_interval": None, "guide": "Weak"}
    assert (made.guidance, made.guidance_rescale) == (3.0, 0.7)
    assert "guidance=3.0, guide='Weak', guidance_interval=(0." in repr(made)
    assert repr(made).endswith(", guidance_rescale=0.7)")
    assert made.with_guidance(5.0).guidance == 5.0
    assert derive(field()).guidance is None
    twice = made.reversed()
    assert (twice.guidance, twice.describe()["guidance"]) == (3.0, 3.0)


@pytest.mark.parametrize("kind", DERIVED)
def test_another_rescale_of_a_derived_field_is_a_mismatch(kind):
    derive, _ = DERIVED[kind]
    options = {key: OPTIONS[key] for key in ("guidance", "guidance_rescale")}
    fitted = derive(field(**options)).describe()
    found = differences(fitted, derive(field(**{**options, "guidance_rescale": 0.2})).describe())
    assert found == "guidance_rescale 0.7, but this field has guidance_rescale 0.2"
