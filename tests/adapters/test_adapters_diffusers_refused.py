"""Pipelines whose steps are not those of a field are refused with a reason."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import fewstep as fs

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

from tiny_loops import Loop, Net, X  # noqa: E402
from tiny_pipelines import ARGUMENTS, build, draw  # noqa: E402

from_pipeline = fs.adapters.diffusers.from_pipeline


def refused(pipe, words, **arguments):
    with pytest.raises(ValueError, match=words) as caught:
        from_pipeline(pipe, **arguments)
    assert str(caught.value).startswith("from_pipeline: ")
    assert str(caught.value).count(". ") == 0  # one sentence


def test_two_networks_are_refused():
    """As with high and low noise, or ControlNet."""
    pipe = Loop(Net())
    pipe.first, pipe.second = pipe.network, Net()
    pipe.network = lambda x, t: (pipe.first if t[0] > 500 else pipe.second)(x, t)
    refused(pipe, r"2 networks \(first, second\) act in the pipeline's steps", latents=X)


def test_three_mixed_predictions_are_refused():
    net = Net()
    pipe = Loop(net)
    pipe.watched, pipe.network = net, lambda x, t: net(x, t) + net(x, t, a=1) - net(x, t, a=2)
    refused(pipe, "mix 3 predictions", latents=X)


@pytest.mark.parametrize(
    ("pipe", "words"),
    [
        (SimpleNamespace(unet=Net()), "SimpleNamespace is no pipeline"),
        (Net(), "Net is no pipeline"),
        (None, "NoneType is no pipeline"),
        ("folder", "str is no pipeline"),
        (Loop(lambda x, t: x), "has no network that can be watched"),
        (Loop(Net(), lambda k, out: 2 * out), "multiplied by 2"),
        (Loop(Net(), lambda k, out: out / out.norm()), "no weighted sum of the network's outputs"),
        (Loop(Net(), lambda k, out: out.abs()), "no weighted sum of the network's outputs"),
        (Loop(Net(), lambda k, out: 0 * out), "multiplied by -?0"),
        (Loop(Net(), time=lambda t: t**2), "no affine function of the scheduler's timesteps"),
        (Loop(Net(), time=lambda t: 0 * t), "no argument changes from step to step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_read_is_refused(pipe, words):
    refused(pipe, words, latents=X)


@pytest.mark.parametrize("scheduler", [None, object()], ids=["none", "other"])
def test_a_pipeline_without_a_scheduler_is_refused(scheduler):
    pipe = Loop(Net())
    pipe.scheduler = scheduler
    refused(pipe, "Loop has no scheduler", latents=X)


def test_a_scheduler_of_another_signature_is_refused():
    class Other(diffusers.FlowMatchEulerDiscreteScheduler):
        def step(self, output, when, x):
            return super().step(output, when, x)

    refused(Loop(Net(), scheduler=Other()), "Other.step takes output, when, x", latents=X)


def test_a_network_without_an_answer_is_refused():
    net = Net()
    net.forward = lambda x, when: torch.zeros_like(x)
    refused(Loop(net), "returned zeros", latents=X)


def test_arguments_that_change_are_refused():
    pipe = Loop(Net())
    inner = Net().forward
    pipe.network.forward = lambda x, when, seed: inner(x, when)
    steps = iter(range(99))
    pipe.mixing, call = (lambda k, out: out), pipe.network
    pipe.kept = {}
    pipe.network, pipe.watched = (lambda x, t: call(x, t, seed=next(steps))), call
    refused(pipe, "arguments seed, when change from step to step", latents=X)


def test_one_step_does_not_tell_the_clock():
    refused(Loop(Net()), "made one step", latents=X, num_inference_steps=1)


def test_no_step_and_one_name_a_way_on():
    pipe = build("img2img", SCHEDULERS["sd"](), vae=True)
    call = {**ARGUMENTS["sd"](1, True), "image": draw(1, 3, 64, 64).sigmoid(), "num_inference_steps": 4}
    call.pop("latents")
    for strength, made in ((0.2, "no step of its scheduler"), (0.4, "one step")):
        words = f"made {made}, but two tell the clock; pass more num_inference_steps, or a larger strength"
        refused(pipe, words, strength=strength, **call)


def test_empty_prompts_and_other_batches_are_refused():
    refused(Loop(Net()), "prompt is empty; pass one at least", latents=X, prompt=[])
    for batch in (1.5, "2", True, 0):
        words = f"batch must be a whole number of prompts, at least 1, not {batch!r}"
        refused(Loop(Net()), words, batch=batch)


@pytest.mark.parametrize("prompt", [["a", "b"], "a", ("a",) * 4], ids=str)
def test_prompts_and_latents_that_disagree_are_refused(prompt):
    count = 1 if isinstance(prompt, str) else len(prompt)
    refused(Loop(Net()), f"latents has 3 rows, but there are {count} prompts", latents=X, prompt=prompt)


SCHEDULERS = {"sd": lambda: diffusers.DDIMScheduler(steps_offset=1, clip_sample=False)}


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("lumina2", {"cfg_trunc_ratio": 0.5}, "number of network calls changes from step to step"),
        (
            "sd",
            {"negative_prompt_embeds": draw(2, 5, 16, seed=1)},
            "both predictions of guidance are the same",
        ),
    ],
    ids=["truncated", "same"],
)
def test_guidance_that_cannot_be_told_is_refused(kind, changes, words):
    pipe = build(kind, SCHEDULERS.get(kind, diffusers.FlowMatchEulerDiscreteScheduler)())
    refused(pipe, words, **{**ARGUMENTS[kind](2, True), **changes})
