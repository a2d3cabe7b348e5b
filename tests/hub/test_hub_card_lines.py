"""All lines of Python in model cards, run with stand-ins: each framework gives the samples of the solver."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.fitting import GaussNewton, Reference

pytest.importorskip("huggingface_hub")
diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

SHAPE = (4,)
LABELS = torch.arange(16) % 3 + 1
DDPM = fs.schedules.DDPM("scaled_linear", 0.00085, 0.012)
EMPTY = {"label": torch.zeros(1, dtype=torch.long)}


def bend(x, t, label=None):
    """A smooth network of any prediction, with the time in thousandths if it is large."""
    t = torch.as_tensor(t, dtype=x.dtype)
    t = torch.where(t > 1, t / 1000, t).reshape(-1, 1)
    drift = 0.0 if label is None else 0.3 * label[:, None]
    return torch.sin(x.roll(1, dims=1) + 2 * t + drift)


class Pipe:
    """A pipeline of one prompt for 16 samples, with the guidance that those of diffusers have by default."""

    def __init__(self, scheduler, conditions):
        self.scheduler, self.conditions = scheduler, conditions

    def __call__(self, prompt, num_inference_steps, guidance_scale=7.5, guidance_rescale=0.0):
        assert prompt == "a prompt"
        self.scheduler.set_timesteps(num_inference_steps)
        x = fs.noise(16, SHAPE, seed=0) * self.scheduler.init_noise_sigma
        for timestep in self.scheduler.timesteps:
            output = self._predicted(x, timestep, self.conditions)
            if self.conditions and guidance_scale != 1:
                away = self._predicted(x, timestep, EMPTY)
                guided = away + guidance_scale * (output - away)
                sizes = output.std(1, keepdim=True) / guided.std(1, keepdim=True)  # Lin et al., section 3.4
                output = guided * (guidance_rescale * sizes + 1 - guidance_rescale)
            x = self.scheduler.step(output, timestep, x).prev_sample
        return type("Output", (), {"images": [x]})

    def _predicted(self, x, timestep, conditions):
        label = {key: value.expand(len(x)) for key, value in conditions.items()}
        if isinstance(self.scheduler.convention.schedule, fs.schedules.CondOT):
            return -bend(x, 1 - timestep / 1000, **label)  # noise minus data, at sigma
        return bend(x, timestep, **label)


def pipe_for(field, conditions):
    if field.schedule == DDPM:
        options = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        return Pipe(diffusers.DDIMScheduler(**options, clip_sample=False), conditions)
    return Pipe(diffusers.FlowMatchEulerDiscreteScheduler(), conditions)


def fitted(solver, field, conditions=()):
    facts = {**field.describe(), **({"conditions": list(conditions)} if conditions else {})}
    return replace(solver, fitted_for=facts)


def fit_of(field, conditions, **options):
    quick = {"optimizer": GaussNewton(1), "reference": Reference(steps=16)}
    return fs.fit(field, nfe=3, pairs=16, per_sample=conditions, **quick, **options)


GUIDED = {"guidance": 2.5, "unconditional": EMPTY, "guidance_rescale": 0.7}
PLAIN = fs.Field(bend, shape=SHAPE)
LABELLED = fs.Field(bend, shape=SHAPE, **GUIDED)
NOISE = fs.Field(bend, DDPM, "noise", shape=SHAPE, **GUIDED)
VP = fs.schedules.VP()
TIMED = fs.Field(bend, VP, shape=SHAPE, clock=(0.2, 0.9))
EVERYWHERE = {"diffusers", "k_diffusion", "flow_matching"}


def two_m(schedule):
    return fs.classical.dpmpp("2M", 3, schedule=schedule)


#: What is saved, its field, the network's conditions, and the frameworks with lines.
KINDS = {
    "classical": lambda: (fs.classical.midpoint(2), PLAIN, {}, {"diffusers", "flow_matching"}),
    "classical, straight": lambda: (two_m(PLAIN.schedule), PLAIN, {}, EVERYWHERE),
    "classical, VP": lambda: (two_m(VP), fs.Field(bend, VP), {}, {"k_diffusion", "flow_matching"}),
    "velocities": lambda: (fitted(fs.classical.midpoint(2), PLAIN), PLAIN, {}, EVERYWHERE),
    "velocities, VP": lambda: (
        fitted(fs.classical.midpoint(2), TIMED), TIMED, {}, {"k_diffusion", "flow_matching"},
    ),
    "noise, VP": lambda: (
        fitted(two_m(VP), fs.Field(bend, VP, "noise")), fs.Field(bend, VP, "noise"), {}, {"k_diffusion"},
    ),
    "noise, timesteps": lambda: (
        fitted(two_m(DDPM), NOISE, LABELLED.unconditional), NOISE, {"label": LABELS},
        {"diffusers", "k_diffusion"},
    ),
    "fit with conditions": lambda: (
        fit_of(PLAIN, {"label": LABELS}), PLAIN, {"label": LABELS}, EVERYWHERE
    ),
    "guided fit": lambda: (fit_of(LABELLED, {"label": LABELS}), LABELLED, {"label": LABELS}, EVERYWHERE),
    "fit for several scales": lambda: (
        fit_of(LABELLED, {"label": LABELS}, guidance=(1, 2.5)), LABELLED, {"label": LABELS}, EVERYWHERE
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_all_lines_run(tmp_path, monkeypatch, kind):
    made, field, conditions, frameworks = KINDS[kind]()
    monkeypatch.chdir(tmp_path)
    made.save_pretrained("thing")
    blocks = re.findall(r"```python\n(.*?)```", Path("thing/README.md").read_text(), flags=re.DOTALL)
    assert {name for name in EVERYWHERE for block in blocks[1:] if f"adapters.{name}." in block} == frameworks
    assert len(blocks) == 1 + len(frameworks)
    names = {
        "network": bend, "velocity_model": bend, "shape": SHAPE, "unconditional": EMPTY,
        "model": field.denoiser(), "pipe": pipe_for(field, conditions),
        **({"conditions": conditions} if conditions else {}),
    }  # fmt: skip
    for block in blocks:
        names.pop("samples", None)
        exec(block, names)
        expected = names["solver"].sample(field, fs.noise(16, SHAPE, seed=0), **conditions)
        found = names["image"] if "adapters.diffusers" in block else names["samples"]
        error = float((found - expected).abs().max() / expected.square().mean().sqrt())
        print(f"card, {kind}: {error:.1e} in {block.splitlines()[-1]}")
        assert error < 1e-3


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_lines_for_a_pipeline_give_the_guidance_of_the_fit(tmp_path, monkeypatch, rescale):
    """With a real pipeline, whose guidance_scale is 7.5 by default."""
    sys.path.append(str(Path(__file__).parents[1] / "adapters"))
    from tiny_pipelines import ARGUMENTS, SCHEDULERS, build

    pipe = build("sd", SCHEDULERS["sd"]())
    given = ARGUMENTS["sd"](2, True)
    task = fs.adapters.diffusers.from_pipeline(pipe, guidance_rescale=rescale, **given)
    conditions = {**task.conditions, **task.per_sample}
    solver = fitted(two_m(task.field.schedule), task.field, conditions)
    monkeypatch.chdir(tmp_path)
    solver.save_pretrained("thing")
    card = Path("thing/README.md").read_text()
    expected = solver.sample(task.field, given["latents"], **conditions)

    class Prompted:
        def __setattr__(self, key, value):
            setattr(pipe, key, value)

        def __getattr__(self, key):
            return getattr(pipe, key)

        def __call__(self, prompt, **options):
            own = {key: value for key, value in given.items() if key != "guidance_scale"}
            return type("Output", (), {"images": [pipe(**own, **options, output_type="latent").images]})

    blocks = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names = {"fs": fs, "solver": solver, "pipe": Prompted()}
    exec(next(block for block in blocks if "adapters.diffusers" in block), names)
    assert torch.allclose(names["image"], expected, atol=1e-4 * float(expected.abs().max()))

    away = task.field.unconditional
    names = {"network": task.field.model, "unconditional": away, "conditions": conditions}
    # The card draws 16 noises, and these conditions are for two.
    exec(blocks[0].replace("noise(16", "noise(2"), names)
    expected = solver.sample(task.field, fs.noise(2, task.field.shape), **conditions)
    assert torch.equal(names["samples"], expected)


def test_the_figures_name_steps_or_tolerances(tmp_path):
    for options, said in (({"steps": 16}, "rk4 on a fixed grid of 16 steps from"), ({}, "dopri5 (rtol 1e-0")):
        fit = fs.fit(PLAIN, nfe=2, pairs=8, optimizer=GaussNewton(1), reference=Reference(**options))
        fit.save_pretrained(tmp_path)
        assert f"RMSE to reference samples of {said}" in (tmp_path / "README.md").read_text()


def test_names_of_conditions_are_told(tmp_path):
    facts = {**PLAIN.describe(), "conditions": ["label", "a|b<c"]}
    replace(fs.classical.midpoint(2), fitted_for=facts).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "- conditions: label, a\\|b&lt;c\n" in card
    assert "`conditions` are its arguments by name, `label`, `a\\|b<c`, for each of the samples." in card
