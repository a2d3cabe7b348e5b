"""Our solvers against diffusers' and torchdiffeq's, in float32 on one random network, and their quirks."""

from __future__ import annotations

import logging
import sys
from functools import partial
from pathlib import Path

import diffusers
import pytest
import torch

from fewstep.classical import ddim, deis, dpm_solver, dpmpp, unipc
from fewstep.schedules import DDPM

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import peers
import solver_oracles

CASES = [*solver_oracles.diffusers_cases(), *solver_oracles.torchdiffeq_cases()]
# Upstream's own: of mixing arrays and tensors, and whenever its DPM-Solver of 2022 is made.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*dpmsolver.*is deprecated:FutureWarning"),
]


@pytest.fixture(autouse=True)
def quiet():
    """Schedulers warn through logging that they change their settings."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.peer}-{case.steps}")
def test_it_does_what_the_peer_does(case):
    """Measured: 5e-6 at most, and 1e-6 for nearly all."""
    assert case.compare() < 1e-5


#: Ends where B(h) is finite.
FINITE = {"final_sigmas_type": "sigma_min"}


@pytest.mark.parametrize(
    ("name", "config", "ours"),
    [
        ("UniPCMultistep", {"solver_type": "bh1", **FINITE}, solver_oracles.call(unipc, 2)),
        ("UniPCMultistep", {"solver_order": 3, **FINITE}, solver_oracles.call(unipc, 2)),
        ("UniPCMultistep", FINITE, solver_oracles.call(unipc, 2, lower_order_final=False)),
        ("UniPCMultistep", FINITE, solver_oracles.call(dpmpp, "2M", lower_order_final=True)),
        ("DPMSolverMultistep", {"solver_order": 3}, solver_oracles.call(dpmpp, "2M")),
        ("DPMSolverMultistep", {"solver_order": 2}, solver_oracles.call(ddim)),
        ("DEISMultistep", {"solver_order": 3}, solver_oracles.call(dpm_solver, "3M")),
        ("DEISMultistep", {"solver_order": 3}, solver_oracles.call(deis, 3, lower_order_final=True)),
    ],
    ids=str,
)
def test_the_comparison_tells_solvers_apart(name, config, ours):
    scheduler = partial(getattr(diffusers, f"{name}Scheduler"), **config)
    assert solver_oracles.preserving(scheduler, 8, ours, DDPM(), "noise") > 1e-4


@pytest.mark.parametrize(
    ("config", "options"),
    [({"solver_type": "bh1"}, {"variant": "bh1"}), ({"predict_x0": False}, {"prediction": "noise"})],
    ids=str,
)
def test_unipc_of_diffusers_is_nan_at_pure_data_and_ours_is_not(config, options):
    """Their B(h) is infinite at sigma = 0; ours takes a step of order 1 there."""
    run = peers.diffusers_preserving(diffusers.UniPCMultistepScheduler(**config), 8)
    assert run.end.isnan().all()
    solver = unipc(2, schedule=DDPM(), grid=peers.grid(run.levels, DDPM()), **options)
    ours = peers.sample(solver, run, DDPM(), "noise", solver_oracles.at_unit_variance)
    assert bool(ours.isfinite().all())


def test_dpm_solver_of_diffusers_refuses_pure_data():
    with pytest.raises(ValueError, match="final_sigmas_type"):
        diffusers.DPMSolverMultistepScheduler(algorithm_type="dpmsolver", final_sigmas_type="zero")


def test_ipndm_of_diffusers_sees_no_data_in_pure_noise():
    """Its first step from alpha = 0 scales the noise down, whatever the network says."""
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(8)
    x = peers.start_noise()
    for says in (0.0, 5.0):
        after = scheduler.step(torch.full_like(x, says), scheduler.timesteps[0], x).prev_sample
        torch.testing.assert_close(after, scheduler.betas[1] * x)
        scheduler.set_timesteps(8)
