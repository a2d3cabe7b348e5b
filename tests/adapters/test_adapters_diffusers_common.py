"""What diffusers asks of every scheduler of its own (its SchedulerCommonTest), asked of ours.

Left out is the case of ``trained_betas``, an argument that ours does not have.
"""

from __future__ import annotations

import inspect

import pytest
import torch

import fewstep as fs
from fewstep.adapters import diffusers as adapter

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

pytestmark = pytest.mark.filterwarnings("ignore:__array")  # of diffusers with NumPy 2

FewStep = adapter.FewStepScheduler
SAMPLE = torch.arange(4 * 3 * 8 * 8).reshape(4, 3, 8, 8).permute(3, 0, 1, 2) / (4 * 3 * 8 * 8)
KINDS = ["DDIMScheduler", "EulerDiscreteScheduler", "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"]


def model(sample, t):
    return sample * t / (t + 1)


@pytest.fixture(params=KINDS)
def scheduler(request):
    solvers = [fs.classical.midpoint(5), fs.classical.heun(4).unroll()]
    return FewStep.from_solver(solvers, getattr(diffusers, request.param)())


def run(scheduler, n, generator=None, sample=SAMPLE):
    scheduler.set_timesteps(n)
    for t in scheduler.timesteps:
        output = model(scheduler.scale_model_input(sample, t), t)
        sample = scheduler.step(output, t, sample, generator=generator).prev_sample
    return sample


def saved(scheduler, folder):
    scheduler.save_config(folder)
    return FewStep.from_pretrained(folder)


def test_a_saved_one_steps_alike(scheduler, tmp_path):
    other = saved(scheduler, tmp_path)
    for n in (10, 8):
        for each in (scheduler, other):
            each.set_timesteps(n)
        one, two = (
            each.step(0.1 * SAMPLE, each.timesteps[0], SAMPLE).prev_sample for each in (scheduler, other)
        )
        assert float((one - two).abs().sum()) < 1e-5
        assert float((run(scheduler, n) - run(other, n)).abs().sum()) < 1e-5


def test_settings_survive_saving(scheduler, tmp_path):
    other = saved(scheduler, tmp_path)
    assert dict(scheduler.config) == dict(other.config)
    assert FewStep.from_config(other.config).config == other.config


def test_compatible_schedulers_take_its_settings_and_give_them_back(scheduler):
    assert scheduler.config["_fewstep"]["before"] in {kind.__name__ for kind in scheduler.compatibles}
    for kind in scheduler.compatibles:
        if kind is diffusers.DPMSolverSDEScheduler:
            continue  # needs torchsde
        if kind is diffusers.EDMEulerScheduler and scheduler.config.get("sigma_min", 0) is None:
            continue  # takes no settings of a loaded EulerDiscreteScheduler either
        back = FewStep.from_config(kind.from_config(scheduler.config).config)
        assert {k: v for k, v in back.config.items() if k in scheduler.config} == dict(scheduler.config)
        more = set(back.config) - set(scheduler.config)
        assert not more & set(inspect.signature(FewStep.__init__).parameters)
        assert torch.equal(run(back, 10), run(scheduler, 10))


def test_steps_keep_the_shape(scheduler):
    scheduler.set_timesteps(10)
    first = scheduler.step(0.1 * SAMPLE, scheduler.timesteps[0], SAMPLE).prev_sample
    second = scheduler.step(0.1 * SAMPLE, scheduler.timesteps[1], SAMPLE).prev_sample
    assert first.shape == second.shape == SAMPLE.shape


def test_tuples_hold_what_outputs_do(scheduler):
    results = []
    for as_dict in (True, False):
        scheduler.set_timesteps(10)
        generator = torch.manual_seed(0)
        results.append(
            scheduler.step(
                0.1 * SAMPLE, scheduler.timesteps[0], SAMPLE, generator=generator, return_dict=as_dict
            )
        )
    output, plain = results
    assert isinstance(plain, tuple)
    assert [torch.equal(a, b) for a, b in zip(output.to_tuple(), plain, strict=True)] == [True]
    assert torch.equal(output.prev_sample, output["prev_sample"])


def test_names_that_pipelines_use(scheduler):
    for name in ("init_noise_sigma", "order", "timesteps", "sigmas", "config", "num_inference_steps"):
        assert hasattr(scheduler, name)
    assert scheduler.scale_model_input(SAMPLE, 0.0 if scheduler.convention.sigma_data is None else None).shape
    assert scheduler.begin_index is None
    assert scheduler.step_index is None
    assert len(scheduler) == 1000
    assert len(scheduler.sigmas) == len(scheduler.timesteps) + 1
    assert list(inspect.signature(scheduler.step).parameters)[:3] == ["model_output", "timestep", "sample"]
    assert {"sigmas", "timesteps", "mu"} <= set(inspect.signature(scheduler.set_timesteps).parameters)


def test_noise_is_added_at_a_timestep(scheduler):
    scheduler.set_timesteps(10)
    noised = scheduler.add_noise(SAMPLE, torch.randn_like(SAMPLE), scheduler.timesteps[5][None])
    assert noised.shape == SAMPLE.shape


def test_no_arguments_are_deprecated():
    kinds = {parameter.kind for parameter in inspect.signature(FewStep.__init__).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD not in kinds
    assert FewStep._deprecated_kwargs == []


def test_attributes(scheduler):
    scheduler.dummy = 5
    scheduler.register_to_config(setting=5)
    assert scheduler.dummy == 5
    assert scheduler.config.setting == 5
    with pytest.warns(FutureWarning, match="Accessing config attribute `setting`"):
        assert scheduler.setting == 5
    with pytest.raises(AttributeError, match="'FewStepScheduler' object has no attribute 'missing'"):
        _ = scheduler.missing


@pytest.mark.parametrize(
    "settings", [{"num_train_timesteps": 100}, {"beta_end": 0.03}, {"prediction_type": "sample"}]
)
def test_other_settings_survive_saving(settings, tmp_path):
    made = FewStep.from_solver(fs.classical.euler(10), diffusers.DDIMScheduler(**settings))
    assert float((run(made, 10) - run(saved(made, tmp_path), 10)).abs().sum()) < 1e-5
    other = FewStep.from_solver(fs.classical.euler(10), diffusers.DDIMScheduler())
    assert not torch.equal(run(made, 10), run(other, 10))


def test_types_are_kept(scheduler):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert run(scheduler, 10, sample=SAMPLE.to(dtype)).dtype == dtype


def test_repeats_itself(scheduler):
    first = run(scheduler, 10)
    run(scheduler, 8)
    assert torch.equal(run(scheduler, 10), first)
