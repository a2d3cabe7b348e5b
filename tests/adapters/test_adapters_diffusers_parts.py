"""Many prompts, watched a few at a time."""

from __future__ import annotations

import pytest
import torch

import fewstep as fs
from fewstep.adapters import _diffusers_pipeline

pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_pipelines import ARGUMENTS, SCHEDULERS, build

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # of EulerDiscrete's
from_pipeline = fs.adapters.diffusers.from_pipeline


@pytest.mark.parametrize(("batch", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 3]), (4, [2, 3]), (5, [5])])
@pytest.mark.parametrize("kind", ["sdxl", "flux", "pixart", "z_image"])
def test_parts_are_the_whole(kind, batch, sizes, monkeypatch):
    pipe, watched = build(kind, SCHEDULERS[kind]()), []
    arguments = ARGUMENTS[kind](5, True)
    whole = from_pipeline(pipe, **arguments)

    def task_of(pipe, part):
        watched.append(len(part["prompt_embeds"]))
        return _diffusers_pipeline_task_of(pipe, part)

    _diffusers_pipeline_task_of = _diffusers_pipeline.task_of
    monkeypatch.setattr(_diffusers_pipeline, "task_of", task_of)
    task = from_pipeline(pipe, batch=batch, **arguments)
    assert watched == sizes
    assert task.field.describe() == whole.field.describe()
    assert torch.equal(task.noise, whole.noise)
    x = torch.randn(5, *whole.field.shape, generator=torch.Generator().manual_seed(3))
    found, expected = (one.field.bind(one.conditions, one.per_sample, 5)(x, 0.3) for one in (task, whole))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_what_parts_cannot_share_is_refused():
    pipe = build("sd", SCHEDULERS["sd"]())
    with pytest.raises(ValueError, match="batch must be a whole number of prompts, at least 1, not 0"):
        from_pipeline(pipe, batch=0, **ARGUMENTS["sd"](3, True))
    text = [torch.randn(1, length, 16) for length in (5, 5, 3)]
    tasks = [from_pipeline(pipe, prompt_embeds=embedding, guidance_scale=1.0) for embedding in text]
    with pytest.raises(ValueError, match=r"encoder_hidden_states has rows of shapes \(3, 16\), \(5, 16\)"):
        _diffusers_pipeline._joined(tasks)


def test_several_images_of_a_prompt_stay_together():
    pipe = build("sd", SCHEDULERS["sd"]())
    arguments = {**ARGUMENTS["sd"](4, False), "num_images_per_prompt": 2}
    arguments["latents"] = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    whole, task = from_pipeline(pipe, **arguments), from_pipeline(pipe, batch=2, **arguments)
    assert torch.equal(task.noise, whole.noise)
    assert torch.equal(task.per_sample["encoder_hidden_states"], whole.per_sample["encoder_hidden_states"])
    with pytest.raises(ValueError, match="latents has 7 rows, but there are 4 prompts with 2 samples each"):
        from_pipeline(pipe, batch=2, **{**arguments, "latents": arguments["latents"][:7]})


@pytest.mark.filterwarnings("ignore:You have passed 3 text prompts")
@pytest.mark.parametrize("several", [False, True], ids=["one image", "three images"])
def test_an_image_is_not_split_by_channels(several):
    """Three prompts share an image of three channels, or have one each."""
    image = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    arguments = {**ARGUMENTS["sd"](3, True), "image": image if several else image[0]}
    arguments.pop("latents")
    pipe = build("img2img", SCHEDULERS["sd"](), vae=True)
    whole, task = from_pipeline(pipe, **arguments), from_pipeline(pipe, batch=1, **arguments)
    assert torch.equal(task.per_sample["encoder_hidden_states"], whole.per_sample["encoder_hidden_states"])


def test_masks_have_no_channels():
    """Three of them are an array of three dimensions, of which a part gets its own."""
    masks = torch.arange(3.0).reshape(3, 1, 1).expand(3, 8, 8)
    arguments = {"prompt": ["a", "b", "c"], "mask_image": masks, "image": masks}
    parts = _diffusers_pipeline._parts(arguments, 1)
    assert [part["mask_image"].unique().tolist() for part in parts] == [[0], [1], [2]]
    assert all(part["image"] is masks for part in parts)
