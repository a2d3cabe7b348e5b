"""Lifted solvers in the loops of other frameworks make the samples that they make here."""

import pytest
import torch

import fewstep as fs
from fewstep.adapters import edm, k_diffusion
from fewstep.networks import Corrector

SHAPE = (3, 8, 8)
NOISE = fs.noise(2, SHAPE, seed=3)


def corrector(calls):
    torch.manual_seed(0)
    made = Corrector(SHAPE, calls, range(1, calls + 1), width=8)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    return made.eval().requires_grad_(False)


def lifted_for(schedule, calls=3):
    return fs.Lifted.of(fs.classical.dpmpp("2M", calls, schedule=schedule), corrector(calls))


@pytest.fixture
def solver_folder(tmp_path):
    lifted_for(fs.schedules.VE(80.0)).save(tmp_path / "lifted")
    return tmp_path / "lifted"


def denoise(x, sigma, **_):
    return x.tanh() / (1 + sigma.reshape(-1, 1, 1, 1))


class TestDiffusers:
    def test_a_scheduler_keeps_the_corrections(self, tmp_path):
        diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
        from fewstep.adapters import diffusers as adapter

        before = diffusers.DDIMScheduler(clip_sample=False)

        def network(x, k, **_):
            return (x + k.reshape(-1, 1, 1, 1) / 1000).sin()

        convention = adapter.FewStepScheduler.from_solver(fs.classical.euler(2), before).convention
        lifted = lifted_for(convention.schedule)
        clock, prediction = convention.clock, convention.prediction
        field = fs.Field(network, convention.schedule, prediction, clock=clock, name="m")
        expected = lifted.sample(field, NOISE)
        ours = adapter.FewStepScheduler.from_solver(lifted, before)
        ours.save_pretrained(tmp_path)
        for scheduler in (
            ours,
            adapter.FewStepScheduler.from_config(ours.config),
            adapter.FewStepScheduler.from_pretrained(tmp_path),
        ):
            x = NOISE * scheduler.init_noise_sigma
            for k in scheduler.timesteps:
                x = scheduler.step(network(x, k.expand(2)), k, x).prev_sample
            torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)
        assert (lifted.uncorrected.sample(field, NOISE) - expected).abs().max() > 0.01
        begun = adapter.FewStepScheduler.from_solver(lifted, before)
        begun.set_begin_index(1)  # a state without a history: DPM-Solver++ 2M, without corrections
        x = NOISE
        for k in begun.timesteps[1:]:
            x = begun.step(network(x, k.expand(2)), k, x).prev_sample
        assert x.isfinite().all()


def test_k_diffusion_and_edm(solver_folder):
    lifted = fs.load(solver_folder)
    field = edm.field(denoise, sigma_min=0.002, sigma_max=80.0, shape=SHAPE)
    schedule = field.schedule
    lifted = lifted_for(schedule)
    expected = lifted.sample(field, NOISE)
    sampler = k_diffusion.sampler(lifted, schedule)
    found = sampler(denoise, NOISE * sampler.sigmas[0])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert (lifted.uncorrected.sample(field, NOISE) - expected).abs().max() > 0.01


def test_flow_matching():
    from fewstep.adapters import flow_matching

    lifted = fs.Lifted.of(fs.classical.midpoint(2), corrector(4))

    def velocity(x, t):
        return (x + t.reshape(-1, 1, 1, 1)).sin()

    pytest.importorskip("flow_matching", reason="flow_matching is not installed")
    found = flow_matching.ODESolver(velocity, lifted).sample(NOISE)
    expected = lifted.sample(fs.Field(lambda x, t: velocity(x, t), name="m"), NOISE)
    torch.testing.assert_close(found, expected)


def test_the_program_reads_a_folder(solver_folder):
    from fewstep.adapters._solver import read

    assert isinstance(read(solver_folder), fs.Lifted)
    assert isinstance(read(solver_folder / "solver.json", nfe=3), fs.Lifted)


def test_a_module_without_fewstep_is_refused(solver_folder):
    with pytest.raises(ValueError, match="torch alone cannot hold"):
        k_diffusion.module(fs.load(solver_folder))
