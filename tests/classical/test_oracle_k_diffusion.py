"""Our solvers against k-diffusion's: as recorded, and live where it is installed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import peers
import solver_oracles

#: Written by ``python benchmarks/solver_oracles.py --record FILE``.
GOLDEN = json.loads(Path(__file__).with_name("k_diffusion_golden.json").read_text())
RECORDED = solver_oracles.recorded(GOLDEN)


@pytest.mark.parametrize(("sampler", "run"), RECORDED, ids=lambda value: getattr(value, "name", ""))
def test_it_does_what_was_recorded(sampler, run):
    """Measured: 1e-6 at most."""
    assert solver_oracles.k_diffusion_deviation(run, sampler.ours) < 1e-5


def test_the_recording_tells_solvers_apart():
    """Every pair of samplers with the same number of calls, but Euler's method and LMS of order 1."""
    for sampler, run in RECORDED:
        for other, theirs in RECORDED:
            same = sampler is other or {"euler", "lms"} == {sampler.name, other.name}
            if run.calls == theirs.calls and not same:
                assert solver_oracles.k_diffusion_deviation(run, other.ours) > 1e-4


@pytest.mark.parametrize("case", list(solver_oracles.k_diffusion_cases()), ids=lambda case: case.peer)
def test_it_does_what_k_diffusion_does(case):
    try:
        peers.k_diffusion_sampling()
    except ImportError as error:
        pytest.skip(f"k-diffusion cannot be imported: {error}")
    assert case.compare() < 1e-5
