"""Singlestep DPM-Solvers on a grid of calls: how calls are divided, and what they converge to."""

from __future__ import annotations

import pytest

from fewstep.classical import ddim, dpm_singlestep, dpm_solver, dpmpp
from fewstep.classical.singlestep import _lengths
from fewstep.schedules import VP, CondOT


@pytest.mark.parametrize(
    ("order", "calls", "lengths"),
    [
        (1, 3, [1, 1, 1]),
        (2, 6, [2, 2, 1, 1]),
        (2, 7, [2, 2, 2, 1]),
        (3, 6, [3, 2, 1]),
        (3, 7, [3, 3, 1]),
        (3, 8, [3, 3, 2]),
        (3, 1, [1]),
    ],
)
def test_calls_are_divided_as_in_the_paper(order, calls, lengths):
    """Lu et al. (2022a), appendix D.3."""
    assert _lengths(order, calls, lower_order_final=True) == lengths


@pytest.mark.parametrize(("prediction", "other"), [("data", dpmpp), ("noise", dpm_solver)])
def test_calls_in_the_middle_make_it_2s(prediction, other, equal_log_snr):
    schedule = VP()
    grid = equal_log_snr(schedule, 6)
    solver = dpm_singlestep(2, schedule=schedule, grid=grid, prediction=prediction, lower_order_final=False)
    plain = other("2S", schedule=schedule, grid=grid[::2])
    assert solver.times == pytest.approx(plain.times, abs=1e-12)
    for row, expected in zip([*solver.C, *solver.D], [*plain.C, *plain.D], strict=True):
        assert row == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize(("order", "steps"), [(1, 60), (2, 60), (3, 60)])
def test_the_order_is_measured_on_a_mixture(prediction, order, steps, measured_order):
    """The stage of order 2 inside a step of order 3 has half weight, and that is enough."""
    schedule = VP()

    def build(grid):
        return dpm_singlestep(
            order, schedule=schedule, grid=grid, prediction=prediction, lower_order_final=False
        )

    assert measured_order(build, schedule, steps) == pytest.approx(order, abs=0.35)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("steps", [1, 2, 3, 6, 7, 8])
def test_from_pure_noise_to_pure_data_the_first_and_last_call_are_ddim(order, prediction, steps):
    solver = dpm_singlestep(order, steps, prediction=prediction)
    plain = ddim(steps, schedule=CondOT())
    assert solver.nfe == steps
    assert (solver.C[0], solver.D[0]) == (plain.C[0], plain.D[0])
    assert (solver.C[-1], solver.D[-1]) == (plain.C[-1], plain.D[-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": 4, "steps": 4}, "order must be 1, 2 or 3, not 4"),
        (
            {"order": 3, "steps": 7, "schedule": VP(), "lower_order_final": False},
            "7 calls at finite lambda are not a multiple of order=3",
        ),
    ],
)
def test_bad_arguments_are_named(options, words):
    with pytest.raises(ValueError, match=words):
        dpm_singlestep(**options)
